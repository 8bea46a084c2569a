package filters

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	digestC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

func TestAmongGenuineDocumentsExactlyBuildKitsAttestationManifestsAreRecognised(t *testing.T) {
	found := 0
	for name, s := range scenarios(t) {
		for digest, d := range s.docs {
			role := s.roles[digest]
			// l-cosign2's "attestation manifest (DSSE)" is cosign's.
			want := strings.HasPrefix(role, "attestation manifest for") || role == "child unknown/unknown"
			if want {
				found++
			}
			if got := IsAttestation(d); got != want {
				t.Errorf("%s: IsAttestation(%s, %q) = %v", name, digest, role, got)
			}
		}
	}
	if found != 20 {
		t.Errorf("%d attestation manifests in the captured documents, want 20", found)
	}
}

// manifest writes an OCI manifest; head goes before the config.
func manifest(head, config, tail string, layers ...string) string {
	var ls []string
	for _, l := range layers {
		ls = append(ls, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, l, digestA))
	}
	return `{"schemaVersion":2,` + head + `"config":{"mediaType":"` + config + `","digest":"` + digestB + `","size":1},"layers":[` + strings.Join(ls, ",") + `]` + tail + `}`
}

const (
	imageConfig = "application/vnd.oci.image.config.v1+json"
	emptyConfig = "application/vnd.oci.empty.v1+json"
	tarLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	inToto      = "application/vnd.in-toto+json"
	subjectA    = `,"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + digestA + `","size":1}`
)

func TestIsAttestation(t *testing.T) {
	oci := ocidoc.MediaTypeOCIManifest
	attType := `"artifactType":"application/vnd.docker.attestation.manifest.v1+json",`
	for _, tc := range []struct {
		name, contentType, body string
		want                    bool
	}{
		{"in-toto layers under an image config", oci, manifest("", imageConfig, "", inToto, inToto), true},
		{"in-toto layers under the empty config", oci, manifest("", emptyConfig, "", inToto), true},
		{"in-toto layers under Docker's image config", oci, manifest("", "application/vnd.docker.container.image.v1+json", "", inToto), true},
		{"signed statements", oci, manifest("", imageConfig, "", "application/vnd.in-toto.provenance+dsse", "application/vnd.in-toto.spdx+dsse"), true},
		{"a signed and a plain statement", oci, manifest("", imageConfig, "", "application/vnd.in-toto.provenance+dsse", inToto), true},
		{"its artifactType says so", oci, manifest(attType, emptyConfig, "", inToto), true},
		{"its artifactType says so, and it has a subject", oci, manifest(attType, emptyConfig, subjectA, inToto), true},
		{"its artifactType says so, without any layer", oci, manifest(attType, emptyConfig, ""), true},

		{"no layers", oci, manifest("", imageConfig, ""), false},
		{"an image", oci, manifest("", imageConfig, "", tarLayer), false},
		{"a statement beside an image layer", oci, manifest("", imageConfig, "", inToto, tarLayer), false},
		{"another config", oci, manifest("", "application/vnd.cncf.helm.config.v1+json", "", inToto), false},
		{"a foreign subject without artifactType", oci, manifest("", emptyConfig, subjectA, inToto), false},
		{"oras attach of a statement", oci, manifest(`"artifactType":"application/vnd.in-toto+json",`, emptyConfig, subjectA, inToto), false},
		{"another artifactType without subject", oci, manifest(`"artifactType":"application/vnd.example",`, emptyConfig, "", inToto), false},
		{"no config", oci, `{"layers":[{"mediaType":"application/vnd.in-toto+json","digest":"` + digestA + `","size":1}]}`, false},
		{"cosign's DSSE layer", oci, manifest("", imageConfig, "", "application/vnd.dsse.envelope.v1+json"), false},
		{"an in-toto type that is no envelope", oci, manifest("", imageConfig, "", "application/vnd.in-toto.bundle"), false},
		{"a DSSE type of somebody else's", oci, manifest("", imageConfig, "", "application/vnd.example+dsse"), false},
		{"a Docker schema 2 manifest", ocidoc.MediaTypeDockerManifest, manifest("", imageConfig, "", inToto), false},
		{"an index with the artifactType", ocidoc.MediaTypeOCIIndex, `{` + attType + `"manifests":[]}`, false},
		{"an unknown media type", "application/vnd.example", manifest(attType, imageConfig, "", inToto), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := parse(t, tc.contentType, tc.body)
			if got := IsAttestation(d); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			v := Judge(Subject{Child: d, Policy: Policy{Attestations: Store, Unwrap: UnwrapAuto}})
			if want := map[bool]Action{true: Store, false: Forward}[tc.want]; v.Action != want || v.Reject {
				t.Errorf("verdict %+v, want %s", v, want)
			}
			if tc.want && (v.Filter != "attestations" || v.Reason == "") {
				t.Errorf("verdict %+v does not say who and why", v)
			}
		})
	}
	if IsAttestation(nil) {
		t.Error("no manifest is an attestation")
	}
}

func TestJudgeForwardsUnderForwardAndWithoutManifest(t *testing.T) {
	d := parse(t, ocidoc.MediaTypeOCIManifest, manifest("", imageConfig, "", inToto))
	if v := Judge(Subject{Child: d, Policy: Policy{Attestations: Forward, Unwrap: UnwrapAuto}}); v.Action != Forward {
		t.Errorf("under forward: %+v", v)
	}
	if v := Judge(Subject{Policy: Policy{Attestations: Strip, Unwrap: UnwrapAuto}}); v != (Verdict{Action: Forward}) {
		t.Errorf("without a manifest: %+v", v)
	}
}

