package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// I7: a configuration changes in the middle of a push, on this replica or the next. The attestation was held, and its index
// goes upstream as it is: so does the attestation, also where nobody looks whether it is there.
func TestAnAttestationHeldByAnotherConfigurationGoesWithItsIndex(t *testing.T) {
	forwards := map[string]func(*config.Config){
		"forward": func(c *config.Config) { c.Attestations = filters.Forward },
		"forward in docker's media types": func(c *config.Config) {
			c.Attestations, c.MediaTypes = filters.Forward, filters.MediaTypesDocker
		},
		"dry run":          func(c *config.Config) { c.DryRun = true },
		"dry run of strip": func(c *config.Config) { c.DryRun, c.Attestations = true, filters.Strip },
	}
	for name, change := range forwards {
		for _, act := range []filters.Action{filters.Strip, filters.Store} {
			for _, form := range []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact} {
				t.Run(fmt.Sprint(act, " to ", name, ", ", form), func(t *testing.T) {
					up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{NoValidation: true})
					shared := storage(inmemory.New())
					old, next := newRig(t, up, action(act), shared), newRig(t, up, shared, with(change))
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form})
					for _, m := range tree.Images() {
						for _, b := range m.Blobs() {
							send(t, old, "app", b.Bytes())
						}
						old.request(http.MethodPut, "/v2/app/manifests/"+m.Digest, m.Bytes(), "Content-Type", m.MediaType).want(t, http.StatusCreated)
					}
					pushHalf(t, old, "app", "", tree)
					next.request(http.MethodPut, "/v2/app/manifests/1", tree.Root.Bytes(), "Content-Type", tree.Root.MediaType).want(t, http.StatusCreated)
					proxytest.AssertComplete(t, up)
				})
			}
		}
	}
}
