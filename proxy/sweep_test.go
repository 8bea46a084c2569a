package proxy_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// files lists the storage's objects below a folder whose path contains part.
func (r *rig) files(folder, part string) (found []string) {
	r.t.Helper()
	err := r.storage.Walk(context.Background(), folder, func(f storagedriver.FileInfo) error {
		if !f.IsDir() && strings.Contains(f.Path(), part) {
			found = append(found, f.Path())
		}
		return nil
	})
	if err != nil && !errors.As(err, &storagedriver.PathNotFoundError{}) {
		r.t.Fatal(err)
	}
	return found
}

func TestQuarantineEmptiesItselfAndLosesNothing(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			now := time.Now()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act), clock(func() time.Time { return now }))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			deleted := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Seed: 3, Build: 3})
			half := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Seed: 5, Build: 5})
			r.push(proxytest.BuildKit, "app", "1", tree)
			r.push(proxytest.BuildKit, "gone", "1", deleted)
			pushHalf(t, r, "half", "", half)
			if act == filters.Store {
				for _, m := range deleted.Attestations() {
					r.request(http.MethodDelete, "/v2/gone/manifests/"+m.Digest, nil).want(t, http.StatusAccepted)
				}
			}
			r.proxy.Sweep(context.Background())
			if len(r.files("/quarantine", "/half/")) == 0 {
				t.Fatal("what is younger than retention was swept")
			}
			now = now.Add(10 * 24 * time.Hour)
			r.proxy.Sweep(context.Background())
			if left := r.files("/quarantine", ""); len(left) > 0 {
				t.Errorf("left in quarantine: %v", left)
			}
			unclaimed := r.files("/attestations", "/_unclaimed/")
			if act == filters.Strip {
				if len(unclaimed) > 0 {
					t.Errorf("strip keeps %v", unclaimed)
				}
				return
			}
			for _, m := range half.Attestations() {
				for _, d := range append([]string{m.Digest}, m.Layers[0].Digest) {
					if !strings.Contains(strings.Join(unclaimed, "\n"), strings.TrimPrefix(d, "sha256:")) {
						t.Errorf("%s, which no index named, is not kept aside: %v", d, unclaimed)
					}
				}
			}
			for _, f := range unclaimed {
				if !strings.Contains(f, "/half/") {
					t.Errorf("kept aside although it was stored or deleted: %s", f)
				}
			}
			back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
			if err != nil {
				t.Fatalf("what store keeps cannot be read after the sweep: %v", err)
			}
			if err := back.Equal(tree); err != nil {
				t.Error(err)
			}
		})
	}
}
