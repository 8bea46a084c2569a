//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A world is one test's upstream registry with Sluice in front of it: one process, or with SLUICE_E2E_FLEET=1 a fleet.
type world struct {
	upstream *registry
	sluice   *sluice // nil when SLUICE_E2E_DIRECT leaves it out
	via      string  // host:port to push to
	direct   string  // host:port of the upstream
}

// newWorld starts both. settings are lines of config.yml beyond listening, upstream and storage.
func newWorld(t testing.TB, settings ...string) *world {
	t.Helper()
	return newWorldWith(t, "", "credentials: anonymous", settings...)
}

// newWorldWith takes further lines of the upstream registry's configuration, and how Sluice signs in there.
func newWorldWith(t testing.TB, registryConfig, credentials string, settings ...string) *world {
	t.Helper()
	upstream, err := startRegistryWith(filepath.Join(scratch(t), "upstream"), registryConfig)
	if upstream != nil && upstream.proc != nil {
		t.Cleanup(upstream.proc.stop)
	}
	if err != nil {
		shared(t, func() (any, error) { return nil, err })
	}
	w := &world{upstream: upstream, via: upstream.host, direct: upstream.host}
	if !leftOutSluice() {
		w.sluice = startSluice(t, upstream, credentials, settings...)
		w.via = w.sluice.host
	}
	return w
}

func leftOutSluice() bool { return os.Getenv("SLUICE_E2E_DIRECT") != "" }

// scratch is a folder of the test with a short path, since t.TempDir carries the test's whole name.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(bench.dir, "t")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// through says that Sluice is in between. Without it what the tests claim about Sluice does not hold.
func (w *world) through() bool { return w.sluice != nil }

// needSluice skips a test that has no meaning without Sluice.
func (w *world) needSluice(t testing.TB) {
	t.Helper()
	if !w.through() {
		t.Skip("SLUICE_E2E_DIRECT leaves Sluice out, and this test is about Sluice alone")
	}
}

// same asserts what Sluice promises: that upstream's repository is what the reference push, which had no
// attestations and did not pass Sluice, made of the other one: tag by tag, manifest by manifest.
func (w *world) same(t testing.TB, repository, reference string) {
	t.Helper()
	if !w.through() {
		return
	}
	w.sameTags(t, repository, reference)
	if got, want := w.upstream.manifests(t, repository), w.upstream.manifests(t, reference); !slices.Equal(got, want) {
		t.Errorf("%s has the manifests\n\t%s\nthe reference push made\n\t%s", repository, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	assertNothingLeaked(t, w.upstream)
}

func (w *world) sameTags(t testing.TB, repository, reference string) {
	t.Helper()
	tags, want := w.upstream.tags(t, repository), w.upstream.tags(t, reference)
	if !slices.Equal(tags, want) {
		t.Errorf("%s has the tags %v, the reference push made %v", repository, tags, want)
	}
	for _, tag := range want {
		got, err := fetch(w.direct, repository, tag)
		if err != nil {
			t.Error(err)
			continue
		}
		if ref := get(t, w.direct, reference, tag); got.Digest != ref.Digest {
			t.Errorf("%s:%s is %s (%s), the reference push made %s (%s):\n%s\n%s", repository, tag, got.Digest, got.MediaType, ref.Digest, ref.MediaType, got.Bytes, ref.Bytes)
		} else if got.MediaType != ref.MediaType {
			t.Errorf("%s:%s is served as %s, the reference as %s", repository, tag, got.MediaType, ref.MediaType)
		}
	}
}
