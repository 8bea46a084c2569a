package proxytest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// A check that finds nothing must be shown to find something: here nothing takes the attestations out.
func TestAttestationsAreFoundAfterADirectPush(t *testing.T) {
	for kind, upstream := range Upstreams() {
		for _, form := range []Form{FormLegacy, FormArtifact, FormDSSE} {
			t.Run(kind+"/"+string(form), func(t *testing.T) {
				tree, u := Synthetic(SyntheticOptions{Form: form, SBOM: true}), upstream(t, UpstreamOptions{})
				if _, err := BuildKit(testContext(t), Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
					t.Fatal(err)
				}
				found := strings.Join(u.Inspect(t).Attestations(), "\n")
				want := []string{}
				for _, m := range tree.Attestations() {
					want = append(want, m.Digest+" is an attestation manifest", "the index "+tree.Digest()+" lists the attestation "+m.Digest)
					if form != FormArtifact {
						want = append(want, m.Config.Digest+" is an unknown/unknown configuration")
					}
				}
				for _, s := range tree.Statements() {
					want = append(want, s.Digest+" is a")
				}
				for _, w := range want {
					if !strings.Contains(found, w) {
						t.Errorf("not found: %s, in\n%s", w, found)
					}
				}
				if form != FormArtifact && strings.Count(found, "\n")+1 != len(want) {
					t.Errorf("found more than is there:\n%s", found)
				}
			})
		}
	}
}

func TestNothingIsFoundAfterAPushWithoutAttestations(t *testing.T) {
	for kind, upstream := range Upstreams() {
		t.Run(kind, func(t *testing.T) {
			u := upstream(t, UpstreamOptions{})
			if _, err := BuildKit(testContext(t), Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: Synthetic(SyntheticOptions{})}); err != nil {
				t.Fatal(err)
			}
			AssertClean(t, u)
			AssertComplete(t, u)
			if c := u.Inspect(t).Repository("app"); len(c.Manifests) != 3 || len(c.Blobs) != 4 || len(c.Tags) != 1 {
				t.Errorf("%d manifests, %d blobs, %d tags, want 3, 4, 1", len(c.Manifests), len(c.Blobs), len(c.Tags))
			}
		})
	}
}

// Cosign's documents are not BuildKit's, though an in-toto envelope is in one.
func TestCosignDocumentsAreNoAttestations(t *testing.T) {
	for _, scenario := range []string{"l-cosign2", "l-cosign3"} {
		for kind, upstream := range Upstreams() {
			t.Run(kind+"/"+scenario, func(t *testing.T) {
				u := upstream(t, UpstreamOptions{})
				for _, tree := range AllDocuments(t, scenario) {
					if _, err := Crane(testContext(t), Options{BaseURL: u.URL, Repository: "app", Tags: []string{tree.Tag}, Tree: tree}); err != nil {
						t.Fatal(err)
					}
				}
				AssertClean(t, u)
			})
		}
	}
}

func TestAStatementWithoutItsManifestIsFound(t *testing.T) {
	for kind, upstream := range Upstreams() {
		t.Run(kind, func(t *testing.T) {
			u, tree := upstream(t, UpstreamOptions{}), Synthetic(SyntheticOptions{Form: FormLegacy})
			c := containerdPush{connection: connect(Options{BaseURL: u.URL, Repository: "app"}, "test")}
			for _, b := range []*Blob{tree.Images()[0].Config, tree.Statements()[0]} {
				if err := c.blob(testContext(t), b); err != nil {
					t.Fatal(err)
				}
			}
			if found := u.Inspect(t).Attestations(); len(found) != 1 || !strings.Contains(found[0], tree.Statements()[0].Digest) {
				t.Errorf("found %q", found)
			}
			if found := u.Inspect(t).Attestations(tree.Statements()[0].Digest); len(found) != 0 {
				t.Errorf("found %q, which was allowed", found)
			}
		})
	}
}

