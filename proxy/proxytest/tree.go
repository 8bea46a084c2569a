package proxytest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The media types that the pushers tell apart.
const (
	MediaTypeOCIIndex       = v1.MediaTypeImageIndex
	MediaTypeOCIManifest    = v1.MediaTypeImageManifest
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeStatement      = "application/vnd.in-toto+json"
	MediaTypeDSSE           = "application/vnd.in-toto.provenance+dsse"
	ArtifactTypeAttestation = "application/vnd.docker.attestation.manifest.v1+json"
)

// Blob is one piece of content: a layer, a configuration, a statement, or a manifest's bytes.
type Blob struct {
	Name      string // what goldens call it: layer-amd64-1, statement-arm64-provenance, image-amd64, index
	MediaType string
	Digest    string
	Size      int64

	content []byte               // held in memory, or
	open    func() io.ReadCloser // made anew at each reading (big layers)
}

// NewBlob names content and computes its digest.
func NewBlob(name, mediaType string, content []byte) *Blob {
	return &Blob{Name: name, MediaType: mediaType, Digest: digestOf(content), Size: int64(len(content)), content: content}
}

// Missing tells that the bytes are not to be had: the wire captures hold no layers. An upstream must be seeded with such
// a blob before the push (Upstream.Seed), as on a push whose base layers are already there.
func (b *Blob) Missing() bool { return b.content == nil && b.open == nil }

// Open reads the content from its beginning; a missing blob is an error at the first Read.
func (b *Blob) Open() io.ReadCloser {
	switch {
	case b.content != nil:
		return io.NopCloser(bytes.NewReader(b.content))
	case b.open != nil:
		return b.open()
	}
	return io.NopCloser(errReader{fmt.Errorf("proxytest: the bytes of %s (%s) are not known, seed the upstream with them", b.Name, b.Digest)})
}

// Bytes is the content held in memory, nil for big and for missing blobs.
func (b *Blob) Bytes() []byte { return b.content }

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// Manifest is an image manifest, an attestation manifest, an index, or another document that goes to /manifests/.
type Manifest struct {
	Blob
	ArtifactType string
	Platform     string      // os/architecture as the index entry says, "" without
	Attestation  bool        // an attestation manifest of BuildKit's
	Config       *Blob       // nil for an index
	Layers       []*Blob     // in order; of an index: the entries that are blobs (BuildKit cache)
	Children     []*Manifest // of an index, in order
	Subject      *v1.Descriptor
	Annotations  map[string]string
}

// Blobs are the configuration and the layers, configuration first, each digest once.
func (m *Manifest) Blobs() []*Blob {
	var all []*Blob
	seen := map[string]bool{}
	for _, b := range append([]*Blob{m.Config}, m.Layers...) {
		if b != nil && !seen[b.Digest] {
			seen[b.Digest] = true
			all = append(all, b)
		}
	}
	return all
}

// IsIndex tells whether other manifests are listed.
func (m *Manifest) IsIndex() bool {
	return m.MediaType == MediaTypeOCIIndex || m.MediaType == MediaTypeDockerList
}

// Tree is what one push sends: the document under the tag and everything below it.
type Tree struct {
	Scenario string // the wire folder, or "synthetic"
	Tag      string // the reference it was captured under; may be a digest
	Root     *Manifest
}

// Manifests are all documents, each digest once, children before their parents, in the order of the indexes.
func (t *Tree) Manifests() []*Manifest {
	var all []*Manifest
	seen := map[string]bool{}
	var walk func(m *Manifest)
	walk = func(m *Manifest) {
		if seen[m.Digest] {
			return
		}
		seen[m.Digest] = true
		for _, c := range m.Children {
			walk(c)
		}
		all = append(all, m)
	}
	if t.Root != nil {
		walk(t.Root)
	}
	return all
}

