//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// compileWithin is for a cold build of the program with all that it links.
const compileWithin = 15 * time.Minute

var fromLine = regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?(\S+) AS build$`)

// loadBaseImage makes the image that the Dockerfile begins with, under its name: the real one cannot be pulled where
// the tests run. This one has this machine's Go, a shell, the certificate authorities, and as a module proxy
// a folder with exactly the modules that go.mod names. The compiler's cache comes along, so that the program is
// compiled once and not for every image.
func loadBaseImage(t *testing.T, e *engine) {
	t.Helper()
	dockerfile, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	from := fromLine.FindStringSubmatch(string(dockerfile))
	if from == nil {
		t.Fatal("the Dockerfile has no stage called build")
	}
	busybox, dir := tool(t, "busybox"), scratch(t)
	root := filepath.Join(dir, "root")
	for _, sub := range []string{"bin", "etc/ssl/certs", "tmp", "modules", "root/.cache"} {
		if err := os.MkdirAll(filepath.Join(root, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	goTool := func(env []string, args ...string) string {
		t.Helper()
		out, err := tryRunWithin(compileWithin, "..", goEnvironment(env...), append([]string{"go"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	run(t, "cp", busybox, filepath.Join(root, "bin/busybox"))
	run(t, "cp", "/etc/ssl/certs/ca-certificates.crt", filepath.Join(root, "etc/ssl/certs/"))
	for _, applet := range []string{"sh", "mkdir"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", applet)); err != nil {
			t.Fatal(err)
		}
	}
	modules := filepath.Join(dir, "modules")
	// What is here already, and the rest from where everything comes from: modules that only other systems need.
	proxy := "file://" + goTool(nil, "env", "GOMODCACHE") + "/cache/download," + goTool(nil, "env", "GOPROXY")
	goTool([]string{"GOMODCACHE=" + modules, "GOFLAGS=-modcacherw", "GOPROXY=" + proxy}, "mod", "download")
	run(t, "mv", filepath.Join(modules, "cache", "download"), filepath.Join(root, "modules", "download"))

	cache := filepath.Join(bench.cache, "gocache")
	goTool([]string{"GOCACHE=" + cache, "CGO_ENABLED=0"}, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(dir, "sluice"), "./cmd/sluice")
	goTool([]string{"GOCACHE=" + cache}, "clean", "-testcache")

	// One stream, without a copy of the Go release on the way.
	archive := filepath.Join(dir, "base.tar")
	run(t, "tar", "-c", "-f", archive, "-C", root, ".")
	run(t, "tar", "-r", "-f", archive, "--transform=s,^\\.,./usr/local/go,", "--exclude=./test", "--exclude=./doc", "--exclude=./api", "-C", goTool(nil, "env", "GOROOT"), ".")
	run(t, "tar", "-r", "-f", archive, "--transform=s,^\\.,./root/.cache/go-build,", "-C", cache, ".")
	e.run(t, "import",
		"--change", "ENV PATH=/usr/local/go/bin:/bin HOME=/root GOPROXY=file:///modules/download GONOSUMDB=* GOFLAGS=-mod=mod GOTOOLCHAIN=local GOPATH=/go",
		archive, from[1])
	if err := os.Remove(archive); err != nil {
		t.Error(err)
	}
}
