package proxy_test

import (
	"context"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// reassembled is what buildah makes of an index: only a statement says which image an attestation is about.
func reassembled() *proxytest.Tree {
	return proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Compact: true, Platforms: []string{"linux/amd64"}})
}

// I7: a statement that could not be read is no statement that says nothing. What is stored without its image is listed nowhere,
// and nobody pushes again what ended well.
func TestAnAttestationIsListedWhateverFailsWhileItsStatementIsRead(t *testing.T) {
	for _, kind := range []proxytest.Kind{proxytest.FaultError, proxytest.FaultPartial} {
		t.Run(string(kind), func(t *testing.T) {
			tree, fault, failed := reassembled(), &proxytest.Fault{}, 0
			proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
				driver := proxytest.NewFailingDriver(inmemory.New())
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(driver))
				driver.Fault = fault
				err := tryPush(r, proxytest.BuildKit, tree)
				r.quiet(err)
				if heal(); err != nil {
					failed++
					return
				}
				r.restart()
				if n := len(r.referrers("app", tree.Images()[0].Digest).Manifests); n != 1 {
					t.Errorf("%d attestations are listed", n)
				}
			})
			if failed == 0 {
				t.Error("no fault mattered, so nothing was shown")
			}
		})
	}
}

// I6: the client need not have sent it.
func TestAnAttestationIsListedWhoseStatementIsUpstream(t *testing.T) {
	up, storage, tree := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(inmemory.New()), reassembled()
	newRig(t, up, storage, action(filters.Forward)).push(proxytest.BuildKit, "lib", "1", tree)
	r := newRig(t, up, storage)
	if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, MountFrom: "lib"}); err != nil {
		t.Fatal(err)
	}
	if n := len(r.referrers("app", tree.Images()[0].Digest).Manifests); n != 1 {
		t.Errorf("%d attestations are listed", n)
	}
}
