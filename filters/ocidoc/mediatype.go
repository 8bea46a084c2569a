package ocidoc

import "strings"

// The media types that are parsed. Others are kept as opaque bytes.
const (
	MediaTypeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Kind is the shape that a media type promises.
type Kind int

const (
	// KindOther is opaque: schema 1, or a media type that is not known here.
	KindOther Kind = iota
	// KindManifest has a config and layers.
	KindManifest
	// KindIndex lists manifests.
	KindIndex
)

// String names the kind for error messages.
func (k Kind) String() string {
	switch k {
	case KindManifest:
		return "manifest"
	case KindIndex:
		return "index"
	}
	return "opaque document"
}

// KindOf returns the shape of documents of a media type, which is compared
// without its parameters and whatever its case (RFC 9110, section 8.3.1).
func KindOf(mediaType string) Kind {
	switch canonicalMediaType(mediaType) {
	case MediaTypeOCIManifest, MediaTypeDockerManifest:
		return KindManifest
	case MediaTypeOCIIndex, MediaTypeDockerList:
		return KindIndex
	}
	return KindOther
}

func canonicalMediaType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(s))
}

// saysNothing reports whether a Content-Type leaves the type of a document to
// its body. Registries take the body's mediaType then (distribution-spec,
// "Pushing Manifests": "clients SHOULD set the Content-Type header").
func saysNothing(contentType string) bool {
	switch contentType {
	case "", "application/json", "text/json":
		return true
	}
	return false
}
