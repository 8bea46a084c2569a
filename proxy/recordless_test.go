package proxy_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/proxytest"
)

// I7: a push of what was deleted breaks off when the attestation is stored, and not yet recorded. The alias of the first push
// is still there, and yet the same push again must not be told that all is there: the attestation would be listed nowhere, and
// swept.
func TestAPushThatBrokeOffBeforeItsRecordsIsMadeAgain(t *testing.T) {
	for _, form := range forms {
		t.Run(string(form), func(t *testing.T) {
			failing := proxytest.NewFailingDriver(inmemory.New())
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Delete: true}), storage(failing))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Form: form})
			original, attestation := "/v2/app/manifests/"+tree.Digest(), "/v2/app/manifests/"+tree.Attestations()[0].Digest
			r.push(proxytest.BuildKit, "app", "1", tree)
			r.request(http.MethodDelete, attestation, nil).want(t, http.StatusAccepted)
			r.request(http.MethodHead, original, nil, acceptAll...).want(t, http.StatusNotFound)

			failing.Draw(func(what string) proxytest.Kind {
				if strings.HasPrefix(what, "PutContent ") && strings.Contains(what, "/_originals/") {
					return proxytest.FaultError
				}
				return ""
			})
			o := proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree}
			if _, err := proxytest.BuildKit(context.Background(), o); err == nil {
				t.Fatal("the push does not break off")
			}
			failing.Draw(nil)
			r.request(http.MethodHead, original, nil, acceptAll...).want(t, http.StatusNotFound)

			o.Tags, o.ByDigest = nil, true
			if _, err := proxytest.BuildKit(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			r.request(http.MethodHead, original, nil, acceptAll...).want(t, http.StatusOK)
			if list := r.referrers("app", tree.Images()[0].Digest); len(list.Manifests) != 1 {
				t.Errorf("listed: %v", list.Manifests)
			}
		})
	}
}
