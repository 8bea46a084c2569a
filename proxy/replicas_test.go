package proxy_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// I10: nothing that a push needs is in the memory of one process. Each request goes to another of
// three that share only the storage, and the registry behind them.
func TestEachRequestMayGoToAnotherReplica(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, client := range proxytest.Clients() {
			if !client.Indexes {
				continue
			}
			for _, form := range forms {
				t.Run(client.Name+" "+string(form), func(t *testing.T) {
					up, shared := newUpstream(t, proxytest.UpstreamOptions{}), inmemory.New()
					var replicas []*rig
					for range 3 {
						replicas = append(replicas, newRig(t, up, storage(shared), action(filters.Store)))
					}
					var next atomic.Uint32
					balancer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						replicas[int(next.Add(1))%len(replicas)].proxy.Handler().ServeHTTP(w, r)
					}))
					t.Cleanup(balancer.Close)
					plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true, StatementSize: 300 << 10}) // held in parts
					for range 2 {
						if _, err := client.Push(context.Background(), proxytest.Options{BaseURL: balancer.URL, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
							t.Fatal(err)
						}
					}
					for _, r := range replicas {
						r.proxy.Settle()
					}
					if got := replicas[0].upstreamDigest("app", "1"); got != plain.Digest() {
						t.Errorf("upstream's tag is %s, want %s", got, plain.Digest())
					}
					proxytest.AssertClean(t, up)
					proxytest.AssertComplete(t, up)
					back, err := proxytest.PullAll(context.Background(), balancer.URL, "app", tree.Digest())
					if err != nil {
						t.Fatal(err)
					}
					if err := back.Equal(tree); err != nil {
						t.Error(err)
					}
				})
			}
		}
	})
}
