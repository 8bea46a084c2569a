package proxy_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// onlyIf answers 412 to a push of a tag on the condition that it holds what it does not hold (RFC 9110, 13.1), which
// distribution does not look at. lost breaks the connection after the first of them that is done.
type onlyIf struct {
	mu     sync.Mutex
	etags  map[string]string // by path
	lost   bool
	pushes int
}

func (o *onlyIf) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") || strings.Contains(r.URL.Path, ":") {
			next.ServeHTTP(w, r)
			return
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.pushes++
		holds := o.etags[r.URL.Path]
		if c := r.Header.Get("If-Match"); c != "" && c != holds || r.Header.Get("If-None-Match") == "*" && holds != "" {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		next.ServeHTTP(w, r)
		o.etags[r.URL.Path] = `"` + w.Header().Get("Docker-Content-Digest") + `"`
		if o.lost {
			o.lost = false
			panic(http.ErrAbortHandler)
		}
	})
}

// @sigstore/oci 0.7.2 writes the list of referrers back on the condition that it is the one that it read
// (dist/registry.js, uploadManifest), so that of two who add to it none is lost.
func TestAPushOnAConditionStaysOne(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip, filters.Forward} {
		t.Run(string(act), func(t *testing.T) {
			o := &onlyIf{etags: map[string]string{}}
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: o.wrap})
			r := newRig(t, up, action(act))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			r.push(proxytest.BuildKit, "app", "1", tree)
			first := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Seed: 1})
			second := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Seed: 2})
			r.push(proxytest.BuildKit, "app", "first", first)
			r.push(proxytest.BuildKit, "app", "second", second)

			read := r.request(http.MethodGet, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
			etag := read.Header.Get("Etag")
			if etag == "" {
				t.Fatalf("no ETag in %v", read.Header)
			}
			r.request(http.MethodPut, "/v2/app/manifests/1", first.Root.Bytes(), "Content-Type", ociManifest, "If-Match", etag).want(t, http.StatusCreated)
			r.request(http.MethodPut, "/v2/app/manifests/1", second.Root.Bytes(), "Content-Type", ociManifest, "If-Match", etag).want(t, http.StatusPreconditionFailed)
			if got := r.upstreamDigest("app", "1"); got != ocidoc.DigestOf(first.Root.Bytes()) {
				t.Errorf("the tag holds %s", got)
			}
			// And one that is rewritten, on the condition that there is none.
			index := tree.Root
			r.request(http.MethodPut, "/v2/app/manifests/1", index.Bytes(), "Content-Type", index.MediaType, "If-None-Match", "*").want(t, http.StatusPreconditionFailed)
			// Its answer is lost, and the second try finds that the tag has changed, by the first.
			o.lost, o.pushes = true, 0
			r.request(http.MethodPut, "/v2/app/manifests/new", index.Bytes(), "Content-Type", index.MediaType, "If-None-Match", "*").want(t, http.StatusCreated)
			if o.pushes != 2 {
				t.Errorf("%d pushes, want 2", o.pushes)
			}
		})
	}
}
