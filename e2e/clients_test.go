//go:build e2e

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// A copier moves a whole image, all platforms and attestations, from one registry to another.
type copier struct {
	name string
	// needs are the programs it consists of.
	needs []string
	copy  func(t testing.TB, from, to string)
	// rewrites says that it makes an index of its own, so that the original's digest is not the source's.
	rewrites bool
}

func host(ref string) string { return ref[:strings.IndexByte(ref, '/')] }

// plain lets regctl talk http to the hosts of the references.
func plain(refs ...string) []string {
	var args []string
	for _, r := range refs {
		args = append(args, "--host", "reg="+host(r)+",tls=disabled")
	}
	return args
}

// isolated keeps podman and buildah, which share a library, away from the machine's own images.
func isolated(t testing.TB, program string) []string {
	dir := scratch(t)
	return []string{tool(t, program), "--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
}

func copiers() []copier {
	return []copier{
		{name: "crane copy", needs: []string{"crane"}, copy: func(t testing.TB, from, to string) {
			run(t, tool(t, "crane"), "copy", "--insecure", from, to)
		}},
		{name: "regctl image copy", needs: []string{"regctl"}, copy: func(t testing.TB, from, to string) {
			run(t, append([]string{tool(t, "regctl"), "image", "copy", from, to}, plain(from, to)...)...)
		}},
		{name: "regctl image copy with referrers and digest tags", needs: []string{"regctl"}, copy: func(t testing.TB, from, to string) {
			run(t, append([]string{tool(t, "regctl"), "image", "copy", "--referrers", "--digest-tags", from, to}, plain(from, to)...)...)
		}},
		{name: "oras cp", needs: []string{"oras"}, copy: func(t testing.TB, from, to string) {
			run(t, tool(t, "oras"), "cp", "--from-plain-http", "--to-plain-http", from, to)
		}},
		{name: "oras cp recursive", needs: []string{"oras"}, copy: func(t testing.TB, from, to string) {
			run(t, tool(t, "oras"), "cp", "--recursive", "--from-plain-http", "--to-plain-http", from, to)
		}},
		{name: "skopeo copy all", needs: []string{"skopeo"}, copy: func(t testing.TB, from, to string) {
			run(t, tool(t, "skopeo"), "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+from, "docker://"+to)
		}},
		{name: "imagetools create", needs: []string{"buildx"}, copy: func(t testing.TB, from, to string) {
			k := needBuilder(t, "new")
			run(t, k.buildx, "imagetools", "create", "--builder", k.name, "--tag", to, from)
		}},
		{name: "buildah manifest push", needs: []string{"buildah"}, rewrites: true, copy: func(t testing.TB, from, to string) {
			buildah := isolated(t, "buildah")
			run(t, append(buildah, "manifest", "create", "list")...)
			run(t, append(buildah, "manifest", "add", "--all", "--tls-verify=false", "list", "docker://"+from)...)
			for range 2 { // a second push of the same list
				run(t, append(buildah, "manifest", "push", "--all", "--tls-verify=false", "--format", "oci", "list", "docker://"+to)...)
			}
		}},
		{name: "podman manifest push", needs: []string{"podman"}, rewrites: true, copy: func(t testing.TB, from, to string) {
			podman := isolated(t, "podman")
			run(t, append(podman, "manifest", "create", "list")...)
			run(t, append(podman, "manifest", "add", "--all", "--tls-verify=false", "list", "docker://"+from)...)
			run(t, append(podman, "manifest", "push", "--all", "--tls-verify=false", "--format", "oci", "list", "docker://"+to)...)
		}},
		{name: "crane push of a layout, which nests the index", needs: []string{"crane"}, rewrites: true, copy: func(t testing.TB, from, to string) {
			layout := filepath.Join(scratch(t), "layout")
			run(t, tool(t, "crane"), "pull", "--insecure", "--format=oci", from, layout)
			for range 2 {
				run(t, tool(t, "crane"), "push", "--insecure", "--index", layout, to)
			}
		}},
	}
}

func TestEveryCopierEndsWhereACopyWithoutAttestationsEnds(t *testing.T) {
	for _, c := range copiers() {
		t.Run(c.name, func(t *testing.T) {
			for _, need := range c.needs {
				tool(t, need)
			}
			m := needImages(t)
			for i, view := range []string{"upstream", "original"} {
				w := newWorld(t, "view: "+view)
				for j, form := range forms {
					if !paired(i, j) {
						continue
					}
					t.Run(view+" "+form.name, func(t *testing.T) {
						repository := "app-" + form.name
						c.copy(t, m.clean[form.name], w.direct+"/"+repository+"-reference:1")
						c.copy(t, m.attested[form.name], w.via+"/"+repository+":1")
						w.same(t, repository, repository+"-reference")
						if !c.rewrites {
							c.copy(t, m.attested[form.name], w.via+"/"+repository+":1")
							w.same(t, repository, repository+"-reference")
							assertView(t, w, view, repository, "1", get(t, m.host, "attested", form.name).Digest)
						}
					})
				}
			}
		})
	}
}

// What was pushed through Sluice can be read by everybody: by tag from both sides, and by the original's digest
// through Sluice.
func TestEveryClientReadsWhatBuildKitPushed(t *testing.T) {
	readers := []struct {
		name  string
		needs string
		read  func(t testing.TB, ref, dir string)
	}{
		{"crane pull", "crane", func(t testing.TB, ref, dir string) {
			run(t, tool(t, "crane"), "pull", "--insecure", "--format=oci", ref, dir)
		}},
		{"regctl image export", "regctl", func(t testing.TB, ref, dir string) {
			run(t, append([]string{tool(t, "regctl"), "image", "export", ref, dir + ".tar"}, plain(ref)...)...)
		}},
		{"oras cp to a layout", "oras", func(t testing.TB, ref, dir string) {
			run(t, tool(t, "oras"), "cp", "--from-plain-http", "--to-oci-layout", ref, dir+":1")
		}},
		{"skopeo copy all", "skopeo", func(t testing.TB, ref, dir string) {
			run(t, tool(t, "skopeo"), "copy", "--all", "--src-tls-verify=false", "docker://"+ref, "dir:"+dir)
		}},
		{"podman pull", "podman", func(t testing.TB, ref, _ string) {
			run(t, append(isolated(t, "podman"), "pull", "--tls-verify=false", ref)...)
		}},
		{"buildah pull", "buildah", func(t testing.TB, ref, _ string) {
			run(t, append(isolated(t, "buildah"), "pull", "--tls-verify=false", ref)...)
		}},
		{"imagetools inspect", "buildx", func(t testing.TB, ref, _ string) {
			k := needBuilder(t, "new")
			run(t, k.buildx, "imagetools", "inspect", "--builder", k.name, ref)
		}},
		{"BuildKit FROM", "buildx", func(t testing.TB, ref, dir string) {
			k := needBuilder(t, "new")
			runIn(t, "", nil, "sh", "-c", fmt.Sprintf("mkdir -p %s && printf 'FROM %s\\nCOPY Dockerfile /second\\n' >%s/Dockerfile", dir, ref, dir))
			k.mustBuild(t, dir, bothPlatforms, "--output", "type=oci,dest="+dir+".tar")
		}},
	}
	for i, view := range []string{"upstream", "original"} {
		for j, form := range forms {
			if !paired(i, j) {
				continue
			}
			w := newWorld(t, "view: "+view)
			digest := needBuilder(t, form.builder).mustBuild(t, newApplication(t, 30), bothPlatforms, push(w.via+"/app:1")...)
			for _, r := range readers {
				t.Run(strings.Join([]string{r.name, view, form.name}, " "), func(t *testing.T) {
					tool(t, r.needs)
					dir := scratch(t)
					for n, ref := range []string{w.via + "/app:1", w.direct + "/app:1", w.via + "/app@" + digest} {
						r.read(t, ref, filepath.Join(dir, fmt.Sprint(n)))
					}
				})
			}
			if w.through() { // crane reads every layer; of attestations it disapproves, so only here
				run(t, tool(t, "crane"), "validate", "--insecure", "--remote", w.direct+"/app:1")
			}
		}
	}
}
