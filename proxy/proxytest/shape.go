package proxytest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Form is how attestations are packed into the push.
type Form string

const (
	FormNone     Form = ""         // provenance=false
	FormLegacy   Form = "legacy"   // an image config unknown/unknown; BuildKit before 0.32
	FormArtifact Form = "artifact" // oci-artifact=true: artifactType, subject, config {}; the default since 0.32
	FormDSSE     Form = "dsse"     // legacy, with layers that are signed envelopes
)

// shape writes documents as BuildKit does: json.MarshalIndent(v, "", "  ") of image-spec's own structs, no newline at the
// end; compact is what buildah makes of an index. A test compares every document made here with the genuine ones.
type shape struct{ compact bool }

func (s shape) marshal(v any) []byte {
	var b []byte
	var err error
	if s.compact {
		b, err = json.Marshal(v)
	} else {
		b, err = json.MarshalIndent(v, "", "  ")
	}
	if err != nil {
		panic(fmt.Sprintf("proxytest: structs of image-spec always marshal: %v", err)) // not reachable by input
	}
	return b
}

func descriptor(b *Blob) v1.Descriptor {
	return v1.Descriptor{MediaType: b.MediaType, Digest: digest.Digest(b.Digest), Size: b.Size}
}

func (s shape) manifest(m *Manifest, doc v1.Manifest) *Manifest {
	doc.Versioned = specs.Versioned{SchemaVersion: 2}
	doc.MediaType = m.MediaType
	m.content = s.marshal(doc)
	m.Digest, m.Size = digestOf(m.content), int64(len(m.content))
	m.Annotations = doc.Annotations
	return m
}

// image is an image manifest; mediaType chooses OCI or Docker schema 2.
func (s shape) image(mediaType, platform string, annotations map[string]string, config *Blob, layers ...*Blob) *Manifest {
	m := &Manifest{Blob: Blob{Name: "image-" + arch(platform), MediaType: mediaType}, Platform: platform, Config: config, Layers: layers}
	doc := v1.Manifest{Config: descriptor(config), Annotations: annotations}
	for _, l := range layers {
		doc.Layers = append(doc.Layers, descriptor(l))
	}
	return s.manifest(m, doc)
}

// statement is one in-toto statement and its predicate type.
type statement struct {
	blob      *Blob
	predicate string
}

// attestation is the attestation manifest of an image, with its configuration.
func (s shape) attestation(form Form, image *Manifest, statements ...statement) *Manifest {
	suffix := "-" + arch(image.Platform)
	m := &Manifest{
		Blob: Blob{Name: "attestation" + suffix, MediaType: MediaTypeOCIManifest}, Platform: "unknown/unknown", Attestation: true,
	}
	doc := v1.Manifest{}
	for _, st := range statements {
		d := descriptor(st.blob)
		d.Annotations = map[string]string{"in-toto.io/predicate-type": st.predicate}
		doc.Layers = append(doc.Layers, d)
		m.Layers = append(m.Layers, st.blob)
	}
	if form == FormArtifact {
		m.Config = &Blob{Name: "empty-config", MediaType: v1.MediaTypeEmptyJSON, Digest: v1.DescriptorEmptyJSON.Digest.String(), Size: 2, content: []byte("{}")}
		subject := descriptor(&image.Blob)
		m.ArtifactType, m.Subject = ArtifactTypeAttestation, &subject
		doc.ArtifactType, doc.Subject, doc.Config = ArtifactTypeAttestation, &subject, v1.DescriptorEmptyJSON
	} else {
		m.Config = attestationConfig(suffix, m.Layers)
		doc.Config = descriptor(m.Config)
	}
	return s.manifest(m, doc)
}

// attestationConfig: BuildKit lists the digests of the statements themselves as diff_ids.
func attestationConfig(suffix string, statements []*Blob) *Blob {
	var ids []string
	for _, st := range statements {
		ids = append(ids, `"`+st.Digest+`"`)
	}
	return NewBlob("attestation-config"+suffix, v1.MediaTypeImageConfig, []byte(
		`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[`+strings.Join(ids, ",")+`]}}`))
}

// index lists images first, then their attestation manifests, as BuildKit's exporter does.
func (s shape) index(mediaType string, annotations map[string]string, children ...*Manifest) *Manifest {
	m := &Manifest{Blob: Blob{Name: "index", MediaType: mediaType}, Children: children, Annotations: annotations}
	doc := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaType, Annotations: annotations, Manifests: []v1.Descriptor{}}
	about := map[string]string{} // the image of an architecture
	for _, c := range children {
		d := descriptor(&c.Blob)
		os, architecture, _ := strings.Cut(c.Platform, "/")
		d.Platform = &v1.Platform{OS: os, Architecture: architecture}
		if !c.Attestation {
			about["-"+architecture] = c.Digest
		} else if !s.compact { // buildah drops all annotations
			d.Annotations = map[string]string{
				"vnd.docker.reference.digest": about[strings.TrimPrefix(c.Name, "attestation")],
				"vnd.docker.reference.type":   "attestation-manifest",
			}
		}
		doc.Manifests = append(doc.Manifests, d)
	}
	m.content = s.marshal(doc)
	m.Digest, m.Size = digestOf(m.content), int64(len(m.content))
	return m
}

// envelope signs nothing: nobody on the way checks signatures, but everybody sees the envelope's first bytes.
func envelope(statement []byte) []byte {
	b, err := json.Marshal(struct {
		PayloadType string              `json:"payloadType"`
		Payload     string              `json:"payload"`
		Signatures  []map[string]string `json:"signatures"`
	}{"application/vnd.in-toto+json", base64.StdEncoding.EncodeToString(statement), []map[string]string{{"keyid": "test", "sig": "bm9uZQ=="}}})
	if err != nil {
		panic(fmt.Sprintf("proxytest: a struct of strings always marshals: %v", err))
	}
	return b
}

func arch(platform string) string {
	_, architecture, _ := strings.Cut(platform, "/")
	return architecture
}
