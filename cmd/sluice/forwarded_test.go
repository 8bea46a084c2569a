package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// shelf builds what a registry without Sluice holds after a build with attestations.
type shelf map[string]http.HandlerFunc

func (s shelf) manifest(mediaType, body string) string {
	digest := ocidoc.DigestOf([]byte(body))
	s["manifests/"+digest] = document(mediaType, body)
	return digest
}

func (s shelf) blob(mediaType, body, more string) string {
	digest := ocidoc.DigestOf([]byte(body))
	s["blobs/"+digest] = document("application/octet-stream", body)
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d%s}`, mediaType, digest, len(body), more)
}

func (s shelf) index(tag string, headers http.Header, entries ...string) {
	body := index(entries...)
	h := func(w http.ResponseWriter, r *http.Request) {
		for k, v := range headers {
			w.Header()[k] = v
		}
		document(ocidoc.MediaTypeOCIIndex, body)(w, r)
	}
	s["manifests/"+tag], s["manifests/"+ocidoc.DigestOf([]byte(body))] = h, h
}

// image is one of no layers; n tells them apart.
func (s shelf) image(n int) string {
	return s.manifest(ocidoc.MediaTypeOCIManifest, strings.Replace(emptyManifest, `"layers"`, fmt.Sprintf(`"annotations":{"n":"%d"},"layers"`, n), 1))
}

func (s shelf) statement(subject, predicateType string) string {
	return s.blob(filters.MediaTypeInToto,
		fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v0.1","predicateType":%q,"subject":[{"digest":{"sha256":%q}}],"predicate":{}}`, predicateType, strings.TrimPrefix(subject, "sha256:")),
		fmt.Sprintf(`,"annotations":{"in-toto.io/predicate-type":%q}`, predicateType))
}

// attestation is BuildKit's manifest; more begins with a comma.
func (s shelf) attestation(more string, statements ...string) string {
	config := s.blob("application/vnd.oci.image.config.v1+json", `{"architecture":"unknown","os":"unknown"}`, "")
	return s.manifest(ocidoc.MediaTypeOCIManifest, `{"schemaVersion":2,"config":`+config+`,"layers":[`+strings.Join(statements, ",")+`]`+more+`}`)
}

func (s shelf) referrers(image string, attestations ...string) {
	var entries []string
	for _, a := range attestations {
		entries = append(entries, entry(ocidoc.MediaTypeOCIManifest, a, `,"artifactType":"`+filters.ArtifactTypeAttestation+`"`))
	}
	s["referrers/"+image+"?artifactType=application%2Fvnd.docker.attestation.manifest.v1%2Bjson"] = document(ocidoc.MediaTypeOCIIndex, index(entries...))
}

const (
	unknownPlatform = `,"platform":{"os":"unknown","architecture":"unknown"}`
	linuxPlatform   = `,"platform":{"os":"linux","architecture":"amd64"}`
)

func about(image string) string {
	return `,"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"` + image + `"}`
}

func subject(image string) string {
	return `,"artifactType":"` + filters.ArtifactTypeAttestation + `","subject":` + entry(ocidoc.MediaTypeOCIManifest, image, "")
}

// rewritten is what Sluice says beside a document that the registry has under another digest.
var rewritten = http.Header{forwardedHeader: {"sha256:" + strings.Repeat("1", 64)}}

