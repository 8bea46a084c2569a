package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
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

// Upstream may have an attestation too, by its own way there or from before a rule. Who deletes it is told that it is gone, so
// it is, or hears why not.
func TestAnAttestationThatUpstreamHasTooIsDeletedThere(t *testing.T) {
	for _, act := range []filters.Action{filters.Strip, filters.Store} {
		for _, form := range []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact} {
			for _, allowed := range []bool{true, false} {
				t.Run(fmt.Sprint(act, form, allowed), func(t *testing.T) {
					r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: allowed}), action(act))
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form})
					m := tree.Attestations()[0]
					if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.upstream.URL, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
						t.Fatal(err)
					}
					for _, b := range m.Blobs() {
						send(t, r, "app", b.Bytes())
					}
					r.request(http.MethodPut, "/v2/app/manifests/"+m.Digest, m.Bytes(), "Content-Type", m.MediaType).want(t, http.StatusCreated)
					want := []int{http.StatusAccepted, http.StatusNotFound}
					if !allowed {
						want = []int{http.StatusMethodNotAllowed, http.StatusOK}
					}
					r.request(http.MethodDelete, "/v2/app/manifests/"+m.Digest, nil).want(t, want[0])
					r.request(http.MethodGet, "/v2/app/manifests/"+m.Digest, nil, acceptAll...).want(t, want[1])
				})
			}
		}
	}
}

// A repository of images may be the place of another one's attestations. One that it has itself, and Sluice only here, is
// deleted here only, also by a try that comes after one that failed half-way.
func TestAnAttestationThatIsThereForAnotherRepositoryStays(t *testing.T) {
	in := func(to config.StoreTo) setting {
		return with(func(c *config.Config) { c.Store.To, c.Store.Repository = to, "kept" })
	}
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), in(config.StoreToStorage))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact, Platforms: []string{"linux/amd64"}})
	r.push(proxytest.BuildKit, "kept", "1", tree)
	in(config.StoreToRepository)(r)
	r.restart()
	r.push(proxytest.BuildKit, "app", "1", tree)
	att := tree.Attestations()[0].Digest
	r.request(http.MethodDelete, "/v2/kept/manifests/"+att, nil).want(t, http.StatusAccepted)
	r.direct(http.MethodHead, "/v2/kept/manifests/"+att, nil, acceptAll...).want(t, http.StatusOK)
	if got := len(r.referrers("app", tree.Images()[0].Digest).Manifests); got != 1 {
		t.Errorf("%d referrers are listed in app, want 1", got)
	}
}
