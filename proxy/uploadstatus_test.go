package proxy_test

import (
	"net/http"
	"testing"

	"sluice/proxy/proxytest"
)

// Upstream tells how far an upload has come, and nonsense is not how far: Sluice has counted too.
func TestNonsenseAboutHowFarAnUploadHasComeDoesNotCount(t *testing.T) {
	for said, want := range map[string]string{
		"0-9": "0-9", "bytes=0-9": "0-9", "0-9223372036854775807": "0-99", "0--5": "0-99", "0-99999999999999999999": "0-99", "-": "0-99", "": "0-99",
	} {
		t.Run(said, func(t *testing.T) {
			m := &moody{}
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: m.wrap}))
			m.mood.Store(&mood{is(http.MethodGet, "/blobs/uploads/"), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("Range", said)
				w.WriteHeader(http.StatusNoContent)
			}})
			location := r.request(http.MethodPatch, r.upload("app"), noise(100)).want(t, http.StatusAccepted).Header.Get("Location")
			if got := r.request(http.MethodGet, location, nil).want(t, http.StatusNoContent).Header.Get("Range"); got != want {
				t.Errorf("%q has come, want %q", got, want)
			}
		})
	}
}
