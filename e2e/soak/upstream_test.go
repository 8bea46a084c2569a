//go:build soak

package soak

import (
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

// A registry is distribution's behind faults. Its storage is laid open by Upstream, and its handler answers the test
// without faults.
type registry struct {
	*proxytest.Upstream
	*peer
	faulty *faulty
}

func startRegistry(t *testing.T, d *dice) *registry {
	t.Helper()
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	f := &faulty{
		name: "registry", next: up.Handler, dice: d,
		faults: append([]fault{
			{"401", status(401)},
			{"401 with a challenge", status(401, "WWW-Authenticate", `Basic realm="registry"`)},
			{"403", status(403)},
			{"404", status(404)},
			{"429", status(429)},
			{"429 with Retry-After", status(429, "Retry-After", "1")},
			{"500", status(500)},
			{"502", status(502)},
			{"503 with Retry-After", status(503, "Retry-After", "1")},
			{"504", status(504)},
			{"a page of some portal", raw("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>Please log in</html>")},
			{"202 with no Location", raw("HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")},
			{"says it has what it has not", hasAll},
		}, connections...),
		steps: []func(*http.Request) bool{
			every, every, is(http.MethodHead, "/blobs/sha256:"), is(http.MethodPost, "/blobs/uploads/"), is(http.MethodPatch, "/blobs/uploads/"),
			is(http.MethodPut, "/blobs/uploads/"), is(http.MethodPut, "/manifests/sha256:"), isTag, is(http.MethodHead, "/manifests/"), is(http.MethodGet, "/manifests/"),
		},
	}
	return &registry{Upstream: up, peer: startPeer(t, f), faulty: f}
}

func isTag(r *http.Request) bool {
	return is(http.MethodPut, "/manifests/")(r) && !strings.Contains(r.URL.Path, "sha256:")
}

// hasAll changes its mind when the layer is needed.
func hasAll(f *faulty, _ *moment, w http.ResponseWriter, r *http.Request) {
	if !is(http.MethodHead, "/blobs/sha256:")(r) {
		f.next.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", path.Base(r.URL.Path))
	w.Header().Set("Content-Length", "100")
}

// has is the digest under a name, blobs/sha256:... or manifests/..., in truth; "" for nothing.
func (r *registry) has(repo, name string) string {
	w := httptest.NewRecorder()
	q := httptest.NewRequest(http.MethodHead, "/v2/"+repo+"/"+name, nil)
	q.Header["Accept"] = []string{proxytest.MediaTypeOCIIndex, proxytest.MediaTypeOCIManifest}
	if r.Handler.ServeHTTP(w, q); w.Code != http.StatusOK {
		return ""
	}
	return w.Header().Get("Docker-Content-Digest")
}
