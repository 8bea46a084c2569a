package proxytest

import (
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// source gives the bytes of a document or blob; found is false for content that is not to be had.
type source func(d v1.Descriptor, manifest bool) (content []byte, found bool, err error)

// parser builds a tree from its root's bytes, naming things as goldens show them.
type parser struct {
	read  source
	blobs map[string]*Blob // by digest: a layer shared by two images keeps its first name
	docs  map[string]*Manifest
}

func parseTree(scenario, tag string, root []byte, mediaType string, read source) (*Tree, error) {
	p := &parser{read: read, blobs: map[string]*Blob{}, docs: map[string]*Manifest{}}
	m, err := p.manifest(root, v1.Descriptor{MediaType: mediaType, Digest: "sha256:x"}, "", 0)
	if err != nil {
		return nil, err
	}
	return &Tree{Scenario: scenario, Tag: tag, Root: m}, nil
}

// document is the union of what manifests and indexes say.
type document struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *v1.Descriptor    `json:"config"`
	Layers       []v1.Descriptor   `json:"layers"`
	Manifests    []v1.Descriptor   `json:"manifests"`
	Subject      *v1.Descriptor    `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

func (p *parser) manifest(content []byte, d v1.Descriptor, suffix string, depth int) (*Manifest, error) {
	if depth > 4 {
		return nil, fmt.Errorf("indexes are nested more than four deep")
	}
	digest := digestOf(content)
	if m := p.docs[digest]; m != nil {
		return m, nil
	}
	var doc document
	if err := json.Unmarshal(content, &doc); err != nil {
		return nil, fmt.Errorf("read the document %s: %w", digest, err)
	}
	m := &Manifest{
		Blob:         Blob{MediaType: d.MediaType, Digest: digest, Size: int64(len(content)), content: content},
		ArtifactType: doc.ArtifactType, Subject: doc.Subject, Annotations: doc.Annotations,
		Platform: platformOf(d.Platform),
	}
	p.docs[digest] = m
	if m.IsIndex() {
		m.Name = "index" + strings.Repeat("-inner", depth)
		return m, p.entries(m, doc, depth)
	}
	m.Attestation = isAttestation(doc)
	kind := "image"
	if m.Attestation {
		kind = "attestation"
	} else if doc.Subject != nil {
		kind = "referrer"
	}
	m.Name = kind + suffix
	if doc.Config != nil {
		b, err := p.blob(*doc.Config, map[bool]string{true: "attestation-config", false: "config"}[m.Attestation]+suffix)
		if err != nil {
			return nil, err
		}
		m.Config = b
	}
	for i, l := range doc.Layers {
		name := fmt.Sprintf("layer%s-%d", suffix, i+1)
		if isStatementType(l.MediaType) {
			name = "statement" + suffix + "-" + predicateName(l.Annotations["in-toto.io/predicate-type"])
		}
		b, err := p.blob(l, name)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, b)
	}
	return m, nil
}

func (p *parser) entries(m *Manifest, doc document, depth int) error {
	// The attestation of linux/amd64 is named after the image it is about, or by its place when nothing says so.
	about := map[string]string{}
	count := map[string]int{}
	for _, d := range doc.Manifests {
		if s := suffixOf(d.Platform); s != "-unknown" {
			about[d.Digest.String()] = s
		}
	}
	for i, d := range doc.Manifests {
		suffix := suffixOf(d.Platform)
		if s := about[d.Annotations["vnd.docker.reference.digest"]]; s != "" {
			suffix = s
		}
		count[suffix+d.Annotations["vnd.docker.reference.type"]]++
		if n := count[suffix+d.Annotations["vnd.docker.reference.type"]]; n > 1 {
			suffix = fmt.Sprintf("%s%d", suffix, n)
		}
		if !isManifestType(d.MediaType) { // BuildKit's cache: entries are blobs
			b, err := p.blob(d, fmt.Sprintf("cache-%d", i+1))
			if err != nil {
				return err
			}
			m.Layers = append(m.Layers, b)
			continue
		}
		content, found, err := p.read(d, true)
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("the index lists %s, which is not there", d.Digest)
		}
		c, err := p.manifest(content, d, suffix, depth+1)
		if err != nil {
			return err
		}
		m.Children = append(m.Children, c)
	}
	return nil
}

func (p *parser) blob(d v1.Descriptor, name string) (*Blob, error) {
	digest := d.Digest.String()
	if b := p.blobs[digest]; b != nil {
		return b, nil
	}
	b := &Blob{Name: name, MediaType: d.MediaType, Digest: digest, Size: d.Size}
	if d.MediaType == v1.MediaTypeEmptyJSON {
		b.Name = "empty-config"
	}
	content, found, err := p.read(d, false)
	if err != nil {
		return nil, err
	}
	if found {
		b.content = content
	}
	p.blobs[digest] = b
	return b, nil
}

// isAttestation is this package's own reading of what BuildKit's attestation manifests are, made without Sluice's filters
// on purpose: the two must agree, and neither is the other's test.
func isAttestation(doc document) bool {
	if doc.ArtifactType == ArtifactTypeAttestation {
		return true
	}
	if doc.ArtifactType != "" || len(doc.Layers) == 0 {
		return false
	}
	for _, l := range doc.Layers {
		if !isStatementType(l.MediaType) {
			return false
		}
	}
	return true
}

func platformOf(p *v1.Platform) string {
	if p == nil {
		return ""
	}
	return p.OS + "/" + p.Architecture
}

func suffixOf(p *v1.Platform) string {
	if p == nil {
		return ""
	}
	return "-" + p.Architecture
}

func predicateName(predicateType string) string {
	switch {
	case strings.HasPrefix(predicateType, "https://slsa.dev/provenance"):
		return "provenance"
	case strings.HasPrefix(predicateType, "https://spdx.dev"):
		return "sbom"
	case predicateType == "":
		return "unnamed"
	}
	return predicateType[strings.LastIndexByte(predicateType, '/')+1:]
}
