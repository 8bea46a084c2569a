//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// An engine is a running Docker daemon with its client.
type engine struct {
	host       string // DOCKER_HOST
	docker     string
	containerd string // its containerd's socket
}

func (e *engine) run(t testing.TB, args ...string) string {
	t.Helper()
	return run(t, append([]string{e.docker, "--host", e.host}, args...)...)
}

// Debian's Docker 20.10 keeps images in its own store and pushes schema 2, one platform at a time.
func (b *workbench) startClassicEngine() (*engine, error) {
	return b.startEngine("classic", "classic-dockerd", "classic-docker", "", false)
}

// The modern engine keeps images in containerd, as it does by default since 29, and pushes whole indexes.
func (b *workbench) startModernEngine() (*engine, error) {
	ctr, err := b.need("ctr")
	if err != nil {
		return nil, err
	}
	return b.startEngine("modern", "modern-dockerd", "docker", filepath.Dir(ctr), false)
}

// The engine that runs containers: Docker 20.10, with networks of its own.
func (b *workbench) startContainersEngine() (*engine, error) {
	for _, program := range []string{"iptables", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, errUnavailable(program + " is missing (make setup)")
		}
	}
	return b.startEngine("containers", "classic-dockerd", "classic-docker", "", true)
}

// dockerd starts the containerd and the runc that it finds first: those of containerd's folder, then Debian's.
func (b *workbench) startEngine(name, daemonTool, clientTool, containerd string, containers bool) (*engine, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	dockerd, err := b.need(daemonTool)
	if err != nil {
		return nil, err
	}
	docker, err := b.need(clientTool)
	if err != nil {
		return nil, err
	}
	runc, err := b.need("runc")
	if err != nil {
		return nil, err
	}
	path := []string{filepath.Join(filepath.Dir(runc), "..", "bin"), filepath.Dir(runc), os.Getenv("PATH")}
	if containerd != "" {
		path = append([]string{containerd}, path...)
	}
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "daemon.json") // an empty one, so that /etc/docker is not read
	if err := os.WriteFile(config, []byte("{}"), 0o644); err != nil {
		return nil, err
	}
	e := &engine{
		host: "unix://" + filepath.Join(dir, "sock"), docker: docker,
		containerd: filepath.Join(dir, "exec", "containerd", "containerd.sock"),
	}
	argv := []string{
		dockerd, "--config-file", config, "--data-root", filepath.Join(dir, "data"), "--exec-root", filepath.Join(dir, "exec"),
		"--pidfile", filepath.Join(dir, "pid"), "--host", e.host,
	}
	if containers {
		argv = append([]string{"sh", "-c", `ip link set lo up && exec "$0" "$@"`}, argv...)
	} else { // no container runs here, so the machine's network is left alone
		argv = append(argv, "--iptables=false", "--ip6tables=false", "--bridge=none")
	}
	_, err = b.start(daemon{
		name: "dockerd-" + name, argv: argv, env: []string{"PATH=" + strings.Join(path, ":")},
		privateMounts: true, privateNetwork: containers,
		ready: commandReady(docker, "--host", e.host, "info"),
	})
	return e, err
}

func TestModernDockerPushesAndPulls(t *testing.T) {
	buildx := tool(t, "buildx")
	for _, view := range []string{"upstream", "original"} {
		t.Run(view, func(t *testing.T) {
			e, w, dir := shared(t, bench.modern), newWorld(t, "view: "+view), newApplication(t, 20)
			build := func(ref string, args ...string) {
				argv := []string{buildx, "build", "--builder", "default", "--platform", bothPlatforms, "--build-arg", "SOURCE_DATE_EPOCH=1700000000"}
				runIn(t, "", []string{"DOCKER_HOST=" + e.host}, append(append(argv, args...), dir)...)
			}
			through, reference := w.via+"/app:1", w.direct+"/reference:1"
			build(through, "--provenance=mode=max", "--output", "type=image,name="+through)
			build(reference, "--provenance=false", "--output", "type=image,oci-mediatypes=true,name="+reference)
			original := strings.TrimSpace(e.run(t, "image", "inspect", "--format", "{{.Id}}", through))
			clean := strings.TrimSpace(e.run(t, "image", "inspect", "--format", "{{.Id}}", reference))
			if original == clean {
				t.Fatal("the engine made no attestations, so this shows nothing")
			}
			e.run(t, "push", reference)
			for range 2 {
				e.run(t, "push", through)
				w.same(t, "app", "reference")
				assertView(t, w, view, "app", "1", original)
			}

			for _, ref := range []string{through, w.via + "/app@" + original} {
				e.run(t, "image", "rm", "--force", through)
				e.run(t, "pull", ref)
			}
			if w.through() {
				e.run(t, "pull", w.direct+"/app:1")
			}
			e.run(t, "image", "prune", "--all", "--force")
		})
	}
}

