package filters

import (
	"fmt"

	"sluice/filters/ocidoc"
)

// CacheIndex says what becomes of BuildKit's registry cache in its older form,
// an index whose entries are blobs.
type CacheIndex string

const (
	// CacheIndexKeep leaves it as it is.
	CacheIndexKeep CacheIndex = "keep"
	// CacheIndexManifest makes it an image manifest, for registries that take no
	// index of blobs (Amazon ECR).
	CacheIndexManifest CacheIndex = "manifest"
)

// mediaTypeCacheConfig is BuildKit's cache/remotecache/v1/types.CacheConfigMediaTypeV0.
const mediaTypeCacheConfig = "application/vnd.buildkit.cacheconfig.v0"

// ociLayerTypes are those of OCI for Docker's, as BuildKit maps them for a cache
// (util/compression/compression.go, toOCILayerType).
func ociLayerTypes() map[string]string {
	types := map[string]string{"application/vnd.docker.image.rootfs.diff.tar.zstd": ociLayerPrefix + "v1.tar+zstd"}
	for oci, docker := range dockerTypes() {
		if oci != mediaTypeImageConfig {
			types[docker] = oci
		}
	}
	return types
}

// IsCacheIndex reports whether an index is BuildKit's registry cache, written
// with image-manifest=false: blobs only, exactly one of them the cache's config
// (cache/remotecache/export.go).
func IsCacheIndex(index *ocidoc.Document) bool { return cacheConfig(index) >= 0 }

// cacheConfig is the number of the entry with the cache's config, or -1.
func cacheConfig(index *ocidoc.Document) int {
	found := -1
	if index == nil || index.Kind != ocidoc.KindIndex || index.Subject != nil || index.ArtifactType != "" {
		return -1
	}
	for i, e := range index.Manifests {
		switch {
		case ocidoc.KindOf(e.MediaType) != ocidoc.KindOther:
			return -1
		case e.MediaType != mediaTypeCacheConfig:
		case found >= 0:
			return -1
		default:
			found = i
		}
	}
	return found
}

// toCacheManifest is what BuildKit writes for the same cache with
// image-manifest=true and OCI media types, which it reads back as well
// (cache/remotecache/import.go takes both forms).
func toCacheManifest(index *ocidoc.Document, config int) (*Plan, error) {
	b, err := index.AsManifest(config, ocidoc.MediaTypeOCIManifest)
	if err != nil {
		return nil, fmt.Errorf("cache index %s: %w", index.Digest(), err)
	}
	m, err := ocidoc.Parse(b, ocidoc.MediaTypeOCIManifest)
	if err == nil {
		b, err = m.Retype(ocidoc.Retyping{Descriptors: ociLayerTypes()})
	}
	if err != nil {
		return nil, fmt.Errorf("cache index %s as a manifest: %w", index.Digest(), err)
	}
	return &Plan{Changed: true, Bytes: b, MediaType: ocidoc.MediaTypeOCIManifest}, nil
}
