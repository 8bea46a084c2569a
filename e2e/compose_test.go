//go:build e2e

package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The demo as a reader of the README starts it, with both versions of Compose: what `push` prints is what the
// demo is for.
func TestComposeDemoShowsWhatSluiceIsFor(t *testing.T) {
	programs := []struct {
		name, tool string
		env        []string
	}{
		{"Compose 1.29", "docker-compose", nil},
		{"Compose 2", "compose", []string{"COMPOSE_BAKE=false"}},
	}
	for _, c := range programs {
		tool(t, c.tool)
	}
	e := shared(t, bench.containers)
	loadBaseImage(t, e)
	for _, c := range programs {
		t.Run(c.name, func(t *testing.T) {
			env := append([]string{"DOCKER_HOST=" + e.host, "COMPOSE_PROJECT_NAME=demo"}, c.env...)
			compose := func(args ...string) (string, error) {
				return tryRunWithin(compileWithin, "..", env, append([]string{tool(t, c.tool), "--ansi", "never"}, args...)...)
			}
			t.Cleanup(func() {
				if _, err := compose("down", "--volumes", "--rmi", "all"); err != nil {
					t.Error(err)
				}
			})
			if _, err := compose("up", "--build", "--exit-code-from", "push"); err != nil {
				logs, _ := compose("logs", "--no-color")
				t.Fatalf("%v\n%s", err, logs)
			}
			id, err := compose("ps", "-a", "-q", "push")
			if err != nil || strings.TrimSpace(id) == "" {
				t.Fatalf("no container of push: %v", err)
			}
			assertDemo(t, e.run(t, "logs", strings.TrimSpace(id)))
			assertHardened(t, e, c.name)
		})
	}
}

var (
	tableRow   = regexp.MustCompile(`(?m)^  (\S+) +(Image Index|Image) +(\d+\.\d\d) +(sha256:[0-9a-f]{64})$`)
	listedLine = regexp.MustCompile(`(?m)^linux/(?:amd64|arm64) .*https://(\S+)`)
)

// assertDemo reads what the demo prints: the same index of two images under the tag on one side, with two more
// untagged images of 0.01 MB on the other, and four statements that Sluice kept.
func assertDemo(t *testing.T, printed string) {
	t.Helper()
	direct, rest, ok := strings.Cut(printed, "Push through Sluice")
	through, kept, ok2 := strings.Cut(rest, "Nothing is lost")
	if !ok || !ok2 {
		t.Fatalf("the demo prints something else:\n%s", printed)
	}
	rows := func(part string) (tagged, untagged, tiny []string) {
		for _, m := range tableRow.FindAllStringSubmatch(part, -1) {
			switch {
			case m[1] != "-":
				tagged = append(tagged, m[1]+" "+m[2])
			case m[3] == "0.01":
				tiny = append(tiny, m[4])
			default:
				untagged = append(untagged, m[4])
			}
		}
		slices.Sort(untagged)
		return tagged, untagged, tiny
	}
	tagged, images, tiny := rows(direct)
	if !slices.Equal(tagged, []string{"1.0 Image Index"}) || len(images) != 2 || len(tiny) != 2 {
		t.Errorf("pushed directly: %v, images %v, 0.01 MB %v\n%s", tagged, images, tiny, printed)
	}
	taggedThrough, imagesThrough, tinyThrough := rows(through)
	if !slices.Equal(taggedThrough, tagged) || !slices.Equal(imagesThrough, images) || len(tinyThrough) != 0 {
		t.Errorf("pushed through Sluice: %v, images %v, 0.01 MB %v\n%s", taggedThrough, imagesThrough, tinyThrough, printed)
	}
	var types []string
	for _, m := range listedLine.FindAllStringSubmatch(kept, -1) {
		types = append(types, m[1])
	}
	slices.Sort(types)
	if want := []string{"slsa.dev/provenance/v1", "slsa.dev/provenance/v1", "spdx.dev/Document", "spdx.dev/Document"}; !slices.Equal(types, want) {
		t.Errorf("sluice attestations list shows %v, want %v\n%s", types, want, printed)
	}
}

// assertHardened asks the engine what it ran.
func assertHardened(t *testing.T, e *engine, name string) {
	t.Helper()
	image := strings.TrimSpace(e.run(t, "image", "inspect", "--format", "{{.Config.User}} {{if .Config.Healthcheck}}health{{end}} {{.Size}}", "sluice"))
	if !strings.HasPrefix(image, "65532:65532 health ") {
		t.Errorf("%s: the image runs as, with: %s", name, image)
	}
}

// The demo without Docker, one command: the same output.
func TestDemoWithoutDocker(t *testing.T) {
	assertDemo(t, run(t, shared(t, bench.sluice), "demo"))
}
