package proxy_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/internal/objects"
	"sluice/proxy/proxytest"
)

// Signatures of signatures are kept as far as whatever follows them goes: the last of them lives and goes with the
// attestation, and the next one is upstream.
func TestAChainOfSignaturesIsKeptAsFarAsItIsFollowed(t *testing.T) {
	for name, settings := range map[string][]setting{
		"strip":             {action(filters.Strip)},
		"store for 30 days": {with(func(c *config.Config) { c.Store.Retention = 30 })},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), append(settings, clock(func() time.Time { return now }))...)
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			r.push(proxytest.BuildKit, "app", "1", tree)
			s := bundleOf(tree.Attestations()[0])
			chain := []*signature{s}
			for range objects.MaxAbout {
				s = signatureOf(s.digest, len(s.manifest), bundleType)
				chain = append(chain, s)
			}
			for i, s := range chain {
				s.push(r.request, "app").want(t, http.StatusCreated)
				status := http.StatusNotFound
				if i == objects.MaxAbout {
					status = http.StatusOK
				}
				r.direct(http.MethodHead, "/v2/app/manifests/"+s.digest, nil, acceptAll...).want(t, status)
			}
			for range 8 { // in which the attestation is in use
				now = now.Add(5 * 24 * time.Hour)
				if name == "strip" {
					now = now.Add(-4 * 24 * time.Hour)
				}
				r.push(proxytest.BuildKit, "app", "1", tree)
				r.request(http.MethodHead, "/v2/app/manifests/"+tree.Root.Digest, nil, acceptAll...).want(t, http.StatusOK)
				r.proxy.Sweep(context.Background())
			}
			for _, s := range chain {
				s.check(t, r.request, "app")
			}
			for _, days := range []int{40, 2, 2} { // put aside, and deleted
				now = now.Add(time.Duration(days) * 24 * time.Hour)
				r.proxy.Sweep(context.Background())
			}
			for _, s := range chain[:objects.MaxAbout] {
				r.request(http.MethodGet, "/v2/app/manifests/"+s.digest, nil, acceptAll...).want(t, http.StatusNotFound)
			}
		})
	}
}
