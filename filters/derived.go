package filters

import (
	"encoding/json"
	"strconv"
	"strings"

	"sluice/filters/ocidoc"
)

// Derived returns the OCI 1.1 manifest that lists a stored attestation among
// the referrers of the image it is about: the bytes that BuildKit writes with
// oci-artifact=true, which are artifactType [ArtifactTypeAttestation], the
// empty config, the layers of att byte for byte, and subject. One that
// has this subject already, or any when none is given, is returned as it is. It is nil when att is no manifest with
// layers or when subject is no valid descriptor.
//
// The result is a function of the arguments: everybody who derives it gets the
// same digest, so it need not be stored.
func Derived(att *ocidoc.Document, subject ocidoc.Descriptor) []byte {
	if att == nil || att.Kind != ocidoc.KindManifest {
		return nil
	}
	if att.Subject != nil && (subject.Digest == "" || subject.Digest == att.Subject.Digest) {
		return att.Bytes
	}
	layers := att.RawLayers()
	if layers == nil || subject.MediaType == "" || subject.Size < 0 || !ocidoc.ValidDigest(subject.Digest) {
		return nil
	}
	var b strings.Builder
	b.WriteString(`{
  "schemaVersion": 2,
  "mediaType": "` + ocidoc.MediaTypeOCIManifest + `",
  "artifactType": "` + ArtifactTypeAttestation + `",
  "config": {
    "mediaType": "` + mediaTypeEmpty + `",
    "digest": "` + EmptyDigest + `",
    "size": 2,
    "data": "e30="
  },
  "layers": `)
	b.Write(layers)
	b.WriteString(`,
  "subject": {
    "mediaType": ` + jsonString(subject.MediaType) + `,
    "digest": "` + subject.Digest + `",
    "size": ` + strconv.FormatInt(subject.Size, 10) + `
  }`)
	if len(att.Annotations) > 0 {
		// BuildKit writes none; json sorts them.
		notes, _ := json.MarshalIndent(att.Annotations, "  ", "  ") // a map of strings always marshals
		b.WriteString(",\n  \"annotations\": ")
		b.Write(notes)
	}
	b.WriteString("\n}")
	return []byte(b.String())
}

// EmptyDigest is the digest of `{}`, the blob of the empty config (image-spec
// "manifest.md", "Guidance for an Empty Descriptor").
const EmptyDigest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func jsonString(s string) string {
	b, _ := json.Marshal(s) // a string always marshals
	return string(b)
}
