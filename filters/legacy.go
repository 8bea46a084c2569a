package filters

import (
	"strconv"
	"strings"

	"sluice/filters/ocidoc"
)

// Legacy returns an attestation manifest in the form that BuildKit writes
// without oci-artifact=true: an image config for unknown/unknown, the layers
// of att byte for byte, neither subject nor artifactType. It is for registries
// that refuse either of these or the empty config. config is what the manifest
// refers to as its config; nil when att is in this form already and is returned
// as it is. The manifest is nil when att is no manifest with layers.
//
// The result is a function of the argument.
func Legacy(att *ocidoc.Document) (manifest, config []byte) {
	if att == nil || att.Kind != ocidoc.KindManifest {
		return nil, nil
	}
	layers := att.RawLayers()
	if layers == nil {
		return nil, nil
	}
	if att.Subject == nil && att.ArtifactType == "" && att.Config != nil && isImageConfig(att.Config.MediaType) {
		return att.Bytes, nil
	}
	ids := make([]string, len(att.Layers))
	for i, l := range att.Layers {
		ids[i] = jsonString(l.Digest)
	}
	config = []byte(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":[` + strings.Join(ids, ",") + `]}}`)
	var b strings.Builder
	b.WriteString(`{
  "schemaVersion": 2,
  "mediaType": "` + ocidoc.MediaTypeOCIManifest + `",
  "config": {
    "mediaType": "` + mediaTypeImageConfig + `",
    "digest": "` + ocidoc.DigestOf(config) + `",
    "size": ` + strconv.Itoa(len(config)) + `
  },
  "layers": `)
	b.Write(layers)
	b.WriteString("\n}")
	return []byte(b.String()), config
}