func TestAnUnfinishedUploadOfAStatementIsFound(t *testing.T) {
	for kind, upstream := range Upstreams() {
		t.Run(kind, func(t *testing.T) {
			ctx, u := testContext(t), upstream(t, UpstreamOptions{})
			c := connect(Options{BaseURL: u.URL, Repository: "app"}, "test")
			r, err := c.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/"})
			if err != nil {
				t.Fatal(err)
			}
			location, err := r.resolve()
			if err != nil {
				t.Fatal(err)
			}
			start := []byte(`{"_type":"https://in-toto.io/Statement/v0.1","pred`)
			if _, err := c.do(ctx, request{method: http.MethodPatch, location: location, body: bytesBody(start), size: int64(len(start))}); err != nil {
				t.Fatal(err)
			}
			if found := u.Inspect(t).Attestations(); len(found) != 1 || !strings.Contains(found[0], "unfinished upload") {
				t.Errorf("found %q", found)
			}
		})
	}
}

func TestWhatIsMissingIsFound(t *testing.T) {
	for kind, upstream := range Upstreams() {
		t.Run(kind, func(t *testing.T) {
			u, tree := upstream(t, UpstreamOptions{}), Synthetic(SyntheticOptions{Layers: 2})
			if _, err := BuildKit(testContext(t), Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
				t.Fatal(err)
			}
			AssertComplete(t, u)
			layer := strings.TrimPrefix(tree.Images()[0].Layers[0].Digest, "sha256:")
			var removed int
			err := filepath.WalkDir(u.root, func(path string, e os.DirEntry, err error) error {
				if err == nil && e.Name() == layer {
					removed++
					if err := os.RemoveAll(path); err != nil {
						return err
					}
					return filepath.SkipDir
				}
				return err
			})
			if err != nil || removed == 0 {
				t.Fatalf("the layer could not be removed from storage: %v", err)
			}
			if found := u.Inspect(t).Dangling(); len(found) == 0 || !strings.Contains(strings.Join(found, "\n"), layer) {
				t.Errorf("found %q", found)
			}
		})
	}
}

func TestAnIndexIsJudgedByItsChildrenBeforeItsHints(t *testing.T) {
	image := Synthetic(SyntheticOptions{Platforms: []string{"linux/amd64"}}).Root
	entry := descriptor(&image.Blob)
	entry.Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
	index, err := json.Marshal(wireIndex{SchemaVersion: 2, MediaType: MediaTypeOCIIndex, Manifests: []v1.Descriptor{entry}})
	if err != nil {
		t.Fatal(err)
	}
	c := newContents()
	c.repository("app").Manifests[digestOf(index)] = stored(index)
	if found := c.Attestations(); len(found) != 1 {
		t.Errorf("an entry unknown/unknown whose child is not there is taken for an image: %q", found)
	}
	c.repository("app").Manifests[image.Digest] = stored(image.content)
	if found := c.Attestations(); len(found) != 0 {
		t.Errorf("a mislabelled image is taken for an attestation: %q", found)
	}
}

func TestAllScenariosAreJudgedRight(t *testing.T) {
	clean := []string{"c-multi-noprov", "c-single-noprov", "h-cache-docker-list", "h-cache-image-manifest", "h-cache-oci-index", "l-cosign2", "l-cosign3"}
	for _, scenario := range Scenarios() {
		u, trees := NewOlareg(t, UpstreamOptions{}), AllDocuments(t, scenario)
		u.Seed(t, "app", trees...)
		for _, tree := range trees {
			o := Options{BaseURL: u.URL, Repository: "app", Tags: []string{tree.Tag}, Tree: tree}
			if strings.HasPrefix(tree.Tag, "sha256:") {
				o.Tags, o.ByDigest = nil, true
			}
			if _, err := BuildKit(testContext(t), o); err != nil {
				t.Fatal(fmt.Errorf("%s: %w", scenario, err))
			}
		}
		if found := u.Inspect(t).Attestations(); (len(found) == 0) != slices.Contains(clean, scenario) {
			t.Errorf("%s: found %q", scenario, found)
		}
	}
}
