//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A cosign is one version with a key of its own. Both work without the public transparency log, which is
// out of reach here.
type cosign struct {
	bin, dir     string
	sign, verify []string
}

func needCosign(t testing.TB, name string) *cosign {
	t.Helper()
	c := &cosign{bin: tool(t, name), dir: scratch(t)}
	runIn(t, c.dir, nil, c.bin, "generate-key-pair")
	c.sign = []string{"--key", filepath.Join(c.dir, "cosign.key"), "--tlog-upload=false", "--allow-http-registry", "--yes"}
	c.verify = []string{"--key", filepath.Join(c.dir, "cosign.pub"), "--insecure-ignore-tlog", "--allow-http-registry"}
	if name == "cosign3" {
		c.sign = append(c.sign, "--use-signing-config=false")
	}
	return c
}

func (c *cosign) signArgs(args ...string) []string {
	return append(append([]string{c.bin, "sign"}, c.sign...), args...)
}

func (c *cosign) verifyArgs(ref string) []string {
	return append(append([]string{c.bin, "verify"}, c.verify...), ref)
}

var cosigns = []string{"cosign2", "cosign3"}

func TestASignatureByTagThroughSluiceIsTheOneEverybodyNeeds(t *testing.T) {
	for _, name := range cosigns {
		for _, form := range forms {
			t.Run(name+" "+form.name, func(t *testing.T) {
				c, w, k := needCosign(t, name), newWorld(t), needBuilder(t, form.builder)
				for i, platforms := range []string{"linux/amd64", bothPlatforms} {
					repository := []string{"one", "two"}[i]
					k.mustBuild(t, newApplication(t, uint64(40+i)), platforms, push(w.via+"/"+repository+":1")...)
					mustFail(t, c.verifyArgs(w.direct+"/"+repository+":1")...) // so that success below means something
					run(t, c.signArgs(w.via+"/"+repository+":1")...)
					run(t, c.verifyArgs(w.direct+"/"+repository+":1")...)
					run(t, c.verifyArgs(w.via+"/"+repository+":1")...)
					run(t, c.verifyArgs(w.direct+"/"+repository+"@"+get(t, w.direct, repository, "1").Digest)...)
				}
				run(t, c.signArgs("--recursive", w.via+"/two:1")...)
				run(t, c.verifyArgs(w.direct+"/two:1")...)
				if w.through() {
					assertNothingLeaked(t, w.upstream)
				}
			})
		}
	}
}

func TestASignatureForAnOriginalIsRefusedAndTheAnswerNamesTheDigestToSign(t *testing.T) {
	for _, name := range cosigns {
		for j, form := range forms {
			for i, view := range []string{"upstream", "original"} {
				if !paired(i, j) {
					continue
				}
				t.Run(strings.Join([]string{name, form.name, view}, " "), func(t *testing.T) {
					c, w, k := needCosign(t, name), newWorld(t, "view: "+view), needBuilder(t, form.builder)
					w.needSluice(t)
					original := k.mustBuild(t, newApplication(t, 41), bothPlatforms, push(w.via+"/app:1")...)
					forwarded := get(t, w.direct, "app", "1").Digest
					before := w.upstream.manifests(t, "app")
					refs := []string{w.via + "/app@" + original}
					if view == "original" {
						refs = append(refs, w.via+"/app:1") // by tag it is the original as well
					}
					for _, ref := range refs {
						reason := mustFail(t, c.signArgs(ref)...)
						if !strings.Contains(reason, forwarded) {
							t.Errorf("signing %s is refused without naming %s:\n%s", ref, forwarded, reason)
						}
					}
					if after := w.upstream.manifests(t, "app"); strings.Join(after, " ") != strings.Join(before, " ") {
						t.Errorf("a refused signature changed the manifests from %v to %v", before, after)
					}
					run(t, c.signArgs(w.via+"/app@"+forwarded)...)
					run(t, c.verifyArgs(w.direct+"/app:1")...)
				})
			}
		}
	}
}

func TestWhereItIsAllowedASignatureForAnOriginalVerifiesThroughSluice(t *testing.T) {
	for _, name := range cosigns {
		t.Run(name, func(t *testing.T) {
			c, w := needCosign(t, name), newWorld(t, "view: original", "signed_originals: forward")
			w.needSluice(t)
			needBuilder(t, "new").mustBuild(t, newApplication(t, 42), bothPlatforms, push(w.via+"/app:1")...)
			run(t, c.signArgs(w.via+"/app:1")...)
			run(t, c.verifyArgs(w.via+"/app:1")...)
			mustFail(t, c.verifyArgs(w.direct+"/app:1")...)
		})
	}
}

