package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// A client that keeps a referrers tag itself (distribution-spec, "Referrers Tag Schema") must be able to, also for an
// image with a sha512 digest, whose tag is cut: a list of attestations alone is acknowledged and not forwarded, and a list
// that is left with one entry stays a list.
func TestAReferrersTagIsOneForEveryAlgorithm(t *testing.T) {
	for _, tag := range []string{"sha256-" + strings.Repeat("a", 64), "sha512-" + strings.Repeat("a", 64)} {
		for _, act := range []filters.Action{filters.Strip, filters.Store} {
			t.Run(tag[:6]+"/"+string(act), func(t *testing.T) {
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact, Platforms: []string{"linux/amd64"}})
				r.push(proxytest.BuildKit, "app", "1", tree)
				attestation := entryOf(ociManifest, tree.Attestations()[0].Digest, int(tree.Attestations()[0].Size))
				other := entryOf(ociManifest, tree.Images()[0].Digest, int(tree.Images()[0].Size))
				path := "/v2/app/manifests/" + tag
				r.request(http.MethodPut, path, indexOf(attestation), "Content-Type", ociIndex).want(t, http.StatusCreated)
				r.direct(http.MethodHead, path, nil, acceptAll...).want(t, http.StatusNotFound)
				r.request(http.MethodPut, path, indexOf(attestation, other), "Content-Type", ociIndex).want(t, http.StatusCreated)
				if got, want := r.upstreamDigest("app", tag), ocidoc.DigestOf(indexOf(other)); got != want {
					t.Errorf("upstream has %s, want the list %s", got, want)
				}
			})
		}
	}
}
