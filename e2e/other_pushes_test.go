//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is not an image with attestations arrives as the bytes that were sent (invariant I4).

func TestARegistryCacheIsExportedAndImported(t *testing.T) {
	for _, form := range forms {
		for _, mode := range []string{"min", "max"} {
			t.Run(form.name+" "+mode, func(t *testing.T) {
				k, w, dir := needBuilder(t, form.builder), newWorld(t), newApplication(t, 50)
				export := func(host, repository string, args ...string) {
					args = append(args, "--cache-to", "type=registry,ref="+host+"/"+repository+"-cache:1,mode="+mode)
					k.mustBuild(t, dir, bothPlatforms, args...)
				}
				export(w.direct, "reference", withoutAttestations(w.direct+"/reference:1")...)
				export(w.via, "app", push(w.via+"/app:1")...) // image and cache at the same time
				w.same(t, "app", "reference")
				w.same(t, "app-cache", "reference-cache")

				// An empty builder has nothing but the cache to know the steps from.
				run(t, k.buildctl, "--addr", k.address, "prune", "--all")
				out := k.progress(t, dir, "--cache-from", "type=registry,ref="+w.via+"/app-cache:1", "--provenance=false",
					"--output", "type=image,name="+w.via+"/again:1,push=true,oci-mediatypes=true")
				if !strings.Contains(out, "CACHED") {
					t.Errorf("nothing came from the cache:\n%s", out)
				}
			})
		}
	}
}

// progress builds one platform and returns what buildx shows.
func (k *builder) progress(t testing.TB, dir string, args ...string) string {
	t.Helper()
	argv := []string{
		k.buildx, "build", "--builder", k.name, "--platform", "linux/amd64", "--progress=plain", "--build-arg", "SOURCE_DATE_EPOCH=1700000000",
	}
	script := `exec "$@" 2>&1`
	return run(t, append([]string{"sh", "-c", script, "sh"}, append(append(argv, args...), dir)...)...)
}

func TestZstdLayersArriveAsTheyAre(t *testing.T) {
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			k, w, dir := needBuilder(t, form.builder), newWorld(t), newApplication(t, 51)
			to := func(ref string) string {
				return "type=image,name=" + ref + ",push=true,oci-mediatypes=true,compression=zstd,force-compression=true"
			}
			k.mustBuild(t, dir, bothPlatforms, "--output", to(w.via+"/app:1"), "--provenance=mode=max")
			k.mustBuild(t, dir, bothPlatforms, "--output", to(w.direct+"/reference:1"), "--provenance=false")
			w.same(t, "app", "reference")
			index := get(t, w.direct, "reference", "1")
			for _, e := range index.Parsed.Manifests {
				for _, l := range get(t, w.direct, "reference", e.Digest).Parsed.Layers {
					if !strings.HasSuffix(l.MediaType, "+zstd") {
						t.Errorf("layer %s is %s, so this shows nothing", l.Digest, l.MediaType)
					}
				}
			}
		})
	}
}

// One build per platform, each with the attestations that BuildKit writes by default, combined by `docker manifest`: in a
// registry the tags are indexes, which it refuses. Into another repository it mounts every blob, and gives up where one is
// not mounted.
func TestDockerManifestCombinesWhatBuildKitPushed(t *testing.T) {
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			docker, k, w, dir := tool(t, "docker"), needBuilder(t, form.builder), newWorld(t), newApplication(t, 52)
			combine := func(from, to string) {
				run(t, docker, "manifest", "create", "--insecure", to, from+":amd64", from+":arm64")
				run(t, docker, "manifest", "push", "--insecure", "--purge", to)
			}
			for _, arch := range []string{"amd64", "arm64"} {
				k.mustBuild(t, dir, "linux/"+arch, push(w.via+"/app:"+arch)...)
				k.mustBuild(t, dir, "linux/"+arch, withoutAttestations(w.direct+"/reference:"+arch)...)
			}
			if !w.through() {
				mustFail(t, docker, "manifest", "create", "--insecure", w.direct+"/app:1", w.direct+"/app:amd64", w.direct+"/app:arm64")
				return
			}
			for _, repository := range []string{"", "-elsewhere"} {
				combine(w.direct+"/reference", w.direct+"/reference"+repository+":1")
				combine(w.via+"/app", w.via+"/app"+repository+":1")
				w.same(t, "app"+repository, "reference"+repository)
			}
		})
	}
}

