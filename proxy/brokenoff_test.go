package proxy_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// What Sluice reads whole from upstream is in memory, and nobody has been told of it yet: when it breaks off it is asked for again.
func TestADocumentThatBreaksOffIsAskedForAgain(t *testing.T) {
	image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	digest := image.Digest()
	about := note(ociManifest, digest, int(image.Root.Size))
	index := indexOf(entryOf(ociManifest, digest, int(image.Root.Size)))
	for name, c := range map[string]struct {
		upstream func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream
		of       string // in the path of what breaks off
		ask      func(r *rig) *answer
		status   int
	}{
		"a child of an index": {proxytest.NewDistribution, "/v2/app/manifests/" + digest, func(r *rig) *answer {
			return r.request(http.MethodPut, "/v2/mirror/app/manifests/index", index, "Content-Type", ociIndex)
		}, http.StatusCreated},
		"referrers": {proxytest.NewOlareg, "/v2/app/referrers/", func(r *rig) *answer {
			return r.request(http.MethodGet, "/v2/mirror/app/referrers/"+digest, nil)
		}, http.StatusOK},
		"referrers that Sluice asks for itself": {proxytest.NewOlareg, "/v2/app/referrers/", func(r *rig) *answer {
			return r.request(http.MethodDelete, "/v2/mirror/app/manifests/"+ocidoc.DigestOf(about), nil)
		}, http.StatusAccepted},
		"the tag of referrers": {proxytest.NewDistribution, "/v2/app/manifests/" + filters.FallbackTag(digest), func(r *rig) *answer {
			return r.request(http.MethodGet, "/v2/mirror/app/referrers/"+digest, nil)
		}, http.StatusOK},
		"tags": {proxytest.NewDistribution, "/v2/app/tags/list", func(r *rig) *answer {
			return r.request(http.MethodGet, "/v2/mirror/app/tags/list", nil)
		}, http.StatusOK},
		"the catalog": {proxytest.NewDistribution, "/v2/_catalog", func(r *rig) *answer {
			return r.request(http.MethodGet, "/v2/_catalog", nil)
		}, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			m := &moody{}
			r := newRig(t, c.upstream(t, proxytest.UpstreamOptions{Wrap: m.wrap, Delete: true}), with(func(c *config.Config) { c.Upstreams[0].Prefix = "mirror" }))
			r.push(proxytest.BuildKit, "mirror/app", "image", image)
			r.pushNote("mirror/app", about).want(t, http.StatusCreated)
			r.restart() // what the process remembers
			var cut atomic.Bool
			m.mood.Store(&mood{func(r *http.Request) bool { return r.Method == http.MethodGet && strings.HasPrefix(r.URL.Path, c.of) }, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				whole := httptest.NewRecorder()
				next.ServeHTTP(whole, r)
				maps.Copy(w.Header(), whole.Header())
				w.Header().Set("Content-Length", strconv.Itoa(whole.Body.Len()))
				w.WriteHeader(whole.Code)
				if cut.CompareAndSwap(false, true) {
					_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				}
				_, _ = w.Write(whole.Body.Bytes())
			}})
			c.ask(r).want(t, c.status)
			if n := m.seen.Load(); n < 2 {
				t.Errorf("it was asked for %d times", n)
			}
		})
	}
}

// Where it goes on like that, nothing is known of the registry: it may well have the API whose answer cannot be read.
func TestReferrersThatCannotBeReadAreNoMissingAPI(t *testing.T) {
	t.Parallel() // it is tried again for some seconds
	image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	about := note(ociManifest, image.Digest(), int(image.Root.Size))
	m := &moody{}
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: m.wrap, Delete: true}))
	r.push(proxytest.BuildKit, "app", "image", image)
	r.pushNote("app", about).want(t, http.StatusCreated)
	m.mood.Store(&mood{is(http.MethodGet, "/referrers/"), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("{"))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}})
	r.request(http.MethodDelete, "/v2/app/manifests/"+ocidoc.DigestOf(about), nil).want(t, http.StatusBadGateway)
	r.direct(http.MethodHead, "/v2/app/manifests/"+ocidoc.DigestOf(about), nil, acceptAll...).want(t, http.StatusOK)
}
