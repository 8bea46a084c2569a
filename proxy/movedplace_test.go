package proxy_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// Two attestations have the same statement, such as one SBOM of two builds, and between them store.repository changed. What
// takes the second one away leaves the statement of the first one readable, where that was put.
func TestAStatementIsReadWhereItWasPutBeforeThePlaceChanged(t *testing.T) {
	now := time.Now()
	in := func(repo string) setting {
		return with(func(c *config.Config) { c.Store.To, c.Store.Repository = config.StoreToRepository, repo })
	}
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), in("first"), clock(func() time.Time { return now }))
	m := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact}).Attestations()[0]
	put := func(b []byte) (digest string) {
		digest = ocidoc.DigestOf(b)
		for _, b := range m.Blobs() {
			send(t, r, "app", b.Bytes())
		}
		r.request(http.MethodPut, "/v2/app/manifests/"+digest, b, "Content-Type", m.MediaType).want(t, http.StatusCreated)
		return digest
	}
	first := put(m.Bytes())
	for _, repo := range []string{"second", "third"} {
		in(repo)(r)
		r.restart()
		again := put(append(m.Bytes(), '\n'))
		r.request(http.MethodDelete, "/v2/app/manifests/"+again, nil).want(t, http.StatusAccepted)
		for _, l := range m.Layers { // which the registry does by itself, once no manifest refers to them
			r.direct(http.MethodDelete, "/v2/"+repo+"/blobs/"+l.Digest, nil).want(t, http.StatusAccepted)
		}
	}
	for range 4 {
		now = now.Add(24 * time.Hour)
		r.proxy.Sweep(context.Background())
	}
	r.request(http.MethodGet, "/v2/app/manifests/"+first, nil, acceptAll...).want(t, http.StatusOK)
	for _, l := range m.Layers {
		r.direct(http.MethodHead, "/v2/first/blobs/"+l.Digest, nil).want(t, http.StatusOK)
		r.request(http.MethodGet, "/v2/app/blobs/"+l.Digest, nil).want(t, http.StatusOK)
	}
	if got := len(r.referrers("app", m.Subject.Digest.String()).Manifests); got != 1 {
		t.Errorf("%d referrers are listed, want 1", got)
	}
}