func TestAnArtifactIsPushedAttachedAndPulled(t *testing.T) {
	oras, w := tool(t, "oras"), newWorld(t)
	dir := scratch(t)
	if err := os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("an artifact\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	created := "org.opencontainers.image.created=2026-01-01T00:00:00Z"
	for _, ref := range []string{w.via + "/artifact:1", w.direct + "/reference:1"} {
		runIn(t, dir, nil, oras, "push", "--plain-http", "--annotation", created, "--artifact-type", "application/vnd.example.notes", ref, "notes.txt:text/plain")
	}
	w.same(t, "artifact", "reference")

	// A foreign referrer of an image that was rewritten: it names what the tag resolves to, and is not taken out.
	needBuilder(t, "new").mustBuild(t, newApplication(t, 52), bothPlatforms, push(w.via+"/app:1")...)
	runIn(t, dir, nil, oras, "attach", "--plain-http", "--artifact-type", "application/vnd.example.notes", w.via+"/app:1", "notes.txt:text/plain")
	for _, host := range []string{w.direct, w.via} {
		if out := run(t, oras, "discover", "--plain-http", "--format", "json", host+"/app:1"); !strings.Contains(out, "application/vnd.example.notes") {
			t.Errorf("%s/app:1 does not show the attached artifact: %s", host, out)
		}
		to := scratch(t)
		runIn(t, to, nil, oras, "pull", "--plain-http", host+"/artifact:1")
		if b, err := os.ReadFile(filepath.Join(to, "notes.txt")); err != nil || string(b) != "an artifact\n" {
			t.Errorf("pulled %q, %v", b, err)
		}
	}
	if w.through() {
		assertNothingLeaked(t, w.upstream)
	}
}

func TestUnderForwardEverythingArrivesAsItWasSent(t *testing.T) {
	w := newWorld(t, "attestations: forward")
	w.needSluice(t)
	for _, form := range forms {
		original := needBuilder(t, form.builder).mustBuild(t, newApplication(t, 53), bothPlatforms, push(w.via+"/"+form.name+":1")...)
		if got := get(t, w.direct, form.name, "1").Digest; got != original {
			t.Errorf("forwarded as %s, sent as %s", got, original)
		}
		if n := len(w.upstream.manifests(t, form.name)); n != 5 {
			t.Errorf("two images, two attestations and their index are 5 manifests, here %d", n)
		}
	}
}

// The number of requests that reach upstream, from its own access log.
func TestAPushCostsUpstreamHardlyMoreThanOneWithoutAttestations(t *testing.T) {
	scanner := shared(t, bench.scanner)
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			k, w, dir := needBuilder(t, form.builder), newWorld(t), newApplication(t, 54)
			w.needSluice(t)
			attested := []string{"--provenance=mode=max", "--attest", "type=sbom,generator=" + scanner}
			// Each to a registry of its own, since BuildKit would mount what it finds in one.
			others := make([]*registry, 2)
			for i := range others {
				other, err := startRegistry(scratch(t))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(other.proc.stop)
				others[i] = other
			}
			k.mustBuild(t, dir, bothPlatforms, append(attested, push(w.via+"/app:1")...)...)
			k.mustBuild(t, dir, bothPlatforms, withoutAttestations(others[0].host+"/app:1")...)
			k.mustBuild(t, dir, bothPlatforms, append(attested, push(others[1].host+"/app:1")...)...)
			through, clean, all := w.upstream.requests(t, "app"), others[0].requests(t, "app"), others[1].requests(t, "app")
			t.Logf("requests at upstream: through Sluice %d, the same without attestations %d, with attestations and without Sluice %d", len(through), len(clean), len(all))
			// Of each attestation upstream is asked for its manifest and its config; one upload session that was
			// opened to learn the credentials' authority may be cancelled.
			if len(through) > len(clean)+6 {
				t.Errorf("through Sluice:\n%s\nclean:\n%s", strings.Join(through, "\n"), strings.Join(clean, "\n"))
			}
		})
	}
}

func TestWhatIsDeletedThroughSluiceIsGoneUpstream(t *testing.T) {
	crane, regctl, w := tool(t, "crane"), tool(t, "regctl"), newWorld(t)
	for client, remove := range map[string]func(ref string){
		"skopeo": func(ref string) { run(t, tool(t, "skopeo"), "delete", "--tls-verify=false", "docker://"+ref) },
		"regctl": func(ref string) { run(t, append([]string{regctl, "tag", "rm", ref}, plain(ref)...)...) },
		"crane": func(ref string) {
			digest := strings.TrimSpace(run(t, crane, "digest", "--insecure", ref))
			run(t, crane, "delete", "--insecure", strings.TrimSuffix(ref, ":1")+"@"+digest)
		},
	} {
		needBuilder(t, "new").mustBuild(t, newApplication(t, 55), "linux/amd64", push(w.via+"/"+client+":1")...)
		remove(w.via + "/" + client + ":1")
		for _, host := range []string{w.direct, w.via} {
			absent(t, host, client, "1")
		}
		// The same build again: nothing remembers too much.
		needBuilder(t, "new").mustBuild(t, newApplication(t, 55), "linux/amd64", push(w.via+"/"+client+":1")...)
		get(t, w.direct, client, "1")
		get(t, w.via, client, "1")
	}
}
