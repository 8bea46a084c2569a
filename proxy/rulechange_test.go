package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
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

// Where an attestation goes upstream that was kept, so does what was kept about it. A push that broke off in between goes on.
func TestASignatureGoesWithAnAttestationThatIsForwardedAfterAll(t *testing.T) {
	upstreams := map[string]func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream{
		"without referrers API": proxytest.NewDistribution, "with it": proxytest.NewOlareg,
	}
	for name, newUpstream := range upstreams {
		for _, act := range []filters.Action{filters.Strip, filters.Store} {
			for _, brokeOff := range []bool{false, true} {
				t.Run(fmt.Sprint(act, " ", name, " ", brokeOff), func(t *testing.T) {
					up := newUpstream(t, proxytest.UpstreamOptions{})
					shared := storage(inmemory.New())
					old, next := newRig(t, up, action(act), shared), newRig(t, up, shared, action(filters.Forward))
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
					old.push(proxytest.BuildKit, "app", "1", tree)
					var signatures []*signature
					for _, m := range tree.Attestations() {
						s := bundleOf(m)
						signatures = append(signatures, s, signatureOf(s.digest, len(s.manifest), notaryType))
					}
					for _, s := range signatures {
						s.push(old.request, "app").want(t, http.StatusCreated)
						old.direct(http.MethodHead, "/v2/app/manifests/"+s.digest, nil, acceptAll...).want(t, http.StatusNotFound)
					}
					if brokeOff {
						m := tree.Attestations()[0]
						for _, b := range m.Blobs() {
							send(t, next, "app", b.Bytes())
						}
						next.direct(http.MethodPut, "/v2/app/manifests/"+m.Digest, m.Bytes(), "Content-Type", m.MediaType).want(t, http.StatusCreated)
					}
					for range 2 {
						next.request(http.MethodPut, "/v2/app/manifests/1", tree.Root.Bytes(), "Content-Type", tree.Root.MediaType).want(t, http.StatusCreated)
					}
					proxytest.AssertComplete(t, up)
					for _, s := range signatures {
						next.direct(http.MethodGet, "/v2/app/manifests/"+s.digest, nil, acceptAll...).want(t, http.StatusOK)
						list := "/v2/app/referrers/" + s.subject
						if name == "without referrers API" {
							list = "/v2/app/manifests/" + filters.FallbackTag(s.subject)
						}
						if a := next.direct(http.MethodGet, list, nil, acceptAll...).want(t, http.StatusOK); strings.Count(string(a.body), s.digest) != 1 {
							t.Errorf("%s is not listed once for %s: %s", s.digest, s.subject, a.body)
						}
					}
				})
			}
		}
	}
}

// A registry that does not take a signature takes the push.
func TestAnIndexIsForwardedAlthoughASignatureIsRefused(t *testing.T) {
	up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.Body = io.NopCloser(bytes.NewReader(b)); r.Method == http.MethodPut && bytes.Contains(b, []byte(`"artifactType":"`+bundleType)) {
				w.WriteHeader(http.StatusMethodNotAllowed)
				_, _ = io.WriteString(w, `{"errors":[{"code":"UNSUPPORTED"}]}`)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	shared := storage(inmemory.New())
	old, next := newRig(t, up, shared), newRig(t, up, shared, action(filters.Forward))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	old.push(proxytest.BuildKit, "app", "1", tree)
	bundleOf(tree.Attestations()[0]).push(old.request, "app").want(t, http.StatusCreated)
	next.request(http.MethodPut, "/v2/app/manifests/1", tree.Root.Bytes(), "Content-Type", tree.Root.MediaType).want(t, http.StatusCreated)
	proxytest.AssertComplete(t, up)
	if !strings.Contains(next.log.String(), "stays behind") {
		t.Errorf("the log does not say that it stays behind: %s", next.log.String())
	}
}

// I6: on Amazon ECR a rule that forwards rewrites as well, but only build caches. Under it nobody reads what an earlier rule
// took out, so an original of that time is not there until it is pushed, and then it is upstream.
func TestAnOriginalOfAnotherRuleIsSentWhereTheRuleForwards(t *testing.T) {
	for _, client := range proxytest.Clients() {
		if !client.Indexes {
			continue
		}
		t.Run(client.Name, func(t *testing.T) {
			up, storage, tree := readableECR(t, nil), storage(inmemory.New()), proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			newRig(t, up, storage, with(ecrCredentials)).push(proxytest.BuildKit, "app", "1", tree)
			r := newRig(t, up, storage, with(ecrCredentials), action(filters.Forward))
			if _, err := client.Push(t.Context(), proxytest.Options{BaseURL: r.url(), Repository: "app", ByDigest: true, Tree: tree}); err != nil {
				t.Fatal(err)
			}
			back, err := proxytest.PullAll(t.Context(), r.url(), "app", tree.Digest())
			if err == nil {
				err = back.Equal(tree)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}
