package proxy_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// dataFolder is in memory where the machine has such a file system: the registry syncs every file.
func dataFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "sluice-embedded-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// What `sluice serve` without any setting is: a registry and a proxy in one process over one folder,
// which is all that a restart needs (I10).
func TestTheEmbeddedRegistryKeepsEverythingInItsFolder(t *testing.T) {
	for _, form := range []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact} {
		t.Run(string(form), func(t *testing.T) {
			dir := dataFolder(t)
			driver, err := filesystem.FromParameters(map[string]any{"rootdirectory": dir})
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, &proxytest.Upstream{}, storage(driver), with(func(c *config.Config) {
				c.Upstreams = config.Default().Upstreams
				c.Storage.Filesystem.RootDirectory = dir
			}))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true})
			plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
			other := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, Seed: 1, Build: 1})
			r.push(proxytest.BuildKit, "team/app", "1", tree)
			complete := func() {
				t.Helper()
				for ref, want := range map[string]*proxytest.Tree{"1": plain, tree.Digest(): tree} {
					back, err := proxytest.PullAll(context.Background(), r.url(), "team/app", ref)
					if err != nil {
						t.Fatal(err)
					}
					if err := back.Equal(want); err != nil {
						t.Errorf("%s: %v", ref, err)
					}
				}
				for _, image := range tree.Images() {
					if n := len(r.referrers("team/app", image.Digest).Manifests); n != 1 {
						t.Errorf("%d referrers of %s, want 1", n, image.Name)
					}
				}
			}
			complete()
			r.restart()
			complete()
			// An upload that began before the restart goes on after it.
			layer := other.Images()[0].Layers[0]
			location := r.request(http.MethodPatch, r.upload("team/app"), layer.Bytes()[:100], "Content-Range", "0-99").want(t, http.StatusAccepted).Header.Get("Location")
			r.restart()
			r.request(http.MethodPut, put(location, layer.Digest), layer.Bytes()[100:]).want(t, http.StatusCreated)
			res := r.push(proxytest.BuildKit, "team/app", "2", other)
			if len(res.Existing) == 0 {
				t.Error("the push does not find the layer that was uploaded before")
			}
			complete()
			if _, err := os.Stat(filepath.Join(dir, "registry", "docker")); err != nil {
				t.Errorf("the registry is not in the data folder: %v", err)
			}
		})
	}
}
