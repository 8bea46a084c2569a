package proxy_test

import (
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// A delete that the destination's registry refuses changes nothing: the attestation is there, and listed, and so is its
// signature.
func TestADeleteThatTheDestinationRefusesChangesNothing(t *testing.T) {
	for to, repo := range inRegistry {
		t.Run(string(to), func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storeTo(to))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
			r.push(proxytest.BuildKit, "app", "1", tree)
			s := bundleOf(tree.Attestations()[0])
			s.push(r.request, "app").want(t, http.StatusCreated)
			image := tree.Images()[0].Digest
			for _, digest := range []string{tree.Attestations()[0].Digest, r.referrers("app", image).Manifests[0].Digest} {
				r.request(http.MethodDelete, "/v2/app/manifests/"+digest, nil).want(t, http.StatusMethodNotAllowed, "UNSUPPORTED")
				if got := len(r.referrers("app", image).Manifests); got != 1 {
					t.Errorf("%d referrers are listed, want 1", got)
				}
				r.direct(http.MethodHead, "/v2/"+repo+"/manifests/"+filters.FallbackTag(image), nil, acceptAll...).want(t, http.StatusOK)
				r.attestedUpstream(repo, tree, true)
				s.check(t, r.request, "app")
			}
		})
	}
}
