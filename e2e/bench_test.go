//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// A workbench holds what is expensive to start and shared by all tests: builders, Docker engines, a
// registry with images to copy from. Everything is started when a test first asks for it and ended
// when the last one is through. Upstream registries and Sluice are not here: each test has its own.
type workbench struct {
	dir   string // everything lives below it; short, because unix socket paths end at 108 bytes
	cache string // what tools/build.sh made

	mu      sync.Mutex
	running []*process
	logins  map[string]login // by host:port

	sluice   func() (string, error)
	shifted  func() (string, error)
	scanner  func() (string, error)
	source   func() (*registry, error)
	gateway  func() (*gateway, error)
	images   func() (*images, error)
	builders map[string]func() (*builder, error)
	classic  func() (*engine, error)
	modern   func() (*engine, error)
	// containers runs what it has: an engine with networks.
	containers func() (*engine, error)
}

var bench *workbench

func TestMain(m *testing.M) {
	os.Exit(runWithBench(m))
}

func runWithBench(m *testing.M) int {
	dir, err := os.MkdirTemp("", "sluice-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	cache := os.Getenv("SLUICE_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		cache = filepath.Join(base, "sluice")
	}
	b := &workbench{dir: dir, cache: filepath.Join(cache, "tools"), logins: map[string]login{}}
	b.sluice = sync.OnceValues(b.buildSluice)
	b.shifted = sync.OnceValues(b.buildShifted)
	b.source = sync.OnceValues(func() (*registry, error) { return startRegistry(filepath.Join(b.dir, "source")) })
	b.gateway = sync.OnceValues(b.startGateway)
	b.scanner = sync.OnceValues(b.buildScanner)
	b.images = sync.OnceValues(b.buildImages)
	b.builders = map[string]func() (*builder, error){}
	for _, k := range []struct{ name, tool string }{{"new", "buildkit33"}, {"old", "buildkit30"}, {"second", "buildkit33"}} {
		b.builders[k.name] = sync.OnceValues(func() (*builder, error) { return b.startBuilder(k.name, k.tool) })
	}
	b.classic = sync.OnceValues(b.startClassicEngine)
	b.modern = sync.OnceValues(b.startModernEngine)
	b.containers = sync.OnceValues(b.startContainersEngine)
	bench = b
	for _, sub := range []string{"docker-config", "buildx-config", "run", "tmp", "logs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	if err := b.saveLogins(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// skopeo, podman and buildah look in the home folder only.
	if err := os.Symlink("docker-config", filepath.Join(dir, ".docker")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	if onFleet() {
		if err := leaveOut(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	b.stopAll()
	if os.Getenv("SLUICE_E2E_KEEP") != "" {
		fmt.Println("kept", dir)
		return code
	}
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
	}
	return code
}

func (b *workbench) start(d daemon) (*process, error) {
	p, err := d.start(filepath.Join(b.dir, "logs"))
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running = append(b.running, p)
	return p, nil
}

func (b *workbench) stopAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range slices.Backward(b.running) {
		p.stop()
	}
	b.running = nil
}

// Where each program comes from: a folder of the cache, or Debian ("" = the search path).
var programs = map[string]string{
	"registry": "registry", "crane": "crane", "regctl": "regctl", "oras": "oras", "buildx": "buildx",
	"cosign2": "cosign2/cosign", "cosign3": "cosign3/cosign",
	"docker": "docker", "modern-dockerd": "dockerd/dockerd", "ctr": "containerd", "classic-ctr": "debian/usr/bin/ctr",
	"classic-dockerd": "debian/usr/sbin/dockerd", "classic-docker": "debian/usr/bin/docker", "runc": "debian/usr/sbin/runc", "promtool": "debian/usr/bin/promtool",
	"haproxy": "debian/usr/sbin/haproxy", "versitygw": "versitygw",
	"skopeo": "", "podman": "", "buildah": "", "aws": "", "docker-credential-ecr-login": "",
	"docker-compose": "", "compose": "compose/cmd", "busybox": "", "helm": "helm", "systemd-analyze": "",
}

// find returns the path of a program, or why it cannot be used.
func (b *workbench) find(name string) (path, why string) {
	where, known := programs[name]
	switch {
	case !known:
		return "", "no such program in the table: " + name
	case where == "":
		path, err := exec.LookPath(name)
		if err != nil {
			return "", name + " is not installed (make setup)"
		}
		return path, ""
	case strings.Contains(where, "/"):
		path = filepath.Join(b.cache, where)
	default:
		path = filepath.Join(b.cache, where, name)
	}
	if _, err := os.Stat(path); err != nil {
		return "", path + " is missing (make setup)"
	}
	return path, ""
}

// tool is the path of a program. Without it the test is skipped.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, why := bench.find(name)
	if why != "" {
		unavailable(t, why)
	}
	return path
}

// unavailable skips a test that this machine cannot run. CI has everything: there it is a failure.
func unavailable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal("cannot run, and CI skips nothing: " + why)
	}
	t.Skip(why)
}

// An errUnavailable is why something shared cannot be had here, as opposed to a failure.
type errUnavailable string

func (e errUnavailable) Error() string { return string(e) }

// shared resolves something of the workbench: what cannot be had skips the test, what broke fails it.
func shared[T any](t testing.TB, get func() (T, error)) T {
	t.Helper()
	v, err := get()
	var why errUnavailable
	if errors.As(err, &why) {
		unavailable(t, string(why))
	}
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// need is tool for code that builds the workbench itself.
func (b *workbench) need(name string) (string, error) {
	path, why := b.find(name)
	if why != "" {
		return "", errUnavailable(why)
	}
	return path, nil
}

func needRoot() error {
	if os.Geteuid() != 0 {
		return errUnavailable("builders and engines need root here")
	}
	return nil
}

func (b *workbench) buildSluice() (string, error) {
	out := filepath.Join(b.dir, "sluice")
	_, err := tryRunIn("..", goEnvironment(), "go", "build", "-o", out, "./cmd/sluice")
	return out, err
}

// goEnvironment adds the developer's own Go caches, which the tests' own HOME would hide.
func goEnvironment(more ...string) []string {
	env := []string{"HOME=" + os.Getenv("HOME")}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "GO") || strings.HasPrefix(kv, "CGO_") || strings.HasPrefix(kv, "XDG_CACHE_HOME=") {
			env = append(env, kv)
		}
	}
	return append(env, more...)
}

// buildScanner makes the SBOM scanner's image and pushes it to the source registry.
func (b *workbench) buildScanner() (string, error) {
	src, err := b.source()
	if err != nil {
		return "", err
	}
	bk, err := b.builders["new"]()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(b.dir, "scanner")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if _, err := tryRunIn(".", goEnvironment("CGO_ENABLED=0"), "go", "build", "-trimpath", "-ldflags=-s -w",
		"-o", filepath.Join(dir, "scanner"), "./scanner"); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY scanner /scanner\nENTRYPOINT [\"/scanner\"]\n"), 0o644); err != nil {
		return "", err
	}
	ref := src.host + "/scanner:1"
	_, err = tryRun(bk.buildx, "build", "--builder", bk.name, "--provenance=false", "--push", "-t", ref, dir)
	return ref, err
}
