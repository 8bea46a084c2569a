package proxy_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// I10: whoever finishes every push may go on for good, although what he pushed went to one replica and the index that names
// it to another.
func TestWhatAnotherReplicasIndexNamesStopsNobody(t *testing.T) {
	pushers := map[string]proxytest.Pusher{"one PUT": proxytest.BuildKit, "PATCH and PUT": proxytest.Crane}
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		for name, push := range pushers {
			t.Run(string(act)+", "+name, func(t *testing.T) {
				const limit = 512 << 10
				up, shared := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New()
				var replicas []*rig
				for range 3 {
					replicas = append(replicas, newRig(t, up, storage(shared), action(act), heldLimit(256<<10, limit)))
				}
				balancer := balance(t, replicas)
				asked := 0
				for i := range 16 { // 200 KiB each
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Build: i, SBOM: true, StatementSize: 50 << 10})
					if _, err := push(context.Background(), proxytest.Options{BaseURL: balancer, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
						t.Fatalf("push %d: %v", i, err)
					}
					for _, r := range replicas {
						r.proxy.Settle()
						if r.proxy.SettleCharges(context.Background()) {
							asked++
							if n := r.proxy.Charged(anybody); n > 0 {
								t.Errorf("push %d: %d bytes are charged for, and everything was named by an index", i, n)
							}
						}
					}
				}
				if asked == 0 || asked > 24 {
					t.Errorf("the storage was asked %d times", asked)
				}
			})
		}
	}
}

// What no index has named goes on costing, whatever other replicas do with the rest.
func TestWhatNoReplicasIndexNamesIsPaidForUntilItGoes(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			first, second := twins(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), action(act), heldLimit(64<<10, 200<<10))
			h := &holding{rig: first, known: map[string]bool{}}
			image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
			first.push(proxytest.BuildKit, "app", "image", image)
			h.image = entryOf(ociManifest, image.Root.Digest, int(image.Root.Size))
			settled := func(what string, want int64) {
				t.Helper()
				if !first.proxy.SettleCharges(context.Background()) {
					t.Fatalf("%s: %d bytes are charged for, and the storage is not asked", what, first.proxy.Charged(anybody))
				}
				if got := first.proxy.Charged(anybody); got != want {
					t.Errorf("%s: %d bytes are charged for, want %d: %v", what, got, want, first.files("/quarantine", ""))
				}
			}
			var statements [][]byte
			for i := range 4 {
				statements = append(statements, statementOf(i, 40<<10))
				if status := h.blob(statements[i]); status != http.StatusCreated {
					t.Fatal(status)
				}
			}
			attestation := func(st []byte) []byte { return attestationNaming(int64(len(st)), st) }
			all := first.proxy.Charged(anybody)
			settled("no manifest names them", all)
			for _, st := range statements[:3] { // at the other replica
				m := attestation(st)
				second.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(m), m, "Content-Type", ociManifest).want(t, http.StatusCreated)
			}
			settled("only manifests name them", all)
			m := attestation(statements[0])
			index := indexOf(h.image, entryOf(ociManifest, ocidoc.DigestOf(m), len(m)))
			second.request(http.MethodPut, "/v2/app/manifests/1", index, "Content-Type", ociIndex).want(t, http.StatusCreated)
			second.request(http.MethodDelete, "/v2/app/blobs/"+ocidoc.DigestOf(statements[3]), nil).want(t, http.StatusAccepted)
			left := int64(len(statements[1]) + len(statements[2]))
			first.request(http.MethodPatch, h.begin(), statementOf(5, 30<<10)).want(t, http.StatusAccepted)
			left += int64(len(statementOf(5, 30<<10)))
			settled("an index names one, and one was deleted", left)
			if a := h.blob(statementOf(6, 60<<10)); a != http.StatusCreated {
				t.Errorf("there is room again: %d", a)
			}
			if a := h.blob(statementOf(7, 60<<10)); a != http.StatusForbidden {
				t.Errorf("and no more than that: %d", a)
			}
		})
	}
}

// A folder has one replica, which knows all that becomes of what it holds.
func TestAFolderIsNotAskedWhatOtherReplicasDo(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.MaxHeldBlob, c.Access.MaxHeldPerIdentity = 64<<10, 64<<10 }))
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v1","x":"` + strings.Repeat("x", 60<<10) + `"}`)
	send(t, r, "app", statement)
	if r.proxy.SettleCharges(context.Background()) {
		t.Error("the folder was asked")
	}
	if got := r.proxy.Charged(anybody); got != int64(len(statement)) {
		t.Errorf("%d bytes are charged for, want %d", got, len(statement))
	}
}

// Without a limit nobody pays, whatever the size of what is held: what is charged for would count under the next configuration.
func TestWithoutALimitNothingIsCharged(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), heldLimit(1<<20, 0))
	for _, size := range []int{10, 300 << 10} {
		b := statementOf(1, size)
		r.request(http.MethodPut, absolutePath(r.upload("app"))+"digest="+ocidoc.DigestOf(b), b).want(t, http.StatusCreated)
		if got := r.proxy.Charged(anybody); got != 0 {
			t.Errorf("%d bytes are charged for a statement of %d", got, len(b))
		}
	}
}
