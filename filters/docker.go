package filters

import (
	"fmt"
	"strings"

	"sluice/filters/ocidoc"
)

// MediaTypes says in which media types images go upstream.
type MediaTypes string

const (
	// MediaTypesKeep leaves them as they are.
	MediaTypesKeep MediaTypes = "keep"
	// MediaTypesDocker converts OCI images to Docker schema 2 and their indexes
	// to manifest lists, for consumers that take nothing else.
	MediaTypesDocker MediaTypes = "docker"
)

const ociLayerPrefix = "application/vnd.oci.image.layer."

// dockerTypes are the media types that Docker has for OCI's, as in BuildKit
// (util/compression/compression.go, toDockerLayerType). zstd is not among them:
// the tar.zstd that BuildKit writes for layers of a base image is in no
// specification of Docker's, and `compression=zstd` itself "conflicts with
// oci-mediatypes=false" there.
func dockerTypes() map[string]string {
	return map[string]string{
		mediaTypeImageConfig:                            mediaTypeDockerConfig,
		ociLayerPrefix + "v1.tar":                       "application/vnd.docker.image.rootfs.diff.tar",
		ociLayerPrefix + "v1.tar+gzip":                  "application/vnd.docker.image.rootfs.diff.tar.gzip",
		ociLayerPrefix + "nondistributable.v1.tar":      "application/vnd.docker.image.rootfs.foreign.diff.tar",
		ociLayerPrefix + "nondistributable.v1.tar+gzip": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	}
}

// IsImage reports whether a manifest is an OCI image: an image config, layers
// that are all parts of a file system, and nothing that makes it an artifact or
// a referrer. cosign's signatures have an image config too, but other layers;
// so have attestations. BuildKit's cache and Helm charts have other configs.
func IsImage(m *ocidoc.Document) bool {
	if m == nil || m.ContentType != ocidoc.MediaTypeOCIManifest ||
		m.ArtifactType != "" || m.Subject != nil || m.Config == nil || !isImageConfig(m.Config.MediaType) {
		return false
	}
	for _, l := range m.Layers {
		if !strings.HasPrefix(l.MediaType, ociLayerPrefix) && !strings.HasPrefix(l.MediaType, "application/vnd.docker.image.rootfs.") {
			return false
		}
	}
	return true
}

// toDocker converts an OCI image: the bytes that BuildKit writes for it with
// oci-mediatypes=false. It maps media types and drops the annotations of
// descriptors (exporter/containerimage/writer.go, RemoveInternalLayerAnnotations),
// which Docker schema 2 does not have; those of the manifest stay, as there.
// zstd layers and other kinds that have no name in Docker's are [ErrRejected].
func toDocker(m *ocidoc.Document) (*Plan, error) {
	types := dockerTypes()
	for i, l := range m.Layers {
		if strings.HasPrefix(l.MediaType, ociLayerPrefix) && types[l.MediaType] == "" {
			return nil, fmt.Errorf("%w: layer %d is %s, for which Docker schema 2 has no media type (media_types: docker): build with compression=gzip,force-compression=true", ErrRejected, i, l.MediaType)
		}
	}
	b, err := m.Retype(ocidoc.Retyping{
		MediaType: ocidoc.MediaTypeDockerManifest, Descriptors: types, CutDescriptors: []string{"annotations"},
	})
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", m.Digest(), err)
	}
	return &Plan{Changed: true, Bytes: b, MediaType: ocidoc.MediaTypeDockerManifest}, nil
}

// toDockerList converts an index that lists nothing but Docker's documents any
// more. Annotations of the index and of its entries have no place in a list;
// BuildKit refuses to write them, others drop them, and the original keeps them.
func toDockerList(index []byte) ([]byte, error) {
	d, err := ocidoc.Parse(index, ocidoc.MediaTypeOCIIndex)
	if err != nil {
		return nil, err
	}
	return d.Retype(ocidoc.Retyping{
		MediaType: ocidoc.MediaTypeDockerList, CutSelf: []string{"annotations"},
		CutDescriptors: []string{"annotations", "artifactType"},
	})
}

// becomesList reports whether an index can be a manifest list: an OCI index
// with no type or subject of its own whose entries, as forwarded, are all
// Docker's.
func becomesList(index *ocidoc.Document, kept []ocidoc.Descriptor) bool {
	if index.ContentType != ocidoc.MediaTypeOCIIndex || index.ArtifactType != "" || index.Subject != nil || len(kept) == 0 {
		return false
	}
	for _, e := range kept {
		if e.MediaType != ocidoc.MediaTypeDockerManifest && e.MediaType != ocidoc.MediaTypeDockerList {
			return false
		}
	}
	return true
}
