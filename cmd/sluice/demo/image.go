package demo

import (
	"archive/tar"
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layout is what `docker buildx build --platform linux/amd64,linux/arm64 --provenance=mode=max --sbom` writes with
// `--output type=oci`: an index, two images, and two attestation manifests with provenance and SBOM. A test
// builds it again with BuildKit and compares.
//
//go:embed image.oci.tar
var layout []byte

// blobs are a layout's documents and layers by digest.
type blobs map[v1.Hash][]byte

// readLayout unpacks an OCI layout (image-spec "image-layout.md") and finds the index in it.
func readLayout(archive []byte) (v1.ImageIndex, error) {
	b := blobs{}
	var top v1.IndexManifest
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("image layout: %w", err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("image layout: %s: %w", h.Name, err)
		}
		if hex, ok := strings.CutPrefix(h.Name, "blobs/sha256/"); ok && hex != "" {
			b[v1.Hash{Algorithm: "sha256", Hex: hex}] = content
		}
		if h.Name == "index.json" {
			if err := json.Unmarshal(content, &top); err != nil {
				return nil, fmt.Errorf("image layout: index.json: %w", err)
			}
		}
	}
	if len(top.Manifests) != 1 {
		return nil, fmt.Errorf("image layout: index.json lists %d documents, not one", len(top.Manifests))
	}
	d := top.Manifests[0]
	return &index{b, d}, b.has(d.Digest)
}

func (b blobs) has(h v1.Hash) error {
	if b[h] == nil {
		return fmt.Errorf("image layout: %s is missing", h)
	}
	return nil
}

// index gives go-containerregistry the documents as the very bytes that BuildKit wrote.
type index struct {
	blobs
	descriptor v1.Descriptor
}

var _ v1.ImageIndex = (*index)(nil)

func (x *index) MediaType() (types.MediaType, error) { return x.descriptor.MediaType, nil }
func (x *index) Digest() (v1.Hash, error)            { return x.descriptor.Digest, nil }
func (x *index) Size() (int64, error)                { return x.descriptor.Size, nil }
func (x *index) RawManifest() ([]byte, error)        { return x.blobs[x.descriptor.Digest], nil }

func (x *index) IndexManifest() (*v1.IndexManifest, error) {
	return v1.ParseIndexManifest(bytes.NewReader(x.blobs[x.descriptor.Digest]))
}

func (x *index) Image(h v1.Hash) (v1.Image, error) {
	if err := x.has(h); err != nil {
		return nil, err
	}
	return partial.CompressedToImage(&image{x.blobs, h})
}

func (x *index) ImageIndex(h v1.Hash) (v1.ImageIndex, error) {
	return nil, fmt.Errorf("image layout: %s is no index", h)
}

// image is one manifest of the index: an image or an attestation.
type image struct {
	blobs
	digest v1.Hash
}

var _ partial.CompressedImageCore = (*image)(nil)

func (i *image) RawManifest() ([]byte, error) { return i.blobs[i.digest], nil }

func (i *image) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (i *image) RawConfigFile() ([]byte, error) {
	m, err := v1.ParseManifest(bytes.NewReader(i.blobs[i.digest]))
	if err != nil {
		return nil, err
	}
	return i.blobs[m.Config.Digest], i.has(m.Config.Digest)
}

func (i *image) LayerByDigest(h v1.Hash) (partial.CompressedLayer, error) {
	m, err := v1.ParseManifest(bytes.NewReader(i.blobs[i.digest]))
	if err != nil {
		return nil, err
	}
	for _, d := range append(m.Layers, m.Config) {
		if d.Digest == h {
			return &layer{i.blobs[h], d}, i.has(h)
		}
	}
	return nil, fmt.Errorf("image layout: %s has no layer %s", i.digest, h)
}

type layer struct {
	content    []byte
	descriptor v1.Descriptor
}

func (l *layer) Digest() (v1.Hash, error)            { return l.descriptor.Digest, nil }
func (l *layer) Size() (int64, error)                { return l.descriptor.Size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return l.descriptor.MediaType, nil }

func (l *layer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.content)), nil
}