// cosign's own attestations are in-toto statements too, but not BuildKit's: they go where they are sent.
func TestACosignAttestationIsNotTakenOut(t *testing.T) {
	for _, name := range cosigns {
		t.Run(name, func(t *testing.T) {
			c, w := needCosign(t, name), newWorld(t)
			needBuilder(t, "new").mustBuild(t, newApplication(t, 43), bothPlatforms, push(w.via+"/app:1")...)
			predicate := filepath.Join(c.dir, "predicate.json")
			if err := os.WriteFile(predicate, []byte(`{"reviewed":true}`), 0o644); err != nil {
				t.Fatal(err)
			}
			ref := w.via + "/app@" + get(t, w.direct, "app", "1").Digest
			argv := append([]string{c.bin, "attest", "--predicate", predicate, "--type", "custom"}, c.sign...)
			run(t, append(argv, ref)...)
			for _, host := range []string{w.direct, w.via} {
				argv := append([]string{c.bin, "verify-attestation", "--type", "custom"}, c.verify...)
				run(t, append(argv, host+"/app:1")...)
			}
		})
	}
}

// docker/github-builder signs each attestation manifest and verifies at once. What upstream does not have gets no signature there.
func TestASignatureOfAnAttestationVerifiesThroughSluiceAndIsNotUpstream(t *testing.T) {
	for _, action := range []string{"store", "strip"} {
		for _, form := range forms {
			t.Run(action+" "+form.name, func(t *testing.T) {
				c, w := needCosign(t, "cosign3"), newWorld(t, "attestations: "+action)
				w.needSluice(t)
				original := needBuilder(t, form.builder).mustBuild(t, newApplication(t, 44), bothPlatforms, push(w.via+"/app:1")...)
				before := w.upstream.manifests(t, "app")
				signed := 0
				for _, e := range get(t, w.via, "app", original).Parsed.Manifests {
					if e.Platform == nil || e.Platform.Architecture != "unknown" {
						continue
					}
					signed++
					ref := w.via + "/app@" + e.Digest
					mustFail(t, c.verifyArgs(ref)...)
					runIn(t, "", []string{"COSIGN_EXPERIMENTAL=1"}, c.signArgs("--registry-referrers-mode", "oci-1-1", ref)...)
					run(t, c.verifyArgs(ref)...)
					for _, request := range w.upstream.requests(t, "app") {
						if strings.HasPrefix(request, "PUT ") && strings.Contains(request, "/manifests/sha256-") {
							t.Errorf("upstream got a list of signatures: %s", request)
						}
					}
				}
				if signed != 2 {
					t.Fatalf("signed %d attestations", signed)
				}
				if after := w.upstream.manifests(t, "app"); strings.Join(after, " ") != strings.Join(before, " ") {
					t.Errorf("upstream's manifests were %v and are %v", before, after)
				}
				if held := signaturesOf(t, w.upstream); len(held) > 0 {
					t.Errorf("upstream has %v", held)
				}
				assertNothingLeaked(t, w.upstream)
				references := []string{w.via + "/app@" + original}
				if action == "store" {
					references = append(references, w.via+"/app:1")
				}
				for _, reference := range references {
					c.verifyExported(t, w, reference, signed)
				}
				// A signature of the image goes there as ever.
				runIn(t, "", []string{"COSIGN_EXPERIMENTAL=1"}, c.signArgs("--registry-referrers-mode", "oci-1-1", w.via+"/app:1")...)
				run(t, c.verifyArgs(w.direct+"/app:1")...)
				if len(signaturesOf(t, w.upstream)) == 0 {
					t.Error("the signature of the image was not found, so the others were not looked for")
				}
			})
		}
	}
}

// verifyExported needs no registry: what is exported of each attestation says together that its statements are signed.
func (c *cosign) verifyExported(t testing.TB, w *world, reference string, want int) {
	t.Helper()
	dir := scratch(t)
	run(t, w.sluice.bin, "attestations", "export", "--dir", dir, reference)
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Statements []struct{ File, Statement string }
		Signed     []struct {
			File       string
			Signatures []struct{ Files []struct{ File string } }
		}
	}
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	verified := 0
	manifests := ""
	for _, attestation := range index.Signed {
		manifest := filepath.Join(dir, attestation.File)
		for _, signature := range attestation.Signatures {
			bundle := filepath.Join(dir, signature.Files[0].File)
			argv := []string{c.bin, "verify-blob-attestation", "--key", filepath.Join(c.dir, "cosign.pub"), "--insecure-ignore-tlog", "--type", "https://sigstore.dev/cosign/sign/v1", "--bundle", bundle}
			run(t, append(argv, manifest)...)
			mustFail(t, append(argv, filepath.Join(dir, index.Statements[0].File))...) // it is about the manifest
			verified++
		}
		b, err := os.ReadFile(manifest)
		if err != nil {
			t.Fatal(err)
		}
		manifests += string(b)
	}
	if verified != want {
		t.Errorf("%d signatures of %s were exported, want %d: %s", verified, reference, want, b)
	}
	for _, s := range index.Statements {
		if !strings.Contains(manifests, s.Statement) {
			t.Errorf("%s is in no manifest that is signed: %s", s.File, manifests)
		}
	}
}

// signaturesOf are the files of a registry's storage with a sigstore bundle, or a part of an upload of one.
func signaturesOf(t testing.TB, r *registry) (found []string) {
	t.Helper()
	err := filepath.WalkDir(r.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() != "data" {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.HasPrefix(b, []byte(`{"mediaType":"application/vnd.dev.sigstore.bundle`)) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
