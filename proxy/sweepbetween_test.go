package proxy_test

import (
	"context"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/folder"
	"sluice/proxy/proxytest"
)

// A client that is told that an attestation manifest is there does not send it, so a sweep in the next moment must not take
// it: neither one whose records expire in that sweep, nor one of a push that broke off long ago.
func TestASweepBetweenALookAndTheIndexTakesNothing(t *testing.T) {
	const days = 10 * 24 * time.Hour
	dir, at := t.TempDir(), time.Now().Add(-days)
	var r *rig
	sweeps := 0
	r = newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Store), storage(folder.New(dir, 0)),
		clock(func() time.Time { return at }), with(func(c *config.Config) { c.Store.Retention = 5 }),
		before(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if q.Method == http.MethodPut && strings.HasSuffix(q.URL.Path, "/manifests/again") {
					sweeps++
					r.proxy.Sweep(context.Background())
				}
				next.ServeHTTP(w, q)
			})
		}))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)

	// Ten days pass, in which quarantine was swept, and what is stored not, since its turn came at the wrong moment.
	if err := r.storage.Delete(t.Context(), "/quarantine"); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, at, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	at = at.Add(days)
	r.push(proxytest.BuildKit, "app", "again", tree)
	r.proxy.Sweep(context.Background())
	back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Equal(tree); err != nil {
		t.Error(err)
	}
	if sweeps == 0 {
		t.Error("no sweep came in between")
	}
}
