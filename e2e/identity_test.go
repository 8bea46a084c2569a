//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestATagHoldsExactlyWhatABuildWithoutAttestationsPushes(t *testing.T) {
	scanner := shared(t, bench.scanner)
	for _, action := range []string{"store", "strip"} {
		t.Run(action, func(t *testing.T) {
			w := newWorld(t, "attestations: "+action)
			for _, form := range forms {
				k := needBuilder(t, form.builder)
				for seed, platforms := range []string{"linux/amd64", bothPlatforms} {
					for i, provenance := range []string{"min", "max"} {
						for j, sbom := range []bool{false, true} {
							if !paired(i, j) {
								continue
							}
							name := fmt.Sprintf("%s-%dp-%s-sbom-%t", form.name, seed+1, provenance, sbom)
							t.Run(name, func(t *testing.T) {
								dir := newApplication(t, uint64(10+seed))
								args := append(push(w.via+"/"+name+":1"), "--provenance=mode="+provenance)
								if sbom {
									args = append(args, "--attest", "type=sbom,generator="+scanner)
								}
								original := k.mustBuild(t, dir, platforms, args...)
								clean := k.mustBuild(t, dir, platforms, withoutAttestations(w.direct+"/"+name+"-reference:1")...)
								w.same(t, name, name+"-reference")
								if original == clean {
									t.Error("the build made no attestations, so this shows nothing")
								}
								if !w.through() {
									return
								}
								tagged := get(t, w.direct, name, "1")
								if tagged.Digest != clean {
									t.Errorf("the tag is %s, buildx reported %s for the build without attestations", tagged.Digest, clean)
								}
								if seed == 0 && len(tagged.Parsed.Manifests) > 0 {
									t.Error("one platform must end as an image manifest, not as an index")
								}
								kept := get(t, w.via, name, original)
								if got := kept.Header.Get("Sluice-Forwarded-Digest"); got != clean {
									t.Errorf("the original's Sluice-Forwarded-Digest is %q, want %s", got, clean)
								}
								absent(t, w.direct, name, original)
							})
						}
					}
				}
			}
		})
	}
}

// The checks above must be able to find something: here Sluice is left out.
func TestADirectPushLeavesWhatTheLeakCheckLooksFor(t *testing.T) {
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			upstream, err := startRegistry(scratch(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(upstream.proc.stop)
			needBuilder(t, form.builder).mustBuild(t, newApplication(t, 10), "linux/amd64", push(upstream.host+"/app:1")...)
			want := []string{"a statement", "an attestation manifest", "an index that lists an attestation"}
			if form.name == "legacy" {
				want = append(want, "an attestation's config")
			}
			found := findLeaks(t, upstream)
			for _, what := range want {
				if len(found[what]) == 0 {
					t.Errorf("not found: %s; found: %v", what, found)
				}
			}
			if n := len(upstream.manifests(t, "app")); n != 3 {
				t.Errorf("a direct push of one image makes 3 manifests, here %d", n)
			}
		})
	}
}

func TestSeveralTagsOfOneBuildAndItsRepetitionEndTheSame(t *testing.T) {
	for i, view := range []string{"upstream", "original"} {
		for j, form := range forms {
			if !paired(i, j) {
				continue
			}
			t.Run(view+" "+form.name, func(t *testing.T) {
				w, k, dir := newWorld(t, "view: "+view), needBuilder(t, form.builder), newApplication(t, 11)
				refs := []string{w.via + "/app:1", w.via + "/app:1.2", w.via + "/app:latest"}
				k.mustBuild(t, dir, bothPlatforms, withoutAttestations(w.direct+"/reference:1", w.direct+"/reference:1.2", w.direct+"/reference:latest")...)
				for range 2 { // the second build has provenance of its own, so another original
					original := k.mustBuild(t, dir, bothPlatforms, push(refs...)...)
					w.same(t, "app", "reference")
					assertView(t, w, view, "app", "1.2", original)
				}
			})
		}
	}
}

// assertView checks what a client of Sluice sees under a tag and by the original's digest.
func assertView(t testing.TB, w *world, view, repository, tag, original string) {
	t.Helper()
	if !w.through() {
		return
	}
	want := get(t, w.direct, repository, tag).Digest
	if view == "original" {
		want = original
	}
	if got := get(t, w.via, repository, tag).Digest; got != want {
		t.Errorf("with view %s, %s:%s through Sluice is %s, want %s", view, repository, tag, got, want)
	}
	if got := get(t, w.via, repository, original).Digest; got != original {
		t.Errorf("by its digest the original of %s is %s", repository, got)
	}
}

func TestAMatrixPushedByDigestIsCombinedByImagetools(t *testing.T) {
	for i, view := range []string{"upstream", "original"} {
		for j, form := range forms {
			if !paired(i, j) {
				continue
			}
			t.Run(view+" "+form.name, func(t *testing.T) {
				w, k, dir := newWorld(t, "view: "+view), needBuilder(t, form.builder), newApplication(t, 12)
				combine := func(host, repository string, args ...string) {
					create := []string{k.buildx, "imagetools", "create", "--builder", k.name, "-t", host + "/" + repository + ":1"}
					for _, platform := range strings.Split(bothPlatforms, ",") {
						by := "type=image,name=" + host + "/" + repository + ",push-by-digest=true,push=true,oci-mediatypes=true"
						digest := k.mustBuild(t, dir, platform, append([]string{"--output", by}, args...)...)
						create = append(create, host+"/"+repository+"@"+digest)
					}
					run(t, create...)
				}
				combine(w.via, "app", "--provenance=mode=max")
				combine(w.direct, "reference", "--provenance=false")
				w.same(t, "app", "reference")
			})
		}
	}
}

// A builder with a node per platform pushes each by digest, and buildx combines what it is told.
func TestABuilderOfTwoNodesEndsTheSame(t *testing.T) {
	first, second := needBuilder(t, "new"), needBuilder(t, "second")
	for _, args := range [][]string{
		{"--driver", "remote", "--platform", "linux/amd64", first.address},
		{"--append", "--driver", "remote", "--platform", "linux/arm64", second.address},
	} {
		run(t, append([]string{first.buildx, "create", "--name", "nodes"}, args...)...)
	}
	nodes := &builder{name: "nodes", buildx: first.buildx}
	w, dir := newWorld(t), newApplication(t, 13)
	nodes.mustBuild(t, dir, bothPlatforms, push(w.via+"/app:1")...)
	nodes.mustBuild(t, dir, bothPlatforms, append(push(w.direct+"/reference:1"), "--provenance=false")...)
	if !w.through() {
		return
	}
	w.sameTags(t, "app", "reference")
	assertNothingLeaked(t, w.upstream)
	// Each node of the reference leaves an untagged index of its one image behind. Sluice unwraps those, so only
	// what the tag needs is there.
	index := get(t, w.direct, "app", "1")
	want := []string{index.Digest}
	for _, e := range index.Parsed.Manifests {
		want = append(want, e.Digest)
	}
	slices.Sort(want)
	if got := w.upstream.manifests(t, "app"); !slices.Equal(got, want) || len(got) != 3 {
		t.Errorf("upstream holds %v, want the tag's index and its two images %v", got, want)
	}
}
