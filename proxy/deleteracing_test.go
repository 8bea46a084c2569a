package proxy_test

import (
	"net/http"
	"strings"
	"sync"
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
