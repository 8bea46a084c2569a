package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
)

const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// signs is the manifest of an artifact about another manifest; more begins with a comma.
func signs(subject, layer, more string) string {
	return `{"schemaVersion":2,"mediaType":"` + ocidoc.MediaTypeOCIManifest + `","config":` +
		strings.Replace(entry("application/vnd.oci.empty.v1+json", emptyDigest, ""), `"size":1`, `"size":2`, 1) +
		`,"layers":[` + layer + `],"subject":` + entry(ocidoc.MediaTypeOCIManifest, subject, "") + more + `}`
}

const emptyDigest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func ofType(artifactType string) string { return `,"artifactType":"` + artifactType + `"` }

// What cosign 3 pushes about an attestation is found by the image, and exported with what is needed to verify it.
func TestSignaturesOfAttestationsAreListedShownAndExported(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, action := range []string{"store", "strip"} {
		t.Run(action, func(t *testing.T) {
			p := startServe(t, "--attestations", action)
			defer p.end(t)
			r := &testRegistry{url: p.url}
			b := pushBuild(t, r)
			image := strings.TrimPrefix(p.url, "http://") + "/app"
			references := []string{image + "@" + b.index}
			if action == "store" {
				references = append(references, image+":1")
			}
			unsigned := sluice(t, "attestations", "list", references[0], "--output", "json")
			if strings.Contains(unsigned, "signatures") {
				t.Errorf("signed before it was: %s", unsigned)
			}

			bundle := `{"mediaType":"` + bundleType + `","dsseEnvelope":{"payload":"e30="}}`
			for _, blob := range []string{"{}", bundle} {
				if err := r.upload([]byte(blob)); err != nil {
					t.Fatal(err)
				}
			}
			manifest := signs(b.attestation, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, bundleType, ocidoc.DigestOf([]byte(bundle)), len(bundle)), ofType(bundleType))
			signature := ocidoc.DigestOf([]byte(manifest))
			if err := r.send("", http.MethodPut, "manifests/"+signature, ocidoc.MediaTypeOCIManifest, []byte(manifest)); err != nil {
				t.Fatal(err)
			}

			for _, reference := range references {
				var list []statement
				if err := json.Unmarshal([]byte(sluice(t, "attestations", "list", reference, "--output", "json")), &list); err != nil {
					t.Fatal(err)
				}
				if len(list) != 1 || len(list[0].Signatures) != 1 || list[0].Signatures[0] != signature {
					t.Errorf("%s: listed %+v, want one statement signed by %s", reference, list, signature)
				}
				if table := sluice(t, "attestations", "list", reference); !strings.HasSuffix(table, "  "+short(signature)+"\n") {
					t.Errorf("%s: the table does not end with the signature:\n%s", reference, table)
				}
				var out, errs bytes.Buffer
				code := execute(context.Background(), []string{"attestations", "show", reference}, &out, &errs)
				if code != 0 || out.String() != b.statement+"\n" || !strings.Contains(errs.String(), "is signed by "+signature) {
					t.Errorf("%s: exit %d, shown %s, and said %s", reference, code, &out, &errs)
				}

				dir := t.TempDir()
				for range 2 {
					if said := sluice(t, "attestations", "export", reference, "--dir", dir); !strings.HasPrefix(said, "1 statement in ") || !strings.Contains(said, "\n1 signature ") {
						t.Errorf("%s: exported, and said %s", reference, said)
					}
				}
				read := func(name string) string {
					content, err := os.ReadFile(filepath.Join(dir, name))
					if err != nil {
						t.Error(err)
					}
					return string(content)
				}
				var index exported
				if err := json.Unmarshal([]byte(read(indexFile)), &index); err != nil {
					t.Fatal(err)
				}
				if len(index.Signed) != 1 || len(index.Signed[0].Signatures) != 1 || len(index.Signed[0].Signatures[0].Files) != 1 {
					t.Fatalf("%s: index.json says %+v", reference, index)
				}
				signed := index.Signed[0]
				file := signed.Signatures[0].Files[0]
				if got := ocidoc.DigestOf([]byte(read(signed.File))); signed.Digest != b.attestation || got != b.attestation {
					t.Errorf("%s: the manifest is %s by index.json and %s by its bytes, want %s, which was signed", reference, signed.Digest, got, b.attestation)
				}
				if got := read(file.File); got != bundle || !strings.HasPrefix(file.File, "linux-arm-v7-signature-") || !strings.HasSuffix(file.File, ".sigstore.json") {
					t.Errorf("%s: %s is %s, want the bundle", reference, file.File, got)
				}
				if index.Statements[0].Signatures[0] != signature || signed.Signatures[0].Digest != signature {
					t.Errorf("%s: index.json does not say of what the signatures are: %+v", reference, index)
				}
			}
		})
	}
}

