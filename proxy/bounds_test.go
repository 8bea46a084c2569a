package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

func indexOf(entries ...string) []byte {
	return []byte(`{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[` + strings.Join(entries, ",") + `]}`)
}

func entryOf(mediaType, digest string, size int) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest, size)
}

// Six entries that are the same index, seven levels deep, are seven documents and not 6^7.
func TestAnIndexThatIsListedOftenIsJudgedOnce(t *testing.T) {
	tr := proxytest.NewTranscript()
	r := recorded(t, proxytest.NewOlareg, tr)
	image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	r.push(proxytest.BuildKit, "app", "1", image)
	e := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"amd64"}}`, ociManifest, image.Root.Digest, image.Root.Size)
	for depth := range 7 {
		body := indexOf(e, e, e, e, e, e)
		tr.Reset()
		r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(body), body, "Content-Type", ociIndex).want(t, http.StatusCreated)
		if n := tr.Upstream.Count(); n > 20 {
			t.Errorf("depth %d costs upstream %d requests", depth, n)
		}
		e = entryOf(ociIndex, ocidoc.DigestOf(body), len(body))
	}
}

// The same with attestations at the bottom: each level is rewritten once, and nothing of it dangles.
func TestAnIndexThatIsListedOftenIsRewrittenOnce(t *testing.T) {
	tr := proxytest.NewTranscript()
	r := recorded(t, proxytest.NewDistribution, tr)
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	e := entryOf(ociIndex, tree.Digest(), int(tree.Root.Size))
	for depth := range 4 {
		body := indexOf(e, e, e, e)
		tr.Reset()
		r.request(http.MethodPut, "/v2/app/manifests/1", body, "Content-Type", ociIndex).want(t, http.StatusCreated)
		r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(body), body, "Content-Type", ociIndex).want(t, http.StatusCreated)
		if n := tr.Upstream.Count(); n > 60 {
			t.Errorf("depth %d costs upstream %d requests", depth, n)
		}
		proxytest.AssertClean(t, r.upstream)
		proxytest.AssertComplete(t, r.upstream)
		e = entryOf(ociIndex, ocidoc.DigestOf(body), len(body))
	}
}

// The children of a push are read whole, so their bytes together have a bound: 32 MiB, counted here by
// how many of 4 MiB upstream is asked for before the push is refused.
func TestTheChildrenOfAPushAreBoundedInMemory(t *testing.T) {
	const size, bound, atOnce = 4<<20 - 1000, 32 << 20, 8
	documents := map[string][]byte{}
	var entries []string
	for i := range bound/size + 3*atOnce {
		b := fmt.Appendf(nil, `{"n":%d}%s`, i, strings.Repeat(" ", size))
		documents["/v2/app/manifests/"+ocidoc.DigestOf(b)] = b
		entries = append(entries, entryOf(ociManifest, ocidoc.DigestOf(b), len(b)))
	}
	var served atomic.Int64
	up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if b, ok := documents[r.URL.Path]; ok && r.Method == http.MethodGet {
				served.Add(1)
				w.Header().Set("Content-Type", "application/vnd.example+json") // kept as bytes, so that the test is fast
				_, _ = w.Write(b)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	r := newRig(t, up)
	a := r.request(http.MethodPut, "/v2/app/manifests/1", indexOf(entries...), "Content-Type", ociIndex).want(t, http.StatusBadRequest, "MANIFEST_INVALID")
	if !strings.Contains(string(a.body), "more than 33554432 bytes together") {
		t.Errorf("no word about the bound: %s", a.body)
	}
	if n := served.Load(); n > bound/size+atOnce {
		t.Errorf("upstream is asked for %d children of %d bytes, the bound is %d and %d are read at once", n, size, bound, atOnce)
	}
	r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusNotFound)
	// As many as fit go through.
	served.Store(0)
	r.request(http.MethodPut, "/v2/app/manifests/1", indexOf(entries[:bound/size-1]...), "Content-Type", ociIndex)
	if n := served.Load(); n != bound/size-1 {
		t.Errorf("upstream is asked for %d children, want %d", n, bound/size-1)
	}
}

// A held child that an index lists a thousand times is released once (I1).
func TestAHeldChildThatIsListedOftenIsReleasedOnce(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	tr := proxytest.NewTranscript(tree)
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: tr.Upstream.Handler})
	shared := inmemory.New()
	pushHalf(t, newRig(t, up, storage(shared)), "app", "", tree)
	// The rule has changed meanwhile: now the index goes upstream as it is, with what it lists.
	r := newRig(t, up, storage(shared), action(filters.Forward))
	held := tree.Attestations()[0]
	entry := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"unknown","os":"unknown"}}`, ociManifest, held.Digest, held.Size)
	body := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Repeat(entry+",", 999)+entry)
	tr.Reset()
	r.request(http.MethodPut, "/v2/app/manifests/1", []byte(body), "Content-Type", ociIndex).want(t, http.StatusCreated)
	if n := tr.Upstream.Count(); n > 20 {
		t.Errorf("%d requests upstream", n)
	}
	proxytest.AssertComplete(t, up)
}