func TestAttestationsThatTheIndexListsAreFound(t *testing.T) {
	oci := ocidoc.MediaTypeOCIManifest
	for _, tt := range []struct {
		name string
		make func(s shelf) []string // the entries' digests that the rows refer to as $0, $1...
		want string                 // image attestation type [in the registry's index], per row
	}{
		{"with BuildKit's annotations", func(s shelf) []string {
			img := s.image(1)
			att := s.attestation("", s.statement(img, "sbom"), s.statement(img, "slsa"))
			s.index("1", nil, entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform+about(img)))
			return []string{img, att}
		}, "$0 $1 sbom index\n$0 $1 slsa index\n"},
		{"without annotations, as buildah leaves them", func(s shelf) []string {
			img, other := s.image(1), s.image(2)
			att := s.attestation("", s.statement(img, "slsa"))
			s.index("1", nil, entry(oci, other, linuxPlatform), entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform))
			return []string{img, att}
		}, "$0 $1 slsa index\n"},
		{"in an index within an index", func(s shelf) []string {
			img := s.image(1)
			att := s.attestation("", s.statement(img, "slsa"))
			s.index("inner", nil, entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform+about(img)))
			body := index(entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform+about(img)))
			s.index("1", nil, entry(ocidoc.MediaTypeOCIIndex, ocidoc.DigestOf([]byte(body)), ""))
			return []string{img, att}
		}, "$0 $1 slsa index\n"},
		{"about an image that the index does not list", func(s shelf) []string {
			img, gone := s.image(1), "sha256:"+strings.Repeat("0", 64)
			att := s.attestation("", s.statement(gone, "slsa"))
			s.index("1", nil, entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform+about(gone)))
			return []string{gone, att}
		}, "$0 $1 slsa index\n"},
		{"that do not say what they are about", func(s shelf) []string {
			img := s.image(1)
			att := s.attestation("", s.blob(filters.MediaTypeInToto, "{}", ""))
			s.index("1", nil, entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform))
			return []string{"", att}
		}, "$0 $1  index\n"},
		{"an image that says unknown/unknown is an image", func(s shelf) []string {
			img := s.image(1)
			att := s.attestation(subject(img), s.statement(img, "slsa"))
			s.referrers(img, att)
			s.index("1", nil, entry(oci, img, unknownPlatform))
			return []string{img, att}
		}, "$0 $1 slsa\n"},
		{"an attestation that is a referrer and an entry is one", func(s shelf) []string {
			img := s.image(1)
			att := s.attestation(subject(img), s.statement(img, "slsa"))
			s.referrers(img, att)
			s.index("1", nil, entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform))
			return []string{img, att}
		}, "$0 $1 slsa index\n"},
		{"an original's entry is shown as the referrer made of it", func(s shelf) []string {
			img := s.image(1)
			sbom, slsa := s.statement(img, "sbom"), s.statement(img, "slsa")
			att, derived := s.attestation("", sbom, slsa), s.attestation(subject(img), sbom)
			s.referrers(img, derived)
			s.index("1", rewritten, entry(oci, img, linuxPlatform), entry(oci, att, unknownPlatform+about(img)))
			return []string{img, derived, att}
		}, "$0 $1 sbom\n$0 $2 slsa\n"},
		{"an entry that was deleted is left out", func(s shelf) []string {
			img := s.image(1)
			s.index("1", rewritten, entry(oci, img, linuxPlatform), entry(oci, "sha256:"+strings.Repeat("0", 64), unknownPlatform+about(img)))
			return nil
		}, ""},
		{"the same statement about two images is about both", func(s shelf) []string {
			a, b := s.image(1), s.image(2)
			st := s.statement(a, "slsa")
			att, other := s.attestation("", st), s.attestation(`,"annotations":{"n":"2"}`, st)
			s.index("1", nil, entry(oci, a, linuxPlatform), entry(oci, b, linuxPlatform),
				entry(oci, att, unknownPlatform+about(a)), entry(oci, other, unknownPlatform+about(b)))
			return []string{a, att, b, other}
		}, "$0 $1 slsa index\n$2 $3 slsa index\n"},
		{"two referrers with one statement show it once", func(s shelf) []string {
			img := s.image(1)
			st := s.statement(img, "slsa")
			att, other := s.attestation(subject(img), st), s.attestation(subject(img)+`,"annotations":{"n":"2"}`, st)
			s.referrers(img, att, other)
			s.index("1", nil, entry(oci, img, linuxPlatform))
			return []string{img, att}
		}, "$0 $1 slsa\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shelf{}
			digests := tt.make(s)
			found, _, err := scripted(t, s).statements(context.Background(), "1")
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, x := range found {
				fmt.Fprintf(&got, "%s %s %s", x.Image, x.Attestation, x.PredicateType)
				if x.inIndex {
					got.WriteString(" index")
				}
				got.WriteString("\n")
			}
			for i, d := range digests {
				tt.want = strings.ReplaceAll(tt.want, fmt.Sprintf("$%d", i), d)
			}
			if got.String() != tt.want {
				t.Errorf("got\n%swant\n%s", &got, tt.want)
			}
		})
	}
}

// A registry takes an index for broken when an entry is missing, so delete leaves those alone.
func TestForwardedAttestationsAreReadBackAndNotDeleted(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	p := startServe(t, "--attestations", "forward")
	defer p.end(t)
	r := &testRegistry{url: p.url}
	b := pushBuild(t, r)
	image := strings.TrimPrefix(p.url, "http://") + "/app:1"
	var list []statement
	if err := json.Unmarshal([]byte(sluice(t, "attestations", "list", image, "--output", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 1 || list[0].Image != b.image || list[0].Attestation != b.attestation || list[0].Platform != "linux/arm/v7" {
		t.Errorf("listed %+v, want the one statement that was pushed", list)
	}
	if got := sluice(t, "attestations", "show", image); got != b.statement+"\n" {
		t.Errorf("shown: %s", got)
	}
	sluice(t, "attestations", "export", image, "--dir", t.TempDir())
	for _, args := range [][]string{{"attestations", "delete", image}, {"attestations", "delete", image, "--yes"}} {
		var out, errs bytes.Buffer
		code := execute(context.Background(), args, &out, &errs)
		if code != exitFailed || out.Len() > 0 || !strings.Contains(errs.String(), "its index in the registry lists them") {
			t.Errorf("%v: exit %d, %s%s", args, code, &out, &errs)
		}
	}
	if got := sluice(t, "attestations", "show", image); got != b.statement+"\n" {
		t.Errorf("after deleting: %s", got)
	}
}