func TestWhatSignsAnAttestation(t *testing.T) {
	oci := ocidoc.MediaTypeOCIManifest
	for _, tt := range []struct {
		name string
		make func(s shelf, attestation, image string, statements string) (want []string)
	}{
		{"nothing", func(shelf, string, string, string) []string { return nil }},
		{"a sigstore bundle, a signature of cosign 2 and one of notation", func(s shelf, attestation, _, _ string) []string {
			cosign2 := strings.Replace(signs(attestation, s.blob("application/vnd.dev.cosign.simplesigning.v1+json", "{}", ""), ""), "application/vnd.oci.empty.v1+json", cosignSignature, 1)
			digests := []string{
				s.manifest(oci, signs(attestation, s.blob(bundleType, "{}", ""), ofType(bundleType))),
				s.manifest(oci, cosign2),
				s.manifest(oci, signs(attestation, s.blob("application/jose+json", "{}", ""), ofType(notarySignature))),
			}
			s.list(attestation, digests...)
			return digests
		}},
		{"what the referrers tag lists, where there is no API", func(s shelf, attestation, _, _ string) []string {
			d := s.manifest(oci, signs(attestation, s.blob(bundleType, "{}", ""), ofType(bundleType)))
			// cosign 3.0 writes it so.
			s["manifests/"+strings.Replace(attestation, ":", "-", 1)] = document(ocidoc.MediaTypeOCIIndex, index(entry(oci, d, ofType("application/vnd.oci.empty.v1+json"))))
			return []string{d}
		}},
		{"nothing that is no signature, and nothing that has gone", func(s shelf, attestation, _, _ string) []string {
			s.list(attestation, s.manifest(oci, signs(attestation, s.blob("text/plain", "notes", ""), ofType("text/plain"))), "sha256:"+strings.Repeat("0", 64))
			return nil
		}},
		{"a signature of the manifest from which the referrer was made", func(s shelf, attestation, _, statements string) []string {
			pushed := s.attestation("", statements)
			d := s.manifest(oci, signs(pushed, s.blob(bundleType, "{}", ""), ofType(bundleType)))
			s.list(attestation, d)
			return []string{d}
		}},
		{"no signature of something else", func(s shelf, attestation, image, _ string) []string {
			other := s.attestation("", s.statement(image, "of another build"))
			s.list(attestation, s.manifest(oci, signs(other, s.blob(bundleType, "{}", ""), ofType(bundleType))),
				s.manifest(oci, signs(image, s.blob(bundleType, "{}", ""), ofType(bundleType))),
				s.manifest(oci, signs("sha256:"+strings.Repeat("0", 64), s.blob(bundleType, "{}", ""), ofType(bundleType))))
			return nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := shelf{}
			image := s.image(1)
			statements := s.statement(image, "sbom") + "," + s.statement(image, "slsa")
			attestation := s.attestation(subject(image), statements)
			s.referrers(image, attestation)
			s.index("1", nil, entry(oci, image, linuxPlatform))
			want := map[string]bool{}
			for _, d := range tt.make(s, attestation, image, statements) {
				want[d] = true
			}
			repo := scripted(t, s)
			found, _, err := repo.statements(context.Background(), "1")
			if err == nil {
				err = repo.addSignatures(context.Background(), found)
			}
			if err != nil || len(found) != 2 {
				t.Fatalf("%v, %v", found, err)
			}
			for _, x := range found {
				got := map[string]bool{}
				for _, d := range x.Signatures {
					got[d] = true
				}
				if fmt.Sprint(got) != fmt.Sprint(want) || len(x.Signatures) != len(want) {
					t.Errorf("%s is signed by %v, want %v", x.PredicateType, x.Signatures, want)
				}
			}
			// All that signs is written, each file with the digest that it is listed with.
			e, dir := &exported{}, t.TempDir()
			if err := e.addSigned(context.Background(), repo, found); err != nil {
				t.Fatal(err)
			}
			if err := e.write(context.Background(), repo, dir); err != nil {
				t.Fatal(err)
			}
			if e.signatures() != len(want) {
				t.Errorf("%d signatures exported, want %d", e.signatures(), len(want))
			}
			for _, f := range e.Signed {
				for _, sig := range f.Signatures {
					for _, b := range append(sig.Files, signedBlob{File: f.File, Digest: f.Digest}) {
						content, err := os.ReadFile(filepath.Join(dir, b.File))
						if err != nil || ocidoc.DigestOf(content) != b.Digest {
							t.Errorf("%s: %v, not %s: %s", b.File, err, b.Digest, content)
						}
					}
				}
			}
		})
	}
}

// list is what the referrers API says without a filter.
func (s shelf) list(about string, digests ...string) {
	var entries []string
	for _, d := range digests {
		entries = append(entries, entry(ocidoc.MediaTypeOCIManifest, d, ""))
	}
	s["referrers/"+about] = document(ocidoc.MediaTypeOCIIndex, index(entries...))
}
