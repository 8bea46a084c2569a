package proxytest

import (
	"context"
	"strings"
	"testing"
	"time"
)

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestEachClientPushesToEachRegistryAndAllIsReadBack(t *testing.T) {
	trees := map[string]*Tree{
		"plain":    Synthetic(SyntheticOptions{Layers: 2, SharedLayers: 1}),
		"legacy":   Synthetic(SyntheticOptions{Layers: 2, Form: FormLegacy, SBOM: true}),
		"artifact": Synthetic(SyntheticOptions{Layers: 2, Form: FormArtifact, SBOM: true}),
		"dsse":     Synthetic(SyntheticOptions{Form: FormDSSE, Statements: 2}),
		"single":   Synthetic(SyntheticOptions{Form: FormLegacy, Platforms: []string{"linux/amd64"}}),
		"bare":     Synthetic(SyntheticOptions{Platforms: []string{"linux/amd64"}}),
		"big":      Synthetic(SyntheticOptions{LayerSize: heldLayer + 1, Form: FormLegacy}),
	}
	for kind, upstream := range Upstreams() {
		for _, client := range Clients() {
			for name, tree := range trees {
				t.Run(kind+"/"+client.Name+"/"+name, func(t *testing.T) {
					ctx, u := testContext(t), upstream(t, UpstreamOptions{})
					result, err := client.Push(ctx, Options{BaseURL: u.URL, Repository: "team/app", Tags: []string{"1", "latest"}, Tree: tree})
					if err != nil {
						t.Fatal(err)
					}
					for _, tag := range []string{"1", "latest"} {
						back, err := PullAll(ctx, u.URL, "team/app", tag)
						if err != nil {
							t.Fatal(err)
						}
						if err := result.Pushed.Equal(back); err != nil {
							t.Errorf("%s reads back otherwise: %v", tag, err)
						}
					}
					if client.Indexes && result.Digest != tree.Digest() {
						t.Errorf("it reports %s, want %s", result.Digest, tree.Digest())
					}
					AssertComplete(t, u)
				})
			}
		}
	}
}

func TestGenuineDocumentsArePushedOverSeededLayers(t *testing.T) {
	for kind, upstream := range Upstreams() {
		for _, scenario := range Scenarios() {
			t.Run(kind+"/"+scenario, func(t *testing.T) {
				ctx, u, trees := testContext(t), upstream(t, UpstreamOptions{}), AllDocuments(t, scenario)
				u.Seed(t, "demo", trees...)
				for _, tree := range trees {
					o := Options{BaseURL: u.URL, Repository: "demo", Tags: []string{tree.Tag}, Tree: tree}
					if strings.HasPrefix(tree.Tag, "sha256:") {
						o.Tags, o.ByDigest = nil, true
					}
					if _, err := BuildKit(ctx, o); err != nil {
						// h-cache/README.md: distribution refuses an index of blobs.
						if kind == "distribution" && (scenario == "h-cache-oci-index" || scenario == "h-cache-docker-list") && strings.Contains(err.Error(), "400 Bad Request") {
							continue
						}
						t.Fatal(err)
					}
					back, err := Pull(ctx, PullOptions{BaseURL: u.URL, Repository: "demo", Reference: tree.Tag, Missing: tree.Missing()})
					if err != nil {
						t.Fatal(err)
					}
					if err := tree.Equal(back); err != nil {
						t.Error(err)
					}
				}
				AssertComplete(t, u)
			})
		}
	}
}

// The numbers that everything about requests per push is measured against: 14 blobs (2 x 3 layers, 2 configurations, 4 statements, 2
// attestation configurations) of three requests each, 4 manifests of two, and two for the tag; without attestations 8
// blobs and 2 manifests.
func TestABuildKitPushTakesAsManyRequestsAsTheRealOne(t *testing.T) {
	for name, c := range map[string]struct {
		form Form
		want int
	}{"with provenance and SBOM": {FormLegacy, 52}, "without": {FormNone, 30}} {
		t.Run(name, func(t *testing.T) {
			tree := Synthetic(SyntheticOptions{Layers: 3, Form: c.form, SBOM: true})
			recorder := NewRecorder(tree)
			u := NewDistribution(t, UpstreamOptions{Wrap: recorder.Handler})
			result, err := BuildKit(testContext(t), Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree})
			if err != nil {
				t.Fatal(err)
			}
			if recorder.Count() != c.want || result.Requests != c.want {
				t.Errorf("the registry counts %d requests, the client %d, want %d", recorder.Count(), result.Requests, c.want)
			}
		})
	}
}
