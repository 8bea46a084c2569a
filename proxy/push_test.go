package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

var forms = []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact, proxytest.FormDSSE}

// every runs a test for both kinds of upstream.
func every(t *testing.T, test func(t *testing.T, newUpstream func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream)) {
	for kind, newUpstream := range proxytest.Upstreams() {
		t.Run(kind, func(t *testing.T) { test(t, newUpstream) })
	}
}

// The promise: upstream holds exactly what the same build without attestations would have sent.
func TestUpstreamHoldsWhatAPushWithoutAttestationsWouldHaveSent(t *testing.T) {
	every(t, func(t *testing.T, newUpstream func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream) {
		for _, client := range proxytest.Clients() {
			if !client.Indexes {
				continue
			}
			for _, act := range []filters.Action{filters.Strip, filters.Store} {
				for _, form := range forms {
					for _, platforms := range [][]string{{"linux/amd64"}, {"linux/amd64", "linux/arm64"}} {
						name := fmt.Sprintf("%s %s %s %d platforms", client.Name, act, form, len(platforms))
						t.Run(name, func(t *testing.T) {
							o := proxytest.SyntheticOptions{Platforms: platforms, Layers: 2}
							plain := proxytest.Synthetic(o)
							o.Form, o.SBOM = form, true
							tree := proxytest.Synthetic(o)
							r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), action(act))
							res := r.push(client.Push, "team/app", "1", tree)
							if res.Pushed.Digest() == tree.Digest() && res.Digest != tree.Digest() {
								t.Errorf("client reports %s, it pushed %s (I5)", res.Digest, tree.Digest())
							}
							if got := r.upstreamDigest("team/app", "1"); got != plain.Digest() {
								t.Errorf("upstream's tag is %s, without attestations it would be %s", got, plain.Digest())
							}
							proxytest.AssertClean(t, r.upstream)
							proxytest.AssertComplete(t, r.upstream)
							reference := newUpstream(t, proxytest.UpstreamOptions{})
							if _, err := client.Push(context.Background(), proxytest.Options{BaseURL: reference.URL, Repository: "team/app", Tags: []string{"1"}, Tree: plain}); err != nil {
								t.Fatal(err)
							}
							want, got := reference.Inspect(t).Repository("team/app"), r.upstream.Inspect(t).Repository("team/app")
							if len(got.Manifests) != len(want.Manifests) {
								t.Errorf("%d manifests upstream, the reference push makes %d", len(got.Manifests), len(want.Manifests))
							}
							// A second push of the same, and one of a rebuild whose images did not change.
							r.push(client.Push, "team/app", "1", tree)
							o.Build = 7
							r.push(client.Push, "team/app", "1", proxytest.Synthetic(o))
							if got := r.upstreamDigest("team/app", "1"); got != plain.Digest() {
								t.Errorf("after a rebuild upstream's tag is %s, want the same %s (I3)", got, plain.Digest())
							}
							proxytest.AssertClean(t, r.upstream)
						})
					}
				}
			}
		}
	})
}

func TestForwardLeavesEverythingAlone(t *testing.T) {
	every(t, func(t *testing.T, newUpstream func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream) {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprintf("dry run %v", dry), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) {
					c.DryRun = dry
					if !dry {
						c.Attestations = filters.Forward
					}
				}))
				r.push(proxytest.BuildKit, "app", "1", tree)
				if got := r.upstreamDigest("app", "1"); got != tree.Digest() {
					t.Errorf("upstream has %s, pushed was %s (I4)", got, tree.Digest())
				}
				back, err := proxytest.PullAll(context.Background(), r.upstream.URL, "app", "1")
				if err != nil {
					t.Fatal(err)
				}
				if err := back.Equal(tree); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// What is pushed can be read back by its own digest, by its tag as the view says, and after a
// restart that leaves only the storage.
func TestOriginalsAreReadBack(t *testing.T) {
	every(t, func(t *testing.T, newUpstream func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream) {
		for _, form := range forms {
			for _, v := range []config.View{config.ViewUpstream, config.ViewOriginal} {
				for _, platforms := range [][]string{{"linux/amd64"}, {"linux/amd64", "linux/arm64"}} {
					t.Run(fmt.Sprintf("%s view %s %d platforms", form, v, len(platforms)), func(t *testing.T) {
						o := proxytest.SyntheticOptions{Platforms: platforms}
						plain := proxytest.Synthetic(o)
						o.Form = form
						tree := proxytest.Synthetic(o)
						r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), action(filters.Store), view(v))
						r.push(proxytest.BuildKit, "app", "1", tree)
						for range 2 {
							back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
							if err != nil {
								t.Fatal(err)
							}
							if err := back.Equal(tree); err != nil {
								t.Error(err)
							}
							want := plain
							if v == config.ViewOriginal {
								want = tree
							}
							back, err = proxytest.PullAll(context.Background(), r.url(), "app", "1")
							if err != nil {
								t.Fatal(err)
							}
							if err := back.Equal(want); err != nil {
								t.Error(err)
							}
							for _, ref := range []string{"1", tree.Digest()} {
								for _, method := range []string{http.MethodHead, http.MethodGet} {
									a := r.request(method, "/v2/app/manifests/"+ref, nil, acceptAll...).want(t, http.StatusOK)
									if got := a.Header.Get("Sluice-Forwarded-Digest"); got != plain.Digest() {
										t.Errorf("%s %s: Sluice-Forwarded-Digest %q, want %s (I5)", method, ref, got, plain.Digest())
									}
								}
							}
							r.restart()
						}
					})
				}
			}
		}
	})
}
