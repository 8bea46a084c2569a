package filters

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
)

func TestGenuineStatementsTellWhatTheyAreAbout(t *testing.T) {
	n := 0
	for name, s := range scenarios(t) {
		for _, index := range s.docs {
			for _, e := range index.Manifests {
				m := s.docs[e.Digest]
				if !IsAttestation(m) {
					continue
				}
				for _, layer := range m.Layers {
					info, err := ParseStatement(s.blobs[layer.Digest])
					if err != nil {
						t.Errorf("%s %s: %v", name, layer.Digest, err)
						continue
					}
					n++
					if want := layer.Annotations[AnnotationPredicateType]; info.PredicateType != want {
						t.Errorf("%s: predicate %q, want %q", name, info.PredicateType, want)
					}
					if want := SubjectOf(e, m); want != "" && !slices.Equal(info.Subjects, []string{want}) {
						t.Errorf("%s: about %v, want %s", name, info.Subjects, want)
					}
					if len(info.Subjects) != 1 || !slices.Contains(digests(index.Manifests), info.Subjects[0]) {
						t.Errorf("%s: about %v, which is no image of the index", name, info.Subjects)
					}
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d statements seen", n)
	}
}

func TestParseStatement(t *testing.T) {
	a, b := digestA[7:], digestB[7:]
	long := strings.Repeat("0", 128)
	statement := `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://example.com/p","subject":[{"digest":{"sha256":"` + a + `"}}],"predicate":{"subject":[]}}`
	envelope := func(payloadType, payload string) string {
		return `{"payload":"` + base64.StdEncoding.EncodeToString([]byte(payload)) + `","payloadType":"` + payloadType + `","signatures":[]}`
	}
	for _, tc := range []struct {
		name, body string
		want       []string
		refused    string
	}{
		{"a statement", statement, []string{digestA}, ""},
		{"an envelope", envelope("application/vnd.in-toto+json", statement), []string{digestA}, ""},
		{"several subjects, repeated and of other kinds", `{"_type":"https://in-toto.io/Statement/v0.1","subject":[{"digest":{"sha512":"` + long + `","sha256":"` + b + `","md5":"x"}},{"digest":{"sha256":"` + a + `"}},{"digest":{"sha256":"` + b + `"}},{"digest":{"sha256":"../x"}},{"name":"n"}]}`, []string{digestB, "sha512:" + long, digestA}, ""},
		{"nothing", ``, nil, "JSON"},
		{"another JSON", `{}`, nil, "_type"},
		{"a layer", "\x1f\x8b", nil, "invalid"},
		{"an envelope of something else", envelope("text/plain", statement), nil, "envelope around"},
		{"an envelope of rubbish", envelope("application/vnd.in-toto+json", "x"), nil, "invalid"},
		{"an envelope of an envelope", envelope("application/vnd.in-toto+json", envelope("application/vnd.in-toto+json", statement)), nil, "_type"},
		{"bad base64", `{"payloadType":"application/vnd.in-toto+json","payload":"!"}`, nil, "base64"},
		{"wrong types", `{"_type":"https://in-toto.io/Statement/v1","subject":{}}`, nil, "subject"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			info, err := ParseStatement([]byte(tc.body))
			if tc.refused != "" {
				if !errors.Is(err, ErrNotStatement) || !strings.Contains(err.Error(), tc.refused) {
					t.Fatalf("error %v, want ErrNotStatement and %q", err, tc.refused)
				}
				return
			}
			if err != nil || !slices.Equal(info.Subjects, tc.want) {
				t.Fatalf("%+v, %v, want %v", info, err, tc.want)
			}
		})
	}
	if _, err := ParseStatement(make([]byte, MaxStatement+1)); !errors.Is(err, ErrNotStatement) {
		t.Errorf("over the limit: %v", err)
	}
}

func TestDerivedIsWhatBuildKitWritesAsAnArtifact(t *testing.T) {
	s := scenarios(t)["d-oci-artifact"]
	for digest, d := range s.docs {
		if !IsAttestation(d) {
			continue
		}
		if got := Derived(d, ocidoc.Descriptor{}); string(got) != string(d.Bytes) {
			t.Errorf("%s has a subject already and changed", digest)
		}
		// The legacy form of the same attestation: image config, no artifactType, no subject.
		body := string(d.Bytes)
		body = strings.Replace(body, "  \"artifactType\": \""+ArtifactTypeAttestation+"\",\n", "", 1)
		body = strings.Replace(body, emptyConfig, imageConfig, 1)
		body = body[:strings.Index(body, ",\n  \"subject\"")] + "\n}"
		legacy := parse(t, ocidoc.MediaTypeOCIManifest, body)
		if !IsAttestation(legacy) || legacy.Subject != nil {
			t.Fatalf("not the legacy form:\n%s", body)
		}
		got := Derived(legacy, *d.Subject)
		if string(got) != string(d.Bytes) {
			t.Errorf("got\n%s\nwant\n%s", got, d.Bytes)
		}
	}
}

func TestDerived(t *testing.T) {
	subject := ocidoc.Descriptor{MediaType: ocidoc.MediaTypeDockerManifest, Digest: digestC, Size: 7}
	layers := `[ {"mediaType":"application/vnd.in-toto+json","size":1, "x":1,"digest":"` + digestA + `"} ]`
	att := parse(t, ocidoc.MediaTypeOCIManifest, `{"layers":`+layers+`,"config":{"mediaType":"`+imageConfig+`","digest":"`+digestB+`","size":1},"annotations":{"b":"<","a":"1"}}`)
	first, second := Derived(att, subject), Derived(att, subject)
	if string(first) != string(second) {
		t.Error("not deterministic")
	}
	d := parse(t, ocidoc.MediaTypeOCIManifest, string(first))
	if !IsAttestation(d) || d.Subject == nil || d.Subject.Digest != digestC || d.Subject.Size != 7 || d.Subject.MediaType != subject.MediaType ||
		string(d.RawLayers()) != layers || d.Config.Digest != EmptyDigest || len(d.Annotations) != 2 || d.Annotations["b"] != "<" {
		t.Errorf("got\n%s", first)
	}
	if ocidoc.DigestOf([]byte("{}")) != EmptyDigest {
		t.Error("EmptyDigest is not the digest of {}")
	}
	for name, got := range map[string][]byte{
		"no manifest":           Derived(nil, subject),
		"an index":              Derived(parse(t, ocidoc.MediaTypeOCIIndex, `{}`), subject),
		"no layers":             Derived(parse(t, ocidoc.MediaTypeOCIManifest, `{}`), subject),
		"no subject":            Derived(att, ocidoc.Descriptor{}),
		"a subject of no type":  Derived(att, ocidoc.Descriptor{Digest: digestC}),
		"a negative size":       Derived(att, ocidoc.Descriptor{MediaType: subject.MediaType, Digest: digestC, Size: -1}),
		"a digest that is none": Derived(att, ocidoc.Descriptor{MediaType: subject.MediaType, Digest: `"}`, Size: 7}),
	} {
		if got != nil {
			t.Errorf("%s: %s, want nothing", name, got)
		}
	}
}

// One attestation may be listed for several images: each gets a referrer of its own, not the one of another image.
func TestAReferrerIsDerivedAnewForAnotherImageOnly(t *testing.T) {
	attType := `"artifactType":"application/vnd.docker.attestation.manifest.v1+json",`
	att := parse(t, ocidoc.MediaTypeOCIManifest, manifest(attType, emptyConfig, subjectA, inToto))
	for digest, want := range map[string]string{"": digestA, digestA: digestA, digestC: digestC} {
		got := Derived(att, ocidoc.Descriptor{MediaType: ocidoc.MediaTypeOCIManifest, Digest: digest, Size: 7})
		if d := parse(t, ocidoc.MediaTypeOCIManifest, string(got)); d.Subject == nil || d.Subject.Digest != want || string(got) == string(att.Bytes) != (want == digestA) {
			t.Errorf("asked for %q: %s", digest, got)
		}
	}
}

func TestNoStatementIsDecodedThatIsTooLarge(t *testing.T) {
	if _, err := ParseStatement(make([]byte, MaxStatement+1)); !errors.Is(err, ErrNotStatement) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("error %v", err)
	}
}

func TestTagsThatNameADigest(t *testing.T) {
	stem := "sha256-" + digestA[7:]
	for tag, want := range map[string]string{
		stem + ".sig": digestA, stem + ".att": digestA, stem + ".sbom": digestA,
		stem: "", stem + ".cosign": "", "1.sig": "", "sha256-abc.sig": "", strings.ToUpper(stem) + ".sig": "", ".sig": "",
		stem + ".sig.att": "", "x" + stem + ".sig": "", "sha512-" + digestA[7:] + ".sig": "",
		digestA[7:] + ".sig": "", // a tag of somebody's who names images by a hash
	} {
		if got, ok := SignatureTag(tag); got != want || ok != (want != "") {
			t.Errorf("SignatureTag(%q) = %q, %v", tag, got, ok)
		}
	}
	for tag, want := range map[string]bool{
		stem: true, "sha512-" + digestA[7:]: true, stem + "0": false, stem + ".sig": false, "sha384-" + digestA[7:]: false,
		strings.ToUpper(stem): false, "sha512-": false, "sha512": false, "latest": false, "": false,
	} {
		if got := IsFallbackTag(tag); got != want {
			t.Errorf("IsFallbackTag(%q) = %v", tag, got)
		}
	}
	for tag, want := range map[string]string{stem: digestA, digestA[7:]: "", stem + "0": "", stem + ".sig": "", "latest": "", "": "", "sha512-" + digestA[7:]: ""} {
		if got, ok := ParseFallbackTag(tag); got != want || ok != (want != "") {
			t.Errorf("ParseFallbackTag(%q) = %q, %v", tag, got, ok)
		}
	}
	for digest, want := range map[string]string{
		digestA: stem, "": "", "latest": "",
		"sha512:" + strings.Repeat("0123456789abcdef", 8): "sha512-" + strings.Repeat("0123456789abcdef", 4),
	} {
		if got := FallbackTag(digest); got != want {
			t.Errorf("FallbackTag(%q) = %q, want %q", digest, got, want)
		}
	}
}

func FuzzParseStatement(f *testing.F) {
	for _, s := range scenarios(f) {
		for _, b := range s.blobs {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := ParseStatement(b)
		if err != nil && !errors.Is(err, ErrNotStatement) {
			t.Fatalf("%v is not ErrNotStatement", err)
		}
		for _, s := range info.Subjects {
			if !ocidoc.ValidDigest(s) {
				t.Fatalf("bad digest %q", s)
			}
		}
	})
}
