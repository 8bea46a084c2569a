package proxy_test

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// Amazon ECR deletes nothing that an index lists, and where it has no referrers API Sluice keeps that list. Whoever deletes
// an attestation takes it out, and a push may put it in again before it is deleted.
func TestAnAttestationThatIsListedAgainWhileItIsDeletedIsNotRefused(t *testing.T) {
	for pushed, status := range map[string]int{"app": http.StatusAccepted, "lib": http.StatusTooManyRequests} {
		t.Run(pushed, func(t *testing.T) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Form: proxytest.FormArtifact})
			attestation, image := tree.Attestations()[0].Digest, tree.Images()[0].Digest
			var r *rig
			var once sync.Once
			r = newRig(t, readableECR(t, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if strings.Contains(q.URL.Path, "/referrers/") {
						http.NotFound(w, q)
						return
					}
					if q.Method == http.MethodDelete && q.URL.Path == "/v2/attestations/manifests/"+attestation {
						once.Do(func() { r.push(proxytest.BuildKit, pushed, "2", tree) })
					}
					next.ServeHTTP(w, q)
				})
			}), with(ecrCredentials), with(func(c *config.Config) {
				c.Store.To, c.Store.Repository = config.StoreToRepository, "attestations"
			}))
			r.push(proxytest.BuildKit, "lib", "1", tree)
			path := "/v2/lib/manifests/" + attestation
			r.request(http.MethodDelete, path, nil).want(t, status)
			if status != http.StatusAccepted {
				r.request(http.MethodDelete, path, nil).want(t, http.StatusAccepted)
			}
			r.request(http.MethodGet, path, nil, acceptAll...).want(t, http.StatusNotFound)
			if pushed == "lib" {
				r.direct(http.MethodGet, "/v2/attestations/manifests/"+attestation, nil, acceptAll...).want(t, http.StatusNotFound)
				return
			}
			if list := r.referrers("app", image); len(list.Manifests) != 1 {
				t.Errorf("listed in app: %v", list.Manifests)
			}
			r.request(http.MethodGet, "/v2/app/manifests/"+attestation, nil, acceptAll...).want(t, http.StatusOK)
			r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
		})
	}
}

// What is found in its place may be deleted before it is listed again: a list must not name what is not there.
func TestAnAttestationThatIsDeletedBeforeItIsListedAgainIsSentAgain(t *testing.T) {
	for _, form := range []proxytest.Form{proxytest.FormArtifact, proxytest.FormLegacy} {
		t.Run(string(form), func(t *testing.T) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Form: form})
			attestation, image := tree.Attestations()[0].Digest, tree.Images()[0].Digest
			var r *rig
			var armed, deleted atomic.Bool
			up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{NoReferrers: true, Delete: true, Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if armed.Load() && strings.HasPrefix(q.URL.Path, "/v2/app/referrers/") && armed.CompareAndSwap(true, false) {
						deleted.Store(r.request(http.MethodDelete, "/v2/app/manifests/"+attestation, nil).StatusCode == http.StatusAccepted)
					}
					next.ServeHTTP(w, q)
				})
			}})
			r = newRig(t, up, with(func(c *config.Config) { c.Store.To = config.StoreToReferrers }))
			r.push(proxytest.BuildKit, "app", "1", tree)
			listed := r.referrers("app", image).Manifests
			if len(listed) != 1 {
				t.Fatalf("listed: %v", listed)
			}
			armed.Store(true)
			r.push(proxytest.BuildKit, "app", "2", tree)
			if !deleted.Load() {
				t.Fatal("nothing was deleted in the middle of the push")
			}
			proxytest.AssertComplete(t, up)
			r.request(http.MethodGet, "/v2/app/manifests/"+listed[0].Digest, nil, acceptAll...).want(t, http.StatusOK)
		})
	}
}
