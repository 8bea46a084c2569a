package filters

import (
	"bytes"
	"testing"

	"sluice/filters/ocidoc"
)

// BuildKit writes one form or the other of the same attestation; each leads back to the genuine bytes.
func TestTheLegacyFormOfAReferrerIsWhatBuildKitWrites(t *testing.T) {
	all := scenarios(t)
	seen := 0
	for _, name := range sortedNames(all) {
		for digest, doc := range all[name].docs {
			if !IsAttestation(doc) {
				continue
			}
			manifest, config := Legacy(doc)
			legacy := parse(t, ocidoc.MediaTypeOCIManifest, string(manifest))
			if !IsAttestation(legacy) || legacy.Subject != nil || legacy.ArtifactType != "" {
				t.Errorf("%s %s: not BuildKit's legacy form: %s", name, digest, manifest)
			}
			if !bytes.Equal(legacy.RawLayers(), doc.RawLayers()) {
				t.Errorf("%s %s: layers %s, want %s", name, digest, legacy.RawLayers(), doc.RawLayers())
			}
			if config != nil && (legacy.Config.Digest != ocidoc.DigestOf(config) || legacy.Config.Size != int64(len(config))) {
				t.Errorf("%s %s: config %+v, its bytes are %s", name, digest, legacy.Config, config)
			}
			if doc.Subject != nil {
				continue
			}
			if config != nil || !bytes.Equal(manifest, doc.Bytes) {
				t.Errorf("%s %s: is in the legacy form, and became %s", name, digest, manifest)
			}
			subject := ocidoc.Descriptor{MediaType: ocidoc.MediaTypeOCIManifest, Digest: EmptyDigest, Size: 2}
			back, _ := Legacy(parse(t, ocidoc.MediaTypeOCIManifest, string(Derived(doc, subject))))
			if !bytes.Equal(back, doc.Bytes) {
				t.Errorf("%s %s: the referrer derived from it leads to\n%s\nBuildKit wrote\n%s", name, digest, back, doc.Bytes)
			}
			seen++
		}
	}
	if seen == 0 {
		t.Error("no legacy attestation among the captured documents")
	}
}

func TestEveryOtherFormOfAnAttestationHasALegacyOne(t *testing.T) {
	attType := `"artifactType":"application/vnd.docker.attestation.manifest.v1+json",`
	for name, body := range map[string]string{
		"with a type":          manifest(attType, imageConfig, "", inToto),
		"with a subject":       manifest("", imageConfig, subjectA, inToto),
		"with an empty config": manifest("", emptyConfig, "", inToto),
		"without a config":     `{"layers":[{"mediaType":"` + inToto + `","digest":"` + digestA + `","size":1}]}`,
	} {
		att := parse(t, ocidoc.MediaTypeOCIManifest, body)
		got, config := Legacy(att)
		d := parse(t, ocidoc.MediaTypeOCIManifest, string(got))
		if config == nil || d.ArtifactType != "" || d.Subject != nil || d.Config == nil || d.Config.Digest != ocidoc.DigestOf(config) ||
			d.Config.MediaType != imageConfig || !bytes.Equal(d.RawLayers(), att.RawLayers()) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestWhatIsNoManifestHasNoLegacyForm(t *testing.T) {
	for _, doc := range []*ocidoc.Document{nil, {Kind: ocidoc.KindIndex}, {Kind: ocidoc.KindOther}, parse(t, ocidoc.MediaTypeOCIManifest, `{}`)} {
		if manifest, _ := Legacy(doc); manifest != nil {
			t.Errorf("%v: %s", doc, manifest)
		}
	}
}
