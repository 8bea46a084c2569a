package proxytest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestEveryScenarioLoadsAndItsContentHasItsDigest(t *testing.T) {
	for _, scenario := range Scenarios() {
		for _, tree := range AllDocuments(t, scenario) {
			for _, b := range tree.Blobs() {
				if b.Missing() {
					if !strings.Contains(b.MediaType, "tar") {
						t.Errorf("%s: %s (%s) has no bytes, only layers may", scenario, b.Name, b.MediaType)
					}
				} else if digestOf(b.Bytes()) != b.Digest || int64(len(b.Bytes())) != b.Size {
					t.Errorf("%s: %s has other bytes than its descriptor says", scenario, b.Name)
				}
			}
		}
	}
}

func TestDocumentsAreNamedAfterWhatTheyAre(t *testing.T) {
	var names []string
	tree := Documents(t, "b-multi-max-sbom")
	for _, m := range tree.Manifests() {
		names = append(names, m.Name)
	}
	for _, b := range tree.Blobs() {
		names = append(names, b.Name)
	}
	want := "image-amd64 image-arm64 attestation-amd64 attestation-arm64 index " +
		"config-amd64 layer-amd64-1 layer-amd64-2 layer-amd64-3 config-arm64 " + // all layers are shared
		"attestation-config-amd64 statement-amd64-sbom statement-amd64-provenance attestation-config-arm64 statement-arm64-sbom statement-arm64-provenance"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The generator is only worth something if what it writes is what BuildKit writes: every index, attestation manifest,
// attestation configuration and image manifest of the genuine pushes is built anew from its parts and compared.
func TestGeneratedDocumentsHaveTheBytesOfGenuineOnes(t *testing.T) {
	rebuilt := map[string]int{}
	for _, scenario := range []string{
		"a-multi-annotated", "a-multi-min", "b-multi-max-sbom", "b-multi-max-slsa-v0.2", "c-multi-noprov", "c-single-min", "c-single-noprov",
		"c-single-sbom-only", "d-oci-artifact", "i-zstd", "k-buildah", "m-docker-engine",
	} {
		t.Run(scenario, func(t *testing.T) {
			tree := Documents(t, scenario)
			var children []*Manifest
			images := map[string]*Manifest{}
			check := func(genuine *Manifest, made *Manifest) {
				t.Helper()
				if string(made.content) != string(genuine.content) {
					t.Errorf("%s is made as\n%s\nand genuinely is\n%s", genuine.Name, made.content, genuine.content)
				}
				rebuilt[strings.TrimRight(genuine.Name, "0123456789")]++
			}
			for _, m := range tree.Manifests() {
				switch {
				case m.IsIndex():
					s := shape{compact: !strings.Contains(string(m.content), "\n")}
					if scenario == "a-multi-annotated" { // annotations on entries come from --annotation, not from here
						continue
					}
					check(m, s.index(m.MediaType, m.Annotations, children...))
				case m.Attestation:
					form := FormLegacy
					if m.ArtifactType != "" {
						form = FormArtifact
					}
					about := images[strings.Replace(strings.Replace(m.Name, "attestation", "image", 1), "image-unknown2", "image-arm64", 1)]
					if about == nil { // k-buildah: no annotation says what it is about
						about = tree.Images()[0]
					}
					var statements []statement
					doc, _ := parseDocument(m.content)
					for i, l := range m.Layers {
						statements = append(statements, statement{l, doc.Layers[i].Annotations["in-toto.io/predicate-type"]})
					}
					made := shape{}.attestation(form, about, statements...)
					check(m, made)
					if string(made.Config.content) != string(m.Config.content) {
						t.Errorf("the configuration of %s is made as\n%s\nand genuinely is\n%s", m.Name, made.Config.content, m.Config.content)
					}
					children = append(children, m)
				default:
					images[m.Name] = m
					check(m, shape{}.image(m.MediaType, m.Platform, m.Annotations, m.Config, m.Layers...))
					children = append(children, m)
				}
			}
		})
	}
	for _, kind := range []string{"index", "image-amd", "image-arm", "attestation-amd", "attestation-arm"} {
		if rebuilt[kind] == 0 {
			t.Errorf("no genuine %s was rebuilt: %v", kind, rebuilt)
		}
	}
}

func TestImagesAreTheSameWhateverTheAttestations(t *testing.T) {
	plain := Synthetic(SyntheticOptions{Layers: 2})
	for _, form := range []Form{FormLegacy, FormArtifact, FormDSSE} {
		for build := range 2 {
			tree := Synthetic(SyntheticOptions{Layers: 2, Form: form, SBOM: true, Build: build})
			stripped, err := Stripped(tree)
			if err != nil {
				t.Fatal(err)
			}
			if err := plain.Equal(stripped); err != nil {
				t.Errorf("%s: stripped differs from built without: %v", form, err)
			}
		}
	}
	a, b := Synthetic(SyntheticOptions{Form: FormLegacy}), Synthetic(SyntheticOptions{Form: FormLegacy, Build: 1})
	if a.Digest() == b.Digest() {
		t.Error("another build has the same index")
	}
}

// As BuildKit does it: with OCI media types provenance=false sends the index without attestation entries, and for one
// platform the image manifest itself. The captures hold those of one platform by digest.
func TestStrippedGenuineDocuments(t *testing.T) {
	for scenario, want := range map[string]string{
		"c-single-min":       "sha256:8e6de99f755bea676edff8586876bd328ce8df054f7166a7ec16265b3da58d64",
		"c-single-sbom-only": "sha256:8e6de99f755bea676edff8586876bd328ce8df054f7166a7ec16265b3da58d64",
	} {
		stripped, err := Stripped(Documents(t, scenario))
		if err != nil {
			t.Fatal(err)
		}
		if stripped.Digest() != want {
			t.Errorf("%s stripped is %s, want the image manifest %s", scenario, stripped.Digest(), want)
		}
	}
	// All builds of the same images are the same when stripped, whatever their provenance was.
	var digests []string
	for _, scenario := range []string{"a-multi-min", "b-multi-max-sbom", "b-multi-max-slsa-v0.2", "d-oci-artifact"} {
		stripped, err := Stripped(Documents(t, scenario))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, stripped.Digest())
	}
	if len(slices.Compact(digests)) != 1 {
		t.Errorf("the same images give different stripped indexes: %v", digests)
	}
	nested, err := Stripped(Documents(t, "k-nested-index"))
	if err != nil {
		t.Fatal(err)
	}
	if got := nested.Root.Children[0].Digest; got != digests[0] {
		t.Errorf("the inner index of the nested one is %s, want %s", got, digests[0])
	}
}

func TestBigLayersAreGeneratedAtEachReading(t *testing.T) {
	b := RandomLayer("layer", v1.MediaTypeImageLayerGzip, 1, 1, heldLayer)
	if b.Bytes() != nil || b.Missing() {
		t.Fatal("a big layer is held in memory")
	}
	if other := RandomLayer("layer", v1.MediaTypeImageLayerGzip, 1, 2, heldLayer); other.Digest == b.Digest {
		t.Error("two layers are the same")
	}
	if fmt.Sprintf("%x", RandomLayer("l", "", 1, 1, 16).Bytes()[:2]) != "1f8b" {
		t.Error("a layer does not begin as gzip")
	}
}
