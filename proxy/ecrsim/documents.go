package ecrsim

import (
	"bytes"
	"encoding/json"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The types of documents that ECR takes.
const (
	ociManifest    = v1.MediaTypeImageManifest
	ociIndex       = v1.MediaTypeImageIndex
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	schema1        = "application/vnd.docker.distribution.manifest.v1+json"
	schema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

func isManifest(mediaType string) bool {
	return slices.Contains([]string{ociManifest, ociIndex, dockerManifest, dockerList, schema1, schema1Signed}, mediaType)
}

// document is what matters of a manifest or an index.
type document struct {
	mediaType    string
	artifactType string
	subject      string
	annotations  map[string]string
	layers       []v1.Descriptor // config included; those that must be there
	children     []v1.Descriptor
	count        int // of layers, for the limit
}

// parse reads a document that was sent as contentType, and refuses what ECR is known to refuse.
func parse(body []byte, contentType string, sw *Switches) (*document, *failure) {
	var raw struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		ArtifactType  string            `json:"artifactType"`
		Config        *v1.Descriptor    `json:"config"`
		Layers        []v1.Descriptor   `json:"layers"`
		Manifests     []v1.Descriptor   `json:"manifests"`
		Subject       *v1.Descriptor    `json:"subject"`
		Annotations   map[string]string `json:"annotations"`
		FSLayers      []struct {
			BlobSum string `json:"blobSum"`
		} `json:"fsLayers"`
	}
	if err := json.Unmarshal(bytes.TrimSpace(body), &raw); err != nil {
		return nil, unparsable()
	}
	d := &document{mediaType: raw.MediaType, artifactType: raw.ArtifactType, annotations: raw.Annotations}
	if d.mediaType == "" {
		if d.mediaType = contentType; sw.RequireMediaType && raw.SchemaVersion != 1 {
			return nil, unparsable()
		}
	}
	if contentType != "" && contentType != d.mediaType || !isManifest(d.mediaType) {
		return nil, unparsable()
	}
	if raw.Subject != nil {
		if sw.RefuseSubject {
			return nil, unparsable()
		}
		d.subject = raw.Subject.Digest.String()
	}
	switch d.mediaType {
	case schema1, schema1Signed:
		for _, l := range raw.FSLayers {
			d.layers = append(d.layers, v1.Descriptor{Digest: digest.Digest(l.BlobSum)})
		}
		if raw.SchemaVersion != 1 || len(raw.FSLayers) == 0 {
			return nil, unparsable()
		}
	case ociManifest, dockerManifest:
		if raw.SchemaVersion != 2 || raw.Config == nil || raw.Manifests != nil {
			return nil, unparsable()
		}
		if raw.Config.MediaType == v1.MediaTypeEmptyJSON && sw.RefuseEmptyConfig {
			return nil, unparsable()
		}
		if d.artifactType == "" {
			d.artifactType = raw.Config.MediaType // what ECR shows as artifactMediaType
		}
		d.count = len(raw.Layers)
		d.layers = append(d.layers, *raw.Config)
		for _, l := range raw.Layers {
			if len(l.URLs) == 0 { // a foreign one is elsewhere
				d.layers = append(d.layers, l)
			}
		}
	default:
		if raw.SchemaVersion != 2 || raw.Config != nil {
			return nil, unparsable()
		}
		for _, m := range raw.Manifests {
			if !isManifest(m.MediaType) { // BuildKit's default cache is an index of layers and a config
				return nil, unparsable().with(sw.CacheIndex)
			}
		}
		d.children = raw.Manifests
	}
	for _, x := range slices.Concat(d.layers, d.children) {
		if x.Digest.Validate() != nil {
			return nil, unparsable()
		}
	}
	return d, nil
}

// The pairs that a read by tag translates: ECR does it for images, not for indexes
// (amazon-ecr-user-guide, image-manifest-formats.md).
func toDocker() map[string]string {
	return map[string]string{
		ociManifest:                      dockerManifest,
		v1.MediaTypeImageConfig:          "application/vnd.docker.container.image.v1+json",
		v1.MediaTypeImageLayer:           "application/vnd.docker.image.rootfs.diff.tar",
		v1.MediaTypeImageLayerGzip:       "application/vnd.docker.image.rootfs.diff.tar.gzip",
		v1.MediaTypeImageLayer + "+zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
	}
}

// convert is the document in a type that the client accepts, or as it is.
func convert(body []byte, mediaType string, accept []string) ([]byte, string) {
	if len(accept) == 0 || slices.Contains(accept, "*/*") || slices.Contains(accept, mediaType) {
		return body, mediaType
	}
	names, other := toDocker(), dockerManifest
	if mediaType == dockerManifest {
		names, other = map[string]string{}, ociManifest
		for oci, docker := range toDocker() {
			names[docker] = oci
		}
	}
	if mediaType != ociManifest && mediaType != dockerManifest || !slices.Contains(accept, other) {
		return body, mediaType
	}
	var m struct {
		SchemaVersion int               `json:"schemaVersion"`
		MediaType     string            `json:"mediaType"`
		Config        v1.Descriptor     `json:"config"`
		Layers        []v1.Descriptor   `json:"layers"`
		Annotations   map[string]string `json:"annotations,omitempty"`
	}
	if json.Unmarshal(body, &m) != nil {
		return body, mediaType
	}
	m.MediaType = other
	for _, d := range append([]*v1.Descriptor{&m.Config}, pointers(m.Layers)...) {
		if to, ok := names[d.MediaType]; ok {
			d.MediaType = to
		}
	}
	out, err := json.MarshalIndent(m, "", "   ")
	if err != nil {
		return body, mediaType
	}
	return out, other
}

func pointers(all []v1.Descriptor) []*v1.Descriptor {
	out := make([]*v1.Descriptor, len(all))
	for i := range all {
		out[i] = &all[i]
	}
	return out
}
