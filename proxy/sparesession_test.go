package proxy_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// The first upload of a push opens a session upstream, which a later blob takes. A registry that is started anew meanwhile, or that
// has replicas without a common memory, does not know it any more. What Sluice holds can be read again.
func TestAReleasedBlobIsSentAgainWhereTheSpareSessionIsForgotten(t *testing.T) {
	for name, size := range map[string]int{"at once": 100, "as a stream": 300 << 10} {
		t.Run(name, func(t *testing.T) {
			var first sync.Once
			m := &moody{}
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, Wrap: m.wrap}))
			m.mood.Store(&mood{is(http.MethodPost, "/blobs/uploads/"), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				next.ServeHTTP(w, r)
				first.Do(func() {
					next.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(r.Context(), http.MethodDelete, w.Header().Get("Location"), nil))
				})
			}})
			statement := statementOf(1, size)
			digest := ocidoc.DigestOf(statement)
			r.request(http.MethodPut, put(r.upload("app"), digest), statement).want(t, http.StatusCreated)
			manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"text/plain","digest":%q,"size":%d},"layers":[]}`, ociManifest, digest, len(statement))
			r.request(http.MethodPut, "/v2/app/manifests/1", manifest, "Content-Type", ociManifest).want(t, http.StatusCreated)
			if n := m.seen.Load(); n != 2 {
				t.Errorf("upstream opened %d sessions, want the spare one and another", n)
			}
			proxytest.AssertComplete(t, r.upstream)
		})
	}
}