// Blobs are all configurations, layers and statements, each digest once, manifest by manifest.
func (t *Tree) Blobs() []*Blob {
	var all []*Blob
	seen := map[string]bool{}
	for _, m := range t.Manifests() {
		for _, b := range m.Blobs() {
			if !seen[b.Digest] {
				seen[b.Digest] = true
				all = append(all, b)
			}
		}
	}
	return all
}

// Images are the documents that are neither an index nor an attestation manifest.
func (t *Tree) Images() []*Manifest {
	var images []*Manifest
	for _, m := range t.Manifests() {
		if !m.IsIndex() && !m.Attestation {
			images = append(images, m)
		}
	}
	return images
}

// Attestations are the attestation manifests.
func (t *Tree) Attestations() []*Manifest {
	var found []*Manifest
	for _, m := range t.Manifests() {
		if m.Attestation {
			found = append(found, m)
		}
	}
	return found
}

// Statements are the in-toto layers of the attestation manifests.
func (t *Tree) Statements() []*Blob {
	var found []*Blob
	seen := map[string]bool{}
	for _, m := range t.Attestations() {
		for _, l := range m.Layers {
			if !seen[l.Digest] {
				seen[l.Digest] = true
				found = append(found, l)
			}
		}
	}
	return found
}

// Missing are the blobs whose bytes are not known.
func (t *Tree) Missing() []*Blob {
	var found []*Blob
	for _, b := range t.Blobs() {
		if b.Missing() {
			found = append(found, b)
		}
	}
	return found
}

// Find is the blob or document with a digest, or with a name; nil if there is none.
func (t *Tree) Find(nameOrDigest string) *Blob {
	for _, m := range t.Manifests() {
		if m.Digest == nameOrDigest || m.Name == nameOrDigest {
			return &m.Blob
		}
	}
	for _, b := range t.Blobs() {
		if b.Digest == nameOrDigest || b.Name == nameOrDigest {
			return b
		}
	}
	return nil
}

// Names maps each digest of the tree to its name, for goldens.
func (t *Tree) Names() map[string]string {
	names := map[string]string{}
	for _, b := range t.Blobs() {
		names[b.Digest] = b.Name
	}
	for _, m := range t.Manifests() {
		names[m.Digest] = m.Name
	}
	return names
}

// Digest is the root's: what a pusher of the tree reports.
func (t *Tree) Digest() string { return t.Root.Digest }

// Equal says how another tree, as read back, differs from this one: documents, order and blobs by digest.
func (t *Tree) Equal(other *Tree) error {
	if t.Digest() != other.Digest() {
		return fmt.Errorf("the root is %s, want %s", other.Digest(), t.Digest())
	}
	var errs []error
	for _, m := range t.Manifests() {
		o := other.Find(m.Digest)
		switch {
		case o == nil:
			errs = append(errs, fmt.Errorf("%s (%s) is not there", m.Name, m.Digest))
		case !bytes.Equal(o.content, m.content):
			errs = append(errs, fmt.Errorf("%s (%s) has other bytes", m.Name, m.Digest))
		}
	}
	for _, b := range t.Blobs() {
		if other.Find(b.Digest) == nil {
			errs = append(errs, fmt.Errorf("%s (%s) is not there", b.Name, b.Digest))
		}
	}
	if got, want := len(other.Manifests()), len(t.Manifests()); got != want {
		errs = append(errs, fmt.Errorf("%d documents, want %d", got, want))
	}
	return errors.Join(errs...)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func isManifestType(mediaType string) bool {
	switch mediaType {
	case MediaTypeOCIIndex, MediaTypeOCIManifest, MediaTypeDockerList, MediaTypeDockerManifest:
		return true
	}
	return false
}

// isStatementType: JSON statements, and the DSSE envelopes application/vnd.in-toto.*+dsse.
func isStatementType(mediaType string) bool {
	return mediaType == MediaTypeStatement ||
		strings.HasPrefix(mediaType, "application/vnd.in-toto.") && strings.HasSuffix(mediaType, "+dsse")
}