func TestNeedsChild(t *testing.T) {
	index := parse(t, ocidoc.MediaTypeOCIIndex, `{"manifests":[]}`)
	linux := &ocidoc.Platform{OS: "linux", Architecture: "amd64"}
	unknown := &ocidoc.Platform{OS: "unknown", Architecture: "unknown"}
	m := ocidoc.MediaTypeOCIManifest
	for _, tc := range []struct {
		name string
		e    ocidoc.Descriptor
		want bool
	}{
		{"an image", ocidoc.Descriptor{MediaType: m, Platform: linux}, false},
		{"an image with annotations", ocidoc.Descriptor{MediaType: m, Platform: linux, Annotations: map[string]string{"a": "b"}}, false},
		{"a Docker image", ocidoc.Descriptor{MediaType: ocidoc.MediaTypeDockerManifest, Platform: linux}, false},
		{"BuildKit's attestation entry", ocidoc.Descriptor{MediaType: m, Platform: unknown, Annotations: map[string]string{AnnotationReferenceType: "attestation-manifest"}}, true},
		{"annotated only", ocidoc.Descriptor{MediaType: m, Platform: linux, Annotations: map[string]string{AnnotationReferenceType: "attestation-manifest"}}, true},
		{"annotated with the digest only", ocidoc.Descriptor{MediaType: m, Platform: linux, Annotations: map[string]string{AnnotationReferenceDigest: digestA}}, true},
		{"unknown/unknown only, as buildah leaves it", ocidoc.Descriptor{MediaType: m, Platform: unknown}, true},
		{"unknown architecture", ocidoc.Descriptor{MediaType: m, Platform: &ocidoc.Platform{OS: "linux", Architecture: "unknown"}}, true},
		{"unknown operating system", ocidoc.Descriptor{MediaType: m, Platform: &ocidoc.Platform{OS: "unknown", Architecture: "amd64"}}, true},
		{"no architecture", ocidoc.Descriptor{MediaType: m, Platform: &ocidoc.Platform{OS: "linux"}}, true},
		{"no operating system", ocidoc.Descriptor{MediaType: m, Platform: &ocidoc.Platform{Architecture: "amd64"}}, true},
		{"an empty platform", ocidoc.Descriptor{MediaType: m, Platform: &ocidoc.Platform{}}, true},
		{"no platform", ocidoc.Descriptor{MediaType: m}, true},
		{"an entry of a referrers index: attestation", ocidoc.Descriptor{MediaType: m, ArtifactType: ArtifactTypeAttestation, Platform: linux}, true},
		{"an entry of a referrers index: as crane writes it", ocidoc.Descriptor{MediaType: m, ArtifactType: emptyConfig}, true},
		{"an entry of a referrers index: foreign", ocidoc.Descriptor{MediaType: m, ArtifactType: "application/vnd.example"}, false},
		{"an entry of a referrers index: a config's type, as go-containerregistry writes it", ocidoc.Descriptor{MediaType: m, ArtifactType: imageConfig}, true},
		{"foreign, and for nothing known", ocidoc.Descriptor{MediaType: m, ArtifactType: "application/vnd.example", Platform: unknown}, true},
		{"foreign, for a real platform", ocidoc.Descriptor{MediaType: m, ArtifactType: "application/vnd.example", Platform: linux}, false},
		{"a nested index", ocidoc.Descriptor{MediaType: ocidoc.MediaTypeOCIIndex, Platform: linux}, true},
		{"a nested manifest list", ocidoc.Descriptor{MediaType: ocidoc.MediaTypeDockerList}, true},
		{"a layer of a cache index", ocidoc.Descriptor{MediaType: tarLayer}, false},
		{"a cache config", ocidoc.Descriptor{MediaType: "application/vnd.buildkit.cacheconfig.v0"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := NeedsChild(index, tc.e, storeAuto); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
	if NeedsChild(nil, ocidoc.Descriptor{MediaType: m}, storeAuto) {
		t.Error("what is not listed by an index needs no child")
	}
}

func TestOfGenuineIndexesOnlyWhatCouldBeAnAttestationIsRead(t *testing.T) {
	for name, s := range scenarios(t) {
		for _, d := range s.docs {
			for _, e := range d.Manifests {
				child := s.docs[e.Digest]
				need := NeedsChild(d, e, storeAuto)
				if child != nil && IsAttestation(child) && !need {
					t.Errorf("%s: the attestation %s would not be read", name, e.Digest)
				}
				if strings.HasPrefix(s.roles[e.Digest], "child linux/") && need {
					t.Errorf("%s: the image %s would be read", name, e.Digest)
				}
				if child == nil && need {
					t.Errorf("%s: the blob %s would be read", name, e.Digest)
				}
			}
		}
	}
}

func TestPeekOfGenuineBlobs(t *testing.T) {
	for name, s := range scenarios(t) {
		var statements []string // and configs of legacy attestations, which are held
		for _, d := range s.docs {
			if IsAttestation(d) {
				for _, l := range d.Layers {
					statements = append(statements, l.Digest)
				}
				statements = append(statements, d.Config.Digest)
			}
		}
		for digest, b := range s.blobs {
			want := Pass
			switch {
			case string(b) == "{}":
				want = Empty
			case slices.Contains(statements, digest), strings.Contains(s.roles[digest], "application/vnd.dsse.envelope"):
				want = Hold // cosign's envelope is guessed too much, and released with its manifest
			case strings.Contains(s.roles[digest], "application/vnd.dev.sigstore.bundle"):
				want = Bundle
			}
			if got := Peek(b, true); got != want {
				t.Errorf("%s %s: %s, want %s", name, s.roles[digest], got, want)
			}
		}
	}
}
