package proxy_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// Two attestations with the same statement, such as one SBOM of two builds: what one of them needs stays until both are gone.
func TestADeletedAttestationLeavesWhatAnotherNeeds(t *testing.T) {
	for _, act := range []filters.Action{filters.Strip, filters.Store} {
		t.Run(string(act), func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act))
			m := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}).Attestations()[0]
			for _, b := range m.Blobs() {
				send(t, r, "app", b.Bytes())
			}
			manifests := [][]byte{m.Bytes(), append(m.Bytes(), '\n')}
			for _, b := range manifests {
				r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(b), b, "Content-Type", m.MediaType).want(t, http.StatusCreated)
			}
			for i, b := range manifests {
				r.request(http.MethodDelete, "/v2/app/manifests/"+ocidoc.DigestOf(b), nil).want(t, http.StatusAccepted)
				status := []int{http.StatusOK, http.StatusNotFound}[i]
				for _, l := range m.Layers {
					r.request(http.MethodGet, "/v2/app/blobs/"+l.Digest, nil).want(t, status)
				}
			}
		})
	}
}

// A client may use sha512. By that digest an attestation is read for as long as it is stored, and not only while it is held.
func TestAnAttestationIsStoredByTheDigestThatItWasPushedBy(t *testing.T) {
	now := time.Now()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), clock(func() time.Time { return now }))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact})
	m := tree.Attestations()[0]
	for _, b := range m.Blobs() {
		send(t, r, "app", b.Bytes())
	}
	digest := godigest.SHA512.FromBytes(m.Bytes()).String()
	r.request(http.MethodPut, "/v2/app/manifests/"+digest, m.Bytes(), "Content-Type", m.MediaType).want(t, http.StatusCreated)
	for range 5 {
		now = now.Add(24 * time.Hour)
		r.proxy.Sweep(context.Background())
	}
	r.request(http.MethodGet, "/v2/app/manifests/"+digest, nil, acceptAll...).want(t, http.StatusOK)
	if list := r.referrers("app", m.Subject.Digest.String()).Manifests; len(list) != 1 || list[0].Digest != digest {
		t.Errorf("its image has the referrers %v", list)
	}
	r.request(http.MethodDelete, "/v2/app/manifests/"+digest, nil).want(t, http.StatusAccepted)
	r.request(http.MethodGet, "/v2/app/manifests/"+digest, nil, acceptAll...).want(t, http.StatusNotFound)
}
