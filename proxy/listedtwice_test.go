package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// I2, I3: of what an index lists twice, the entry that says less decides nothing, wherever it stands.
func TestADocumentThatIsListedTwiceIsJudgedByWhatEitherEntrySays(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	image, attestation := tree.Images()[0], tree.Attestations()[0]
	entry := func(m *proxytest.Manifest, more string) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, ociManifest, m.Digest, m.Size, more)
	}
	const linux, unknown = `,"platform":{"architecture":"amd64","os":"linux"}`, `,"platform":{"architecture":"unknown","os":"unknown"}`
	for name, tt := range map[string]struct{ pushed, want []byte }{
		"an image, the second time without a platform":         {indexOf(entry(image, linux), entry(image, "")), nil},
		"an image, the first time without a platform":          {indexOf(entry(image, ""), entry(image, linux)), nil},
		"an attestation, the first time as if for linux":       {indexOf(entry(image, linux), entry(image, linux), entry(attestation, linux), entry(attestation, unknown)), indexOf(entry(image, linux), entry(image, linux))},
		"an attestation, the second time as if for linux":      {indexOf(entry(image, linux), entry(image, linux), entry(attestation, unknown), entry(attestation, linux)), indexOf(entry(image, linux), entry(image, linux))},
		"an attestation beside one image, which is then alone": {indexOf(entry(attestation, linux), entry(attestation, unknown), entry(image, linux)), image.Bytes()},
	} {
		t.Run(name, func(t *testing.T) {
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
			newRig(t, up, action(filters.Forward)).push(proxytest.BuildKit, "app", "1", tree) // everything is upstream
			r := newRig(t, up, action(filters.Strip))
			r.request(http.MethodPut, "/v2/app/manifests/2", tt.pushed, "Content-Type", ociIndex).want(t, http.StatusCreated)
			want := tt.want
			if want == nil {
				want = tt.pushed
			}
			if got := r.upstreamDigest("app", "2"); got != ocidoc.DigestOf(want) {
				t.Errorf("upstream has %s, want %s: %s", got, ocidoc.DigestOf(want), r.direct(http.MethodGet, "/v2/app/manifests/2", nil, acceptAll...).body)
			}
		})
	}
}
