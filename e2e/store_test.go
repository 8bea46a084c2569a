//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What `store` keeps is found with the command line and with imagetools, before and after a restart.

type stored struct {
	Image         string
	Attestation   string
	PredicateType string
	Statement     string
}

func (s *sluice) list(t testing.TB, image string, args ...string) []stored {
	t.Helper()
	out := run(t, append([]string{s.bin, "attestations", "list", "--output", "json", image}, args...)...)
	var found []stored
	if err := json.Unmarshal([]byte(out), &found); err != nil {
		t.Fatalf("attestations list prints no JSON: %v\n%s", err, out)
	}
	return found
}

func TestStoredAttestationsAreFoundByTagImageAndOriginalAlsoAfterARestart(t *testing.T) {
	scanner := shared(t, bench.scanner)
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			w, k := newWorld(t), needBuilder(t, form.builder)
			w.needSluice(t)
			original := k.mustBuild(t, newApplication(t, 60), bothPlatforms, append(push(w.via+"/team/app:1"), "--provenance=mode=max", "--attest", "type=sbom,generator="+scanner)...)
			index := get(t, w.direct, "team/app", "1")
			image := index.Parsed.Manifests[0].Digest // linux/amd64

			check := func(t *testing.T) {
				for _, c := range []struct {
					ref  string
					want int
				}{
					{":1", 4}, {"@" + original, 4}, {"@" + index.Digest, 4}, {"@" + image, 2},
				} {
					found := w.sluice.list(t, w.via+"/team/app"+c.ref)
					types := map[string]int{}
					for _, s := range found {
						types[s.PredicateType]++
					}
					if len(found) != c.want || types["https://spdx.dev/Document"] != c.want/2 {
						t.Errorf("list team/app%s: %d statements of the types %v, want %d, half of them SPDX", c.ref, len(found), types, c.want)
					}
				}
				show := run(t, w.sluice.bin, "attestations", "show", "--platform", "linux/amd64", "--predicate-type", "https://spdx.dev/Document", w.via+"/team/app:1")
				if !strings.Contains(show, "SPDXRef-payload") {
					t.Errorf("show prints no SBOM: %s", show)
				}
				dir := filepath.Join(scratch(t), "exported")
				run(t, w.sluice.bin, "attestations", "export", "--dir", dir, w.via+"/team/app:1")
				assertExported(t, dir, w.sluice.list(t, w.via+"/team/app:1"))
				for _, ref := range []string{":1", "@" + original, "@" + index.Digest} {
					if out := run(t, w.sluice.bin, "resolve", w.via+"/team/app"+ref); !strings.Contains(out, index.Digest) {
						t.Errorf("resolve team/app%s prints %q, want %s", ref, out, index.Digest)
					}
				}
				inspect := run(t, k.buildx, "imagetools", "inspect", "--builder", k.name, "--format", "{{json .SBOM}}{{json .Provenance}}", w.via+"/team/app@"+original)
				if !strings.Contains(inspect, "SPDXRef-payload") || !strings.Contains(inspect, "buildType") {
					t.Errorf("imagetools sees no SBOM or no provenance by the original's digest: %s", inspect)
				}
			}
			check(t)
			w.sluice.restart(t)
			check(t)
			assertNothingLeaked(t, w.upstream)
		})
	}
}

// assertExported checks that every listed statement is a file with exactly its bytes.
func assertExported(t *testing.T, dir string, listed []stored) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var digests []string
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		digests = append(digests, "sha256:"+hex.EncodeToString(sum[:]))
	}
	for _, s := range listed {
		if !slices.Contains(digests, s.Statement) {
			t.Errorf("%s (%s) was not exported", s.Statement, s.PredicateType)
		}
	}
}

func TestImagetoolsSeesProvenanceByTagInTheOriginalView(t *testing.T) {
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			w, k := newWorld(t, "view: original"), needBuilder(t, form.builder)
			k.mustBuild(t, newApplication(t, 61), bothPlatforms, append(push(w.via+"/app:1"), "--provenance=mode=max")...)
			provenance := func(host string) string {
				return run(t, k.buildx, "imagetools", "inspect", "--builder", k.name, "--format", "{{json .Provenance}}", host+"/app:1")
			}
			if out := provenance(w.via); !strings.Contains(out, "buildType") {
				t.Errorf("no provenance through Sluice: %s", out)
			}
			if !w.through() {
				return
			}
			if out := provenance(w.direct); strings.Contains(out, "buildType") {
				t.Errorf("provenance at upstream: %s", out)
			}
			w.sluice.restart(t)
			if out := provenance(w.via); !strings.Contains(out, "buildType") {
				t.Errorf("no provenance through Sluice after a restart: %s", out)
			}
		})
	}
}

// A referrers query through Sluice lists what upstream has and what is stored.
func TestReferrersOfAnImageIncludeItsStoredAttestations(t *testing.T) {
	oras := tool(t, "oras")
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			w, k := newWorld(t), needBuilder(t, form.builder)
			w.needSluice(t)
			k.mustBuild(t, newApplication(t, 62), "linux/amd64", push(w.via+"/app:1")...)
			if out := run(t, oras, "discover", "--plain-http", "--format", "json", w.via+"/app:1"); !strings.Contains(out, attestationArtifact) {
				t.Errorf("oras discover shows no attestation: %s", out)
			}
		})
	}
}

// Rules: one repository stores, another strips, a third forwards.
func TestTheFirstRuleThatMatchesTheRepositoryDecides(t *testing.T) {
	w, k := newWorld(t, `attestations: store
rules:
  - repositories: ["lambda/**"]
    attestations: strip
  - repositories: ["raw/*"]
    attestations: forward`), needBuilder(t, "new")
	w.needSluice(t)
	for repository, listed := range map[string]int{"stored/app": 1, "lambda/team/app": 0, "raw/app": 0} {
		original := k.mustBuild(t, newApplication(t, 63), "linux/amd64", push(w.via+"/"+repository+":1")...)
		tagged := get(t, w.direct, repository, "1").Digest
		if forwarded := repository == "raw/app"; (tagged == original) != forwarded {
			t.Errorf("%s: forwarded as %s, sent as %s", repository, tagged, original)
		}
		if found := w.sluice.list(t, w.via+"/"+repository+":1"); len(found) != listed && repository != "raw/app" {
			t.Errorf("%s: %d statements are listed, want %d", repository, len(found), listed)
		}
	}
}