// `docker buildx build --push` with the engine's own builder.
func TestModernDockerBuildsAndPushesInOneGo(t *testing.T) {
	buildx, e, w, dir := tool(t, "buildx"), shared(t, bench.modern), newWorld(t), newApplication(t, 21)
	for _, args := range [][]string{
		push(w.via + "/app:1"), withoutAttestations(w.direct + "/reference:1"),
	} {
		argv := []string{buildx, "build", "--builder", "default", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"}
		runIn(t, "", []string{"DOCKER_HOST=" + e.host}, append(append(argv, args...), dir)...)
	}
	w.same(t, "app", "reference")
}

func TestClassicDockerPushesAndPulls(t *testing.T) {
	for _, view := range []string{"upstream", "original"} {
		t.Run(view, func(t *testing.T) {
			e, w, dir := shared(t, bench.classic), newWorld(t, "view: "+view), newApplication(t, 22)
			through, reference := w.via+"/app:1", w.direct+"/reference:1"
			runIn(t, "", []string{"DOCKER_BUILDKIT=0"}, e.docker, "--host", e.host, "build", "--build-arg", "TARGETARCH=amd64", "--tag", through, dir)
			e.run(t, "tag", through, reference)
			id := e.run(t, "image", "inspect", "--format", "{{.Id}}", through)
			e.run(t, "push", reference)
			for range 2 {
				e.run(t, "push", through)
				w.same(t, "app", "reference")
			}
			e.run(t, "image", "rm", "--force", through, reference)
			e.run(t, "pull", through)
			if got := e.run(t, "image", "inspect", "--format", "{{.Id}}", through); got != id {
				t.Errorf("pulled %s, pushed %s", got, id)
			}
		})
	}
}

// An engine that knows nothing of attestations pulls what BuildKit pushed, by tag and by the original's digest.
func TestClassicDockerPullsWhatBuildKitPushed(t *testing.T) {
	for i, view := range []string{"upstream", "original"} {
		for j, form := range forms {
			if !paired(i, j) {
				continue
			}
			t.Run(view+" "+form.name, func(t *testing.T) {
				e, w, k := shared(t, bench.classic), newWorld(t, "view: "+view), needBuilder(t, form.builder)
				for n, platforms := range []string{"linux/amd64", bothPlatforms} {
					repository := []string{"one", "two"}[n]
					digest := k.mustBuild(t, newApplication(t, uint64(23+n)), platforms, push(w.via+"/"+repository+":1")...)
					e.run(t, "pull", w.via+"/"+repository+":1")
					e.run(t, "pull", w.via+"/"+repository+"@"+digest)
					e.run(t, "pull", w.direct+"/"+repository+":1")
				}
			})
		}
	}
}

func TestContainerdPushesAndPulls(t *testing.T) {
	for _, c := range []struct {
		name, ctr string
		engine    func() (*engine, error)
		fetch     []string // brings every platform and attestation of an image, without unpacking
	}{
		{"2.2", "ctr", bench.modern, []string{"images", "pull", "--plain-http", "--all-platforms", "--local"}},
		// 1.6 cannot unpack an attestation, so it does not pull all platforms of anything that has one.
		{"1.6", "classic-ctr", bench.classic, []string{"content", "fetch", "--plain-http", "--all-platforms"}},
	} {
		for i, view := range []string{"upstream", "original"} {
			for j, form := range forms {
				if !paired(i, j) {
					continue
				}
				t.Run(strings.Join([]string{c.name, view, form.name}, " "), func(t *testing.T) {
					m, ctr, e, w := needImages(t), tool(t, c.ctr), shared(t, c.engine), newWorld(t, "view: "+view)
					run := func(args ...string) {
						t.Helper()
						// Reading its own content from containerd, ctr 1.6 now and then meets an end too early, also when it pushes
						// past Sluice. An error of a registry does not read so.
						const own = "rpc error: code = Internal desc = unexpected EOF"
						for try := 1; ; try++ {
							_, err := tryRun(append([]string{ctr, "--address", e.containerd, "--namespace", "e2e"}, args...)...)
							if err == nil {
								return
							}
							if c.name != "1.6" || try == 3 || !strings.Contains(err.Error(), own) {
								t.Fatal(err)
							}
							t.Log("again: ", err)
						}
					}
					through, reference := w.via+"/app:1", w.direct+"/reference:1"
					for _, copied := range [][2]string{{m.attested[form.name], through}, {m.clean[form.name], reference}} {
						run(append(c.fetch, copied[0])...)
						run("images", "push", "--plain-http", copied[1], copied[0])
					}
					run("images", "push", "--plain-http", through, m.attested[form.name])
					w.same(t, "app", "reference")
					original := get(t, m.host, "attested", form.name).Digest
					assertView(t, w, view, "app", "1", original)
					for _, ref := range []string{through, w.via + "/app@" + original, w.direct + "/app:1"} {
						run("images", "pull", "--plain-http", ref)
						run("images", "rm", "--sync", ref)
					}
				})
			}
		}
	}
}
