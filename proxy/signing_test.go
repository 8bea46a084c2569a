package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// What the registry has under its original digest, from before Sluice or before a rule, is signed as ever, although a copy
// under another tag was rewritten since (crane tag, a promotion through Sluice).
func TestAnOriginalThatUpstreamHasMayBeSigned(t *testing.T) {
	for _, mode := range []config.SignedOriginals{config.SignedRefuse, config.SignedWarn} {
		t.Run(string(mode), func(t *testing.T) {
			up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Delete: true})
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			newRig(t, up, action(filters.Forward)).push(proxytest.BuildKit, "app", "1", tree)
			r := newRig(t, up, with(func(c *config.Config) { c.SignedOriginals = mode }))
			original := r.request(http.MethodGet, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
			r.request(http.MethodPut, "/v2/app/manifests/2", original.body, "Content-Type", ociIndex).want(t, http.StatusCreated)
			if r.upstreamDigest("app", "1") == r.upstreamDigest("app", "2") {
				t.Fatal("nothing was rewritten")
			}
			r.request(http.MethodPut, put(r.upload("app"), filters.EmptyDigest), []byte("{}")).want(t, http.StatusCreated)
			sign := func() *answer {
				m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]}`, ociManifest, filters.EmptyDigest)
				return r.request(http.MethodPut, "/v2/app/manifests/"+filters.FallbackTag(tree.Digest())+".sig", m, "Content-Type", ociManifest)
			}
			if a := sign().want(t, http.StatusCreated); len(a.Header.Values("Warning")) > 0 {
				t.Errorf("a warning about what is upstream: %q", a.Header.Values("Warning"))
			}
			// Once it is gone there, nobody who pulls from upstream can have it.
			r.direct(http.MethodDelete, "/v2/app/manifests/"+tree.Digest(), nil).want(t, http.StatusAccepted)
			if a := sign(); a.StatusCode != http.StatusForbidden && len(a.Header.Values("Warning")) == 0 {
				t.Errorf("an original that is only here is signed without a word: %s", a.Status)
			}
		})
	}
}
