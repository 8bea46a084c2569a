package proxytest

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Stripped is the tree as it must be upstream after the attestations have been taken out: the index without its
// attestation entries, or the image manifest alone if one image is left and the index says nothing of its own. It is made
// by marshalling anew, not by cutting; an index that does not marshal back to its own bytes is an error. Outer indexes
// get the new digests of their inner ones.
func Stripped(t *Tree) (*Tree, error) {
	root, err := strip(t.Root)
	if err != nil {
		return nil, fmt.Errorf("strip the tree of %s: %w", t.Scenario, err)
	}
	return &Tree{Scenario: t.Scenario, Tag: t.Tag, Root: root}, nil
}

// wireIndex has an index's members in wire order; mediaType may be absent (crane's outer index).
type wireIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Manifests     []v1.Descriptor   `json:"manifests"`
	Subject       *v1.Descriptor    `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func strip(m *Manifest) (*Manifest, error) {
	if !m.IsIndex() || len(m.Layers) > 0 { // an image, or a cache index
		return m, nil
	}
	var doc wireIndex
	if err := json.Unmarshal(m.content, &doc); err != nil {
		return nil, err
	}
	s := shape{compact: !bytes.Contains(m.content, []byte("\n"))}
	if !bytes.Equal(s.marshal(doc), m.content) {
		return nil, fmt.Errorf("the index %s is not formatted as BuildKit or buildah do it", m.Digest)
	}
	changed := false
	kept := &Manifest{Blob: m.Blob, ArtifactType: m.ArtifactType, Platform: m.Platform, Subject: m.Subject, Annotations: m.Annotations}
	var entries []v1.Descriptor
	for i, c := range m.Children {
		if c.Attestation {
			changed = true
			continue
		}
		inner, err := strip(c)
		if err != nil {
			return nil, err
		}
		d := doc.Manifests[i]
		if inner.Digest != c.Digest {
			changed = true
			d.MediaType, d.Digest, d.Size = inner.MediaType, digest.Digest(inner.Digest), inner.Size
		}
		entries = append(entries, d)
		kept.Children = append(kept.Children, inner)
	}
	if !changed {
		return m, nil
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("the index %s lists only attestations", m.Digest)
	}
	if len(entries) == 1 && len(kept.Children[0].Children) == 0 && doc.Annotations == nil && doc.Subject == nil && doc.ArtifactType == "" {
		return kept.Children[0], nil
	}
	doc.Manifests = entries
	kept.content = s.marshal(doc)
	kept.Digest, kept.Size = digestOf(kept.content), int64(len(kept.content))
	return kept, nil
}
