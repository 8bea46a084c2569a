//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// dockerTypes is the build that `media_types: docker` promises: without attestations, and with Docker's media types.
func dockerTypes(more string, refs ...string) []string {
	return []string{"--provenance=false", "--sbom=false", "--output", `type=image,"name=` + strings.Join(refs, ",") + `",push=true,oci-mediatypes=false` + more}
}

func TestWithDockerMediaTypesATagHoldsWhatABuildWithThemPushes(t *testing.T) {
	for i, action := range []string{"store", "strip"} {
		t.Run(action, func(t *testing.T) {
			w := newWorld(t, "attestations: "+action, "media_types: docker")
			for j, form := range forms {
				if !paired(i, j) {
					continue
				}
				k := needBuilder(t, form.builder)
				for seed, platforms := range []string{"linux/amd64", bothPlatforms} {
					// rewrite-timestamp puts an annotation on each layer; the last is one of the manifests.
					for variant, more := range map[string]string{"plain": "", "timestamps": ",rewrite-timestamp=true", "annotated": ",annotation-manifest.org.opencontainers.image.vendor=example"} {
						name := fmt.Sprintf("%s-%dp-%s", form.name, seed+1, variant)
						t.Run(name, func(t *testing.T) {
							dir := newApplication(t, uint64(70+seed))
							output := `type=image,"name=` + w.via + "/" + name + `:1",push=true,oci-mediatypes=true` + more
							original := k.mustBuild(t, dir, platforms, "--output", output, "--provenance=mode=max")
							docker := k.mustBuild(t, dir, platforms, dockerTypes(more, w.direct+"/"+name+"-reference:1")...)
							w.same(t, name, name+"-reference")
							if !w.through() {
								return
							}
							tagged := get(t, w.direct, name, "1")
							if tagged.Digest != docker || !strings.Contains(tagged.MediaType, "vnd.docker.") {
								t.Errorf("the tag is %s %s, buildx reported %s for the build with Docker's media types", tagged.MediaType, tagged.Digest, docker)
							}
							kept := get(t, w.via, name, original)
							if got := kept.Header.Get("Sluice-Forwarded-Digest"); got != docker {
								t.Errorf("the original's Sluice-Forwarded-Digest is %q, want %s", got, docker)
							}
							// The same again, and a rebuild with provenance of its own.
							k.mustBuild(t, dir, platforms, "--output", output, "--provenance=mode=max")
							w.same(t, name, name+"-reference")
						})
					}
				}
			}
		})
	}
}

// The cache that BuildKit exports as an index is upstream what the same BuildKit exports as a manifest, and is imported
// from there by a builder that has nothing else, through Sluice and without.
func TestACacheIndexArrivesAsTheManifestOfTheSameCache(t *testing.T) {
	for _, form := range forms {
		for _, types := range []string{"true", "false"} {
			t.Run(form.name+" oci-mediatypes="+types, func(t *testing.T) {
				k, w, dir := needBuilder(t, form.builder), newWorld(t, "cache_index: manifest"), newApplication(t, 75)
				w.needSluice(t)
				export := func(ref, options string) {
					k.mustBuild(t, dir, bothPlatforms, "--provenance=false", "--cache-to", "type=registry,mode=max,ref="+ref+options)
				}
				export(w.direct+"/reference:1", ",image-manifest=true,oci-mediatypes=true")
				export(w.via+"/app:1", ",image-manifest=false,oci-mediatypes="+types)
				w.same(t, "app", "reference")
				for _, host := range []string{w.via, w.direct} {
					run(t, k.buildctl, "--addr", k.address, "prune", "--all")
					if out := k.progress(t, dir, "--cache-from", "type=registry,ref="+host+"/app:1", "--provenance=false",
						"--output", "type=image,name="+w.direct+"/again:1,push=true"); !strings.Contains(out, "CACHED") {
						t.Errorf("nothing came from the cache at %s:\n%s", host, out)
					}
				}
			})
		}
	}
}
