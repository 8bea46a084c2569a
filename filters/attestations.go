package filters

import (
	"strings"

	"sluice/filters/ocidoc"
)

// Media types and annotations that BuildKit gives attestations. Sources:
// BuildKit docs/attestations/attestation-storage.md and exporter/containerimage;
// the captured documents below testdata/wire.
const (
	// ArtifactTypeAttestation is the artifactType of an attestation manifest
	// written with oci-artifact=true.
	ArtifactTypeAttestation = "application/vnd.docker.attestation.manifest.v1+json"
	// MediaTypeInToto is a layer that is an in-toto statement, as JSON.
	MediaTypeInToto = "application/vnd.in-toto+json"
	// AnnotationReferenceType on an index entry is "attestation-manifest".
	AnnotationReferenceType = "vnd.docker.reference.type"
	// AnnotationReferenceDigest on an index entry is the digest of the image
	// that the attestation is about.
	AnnotationReferenceDigest = "vnd.docker.reference.digest"
	// AnnotationPredicateType on a layer is the statement's predicateType.
	AnnotationPredicateType = "in-toto.io/predicate-type"

	mediaTypeEmpty        = "application/vnd.oci.empty.v1+json"
	mediaTypeImageConfig  = "application/vnd.oci.image.config.v1+json"
	mediaTypeDockerConfig = "application/vnd.docker.container.image.v1+json"
	platformUnknown       = "unknown"
)

// attestations takes BuildKit's attestation manifests out of indexes, or keeps
// them, as the policy says.
type attestations struct{}

var _ Filter = attestations{}

func (attestations) Name() string { return "attestations" }

func (attestations) Judge(s Subject) (Verdict, bool) {
	if !IsAttestation(s.Child) {
		return Verdict{}, false
	}
	return Verdict{Action: s.Policy.Attestations, Reason: "in-toto attestation manifest of a build"}, true
}

// IsAttestation reports whether a manifest is a BuildKit attestation. It is
// the one predicate, used where the manifest is pushed and where an index
// lists it. Either
//
//   - its artifactType is [ArtifactTypeAttestation] (oci-artifact=true, and
//     manifests made by [Derived]), or
//   - it has no artifactType, no subject, at least one layer, every layer is
//     an in-toto statement ([MediaTypeInToto], or application/vnd.in-toto.*+dsse
//     when signed), and its config is an image config or the empty one.
//
// BuildKit writes a subject only together with its artifactType, so a subject
// without it is foreign: somebody else's referrer (`oras attach` of an in-toto
// document), which its owner expects to find upstream. cosign's documents have
// other layers (application/vnd.dsse.envelope.v1+json, sigstore bundles). Only
// OCI manifests qualify: BuildKit turns OCI media types on as soon as there
// are attestations, and Docker schema 2 has no in-toto layers.
func IsAttestation(m *ocidoc.Document) bool {
	if m == nil || m.ContentType != ocidoc.MediaTypeOCIManifest {
		return false
	}
	if m.ArtifactType == ArtifactTypeAttestation {
		return true
	}
	if m.ArtifactType != "" || m.Subject != nil || len(m.Layers) == 0 || m.Config == nil {
		return false
	}
	if t := m.Config.MediaType; t != mediaTypeEmpty && !isImageConfig(t) {
		return false
	}
	for _, layer := range m.Layers {
		if !IsStatementType(layer.MediaType) {
			return false
		}
	}
	return true
}

func isImageConfig(mediaType string) bool {
	return mediaType == mediaTypeImageConfig || mediaType == mediaTypeDockerConfig
}

// IsStatementType reports whether a layer's media type says that it is an
// in-toto statement, plain or in a DSSE envelope (in-toto attestation
// repository, spec/v1/bundle.md and the DSSE media types registered with it).
func IsStatementType(mediaType string) bool {
	return mediaType == MediaTypeInToto ||
		strings.HasPrefix(mediaType, "application/vnd.in-toto.") && strings.HasSuffix(mediaType, "+dsse")
}

// NeedsChild reports whether an entry's manifest must be read before the entry
// can be judged. With [MediaTypesDocker] every OCI manifest must, since its
// conversion has another digest. Otherwise: there is a hint that it could be an attestation, or it is an
// index, which may list some. No hint is proof, and none may be relied on to
// be there: buildah drops the annotations and leaves unknown/unknown, and
// go-containerregistry writes the config's media type as artifactType into
// referrers indexes. An entry for a real platform without any hint is an image.
//
// Entries that are blobs (BuildKit's registry cache) never need it.
func NeedsChild(index *ocidoc.Document, e ocidoc.Descriptor, p Policy) bool {
	if index == nil || index.Kind != ocidoc.KindIndex {
		return false
	}
	return p.MediaTypes == MediaTypesDocker && e.MediaType == ocidoc.MediaTypeOCIManifest || hints(e)
}

// hints reports whether there is anything about an entry that an image's does
// not have.
func hints(e ocidoc.Descriptor) bool {
	switch ocidoc.KindOf(e.MediaType) {
	case ocidoc.KindIndex:
		return true
	case ocidoc.KindManifest:
	default:
		return false
	}
	if e.Annotations[AnnotationReferenceType] != "" || e.Annotations[AnnotationReferenceDigest] != "" {
		return true
	}
	switch t := e.ArtifactType; {
	case t == ArtifactTypeAttestation:
		return true
	case t != "" && t != mediaTypeEmpty && !isImageConfig(t):
		return e.Platform != nil && unknown(*e.Platform)
	}
	return e.Platform == nil || unknown(*e.Platform)
}

func unknown(p ocidoc.Platform) bool {
	return p.OS == "" || p.OS == platformUnknown || p.Architecture == "" || p.Architecture == platformUnknown
}
