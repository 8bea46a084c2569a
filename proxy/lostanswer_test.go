package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"sluice/proxy/proxytest"
)

// A registry takes a layer, and its answer is lost: a body that streamed cannot be sent again, but the blob is there.
func TestALostAnswerToTheEndOfAnUploadIsNoFailureWhereTheBlobIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		takes  bool
		status int
	}{"it has the blob": {true, http.StatusCreated}, "it has nothing": {false, http.StatusBadGateway}} {
		t.Run(name, func(t *testing.T) {
			m := &moody{}
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: m.wrap}))
			m.mood.Store(&mood{is(http.MethodPut, "/blobs/uploads/"), func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
				if c.takes {
					next.ServeHTTP(httptest.NewRecorder(), r)
				}
				panic(http.ErrAbortHandler)
			}})
			layer := proxytest.RandomLayer("layer", "", 1, 1, 100<<10)
			r.request(http.MethodPut, put(r.upload("app"), layer.Digest), layer.Bytes()).want(t, c.status)
			if m.seen.Load() != 1 {
				t.Errorf("the end of the upload was sent %d times", m.seen.Load())
			}
		})
	}
}
