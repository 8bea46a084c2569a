package proxy_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	godigest "github.com/opencontainers/go-digest"

	"sluice/filters"
	"sluice/proxy/config"
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
					overReplicas(t, newUpstream(t, proxytest.UpstreamOptions{}), client, proxytest.Options{Repository: "app"}, form)
				})
				t.Run(client.Name+" "+string(form)+", credentials passed through", func(t *testing.T) {
					up := newUpstream(t, proxytest.UpstreamOptions{Wrap: byTenant})
					overReplicas(t, up, client, proxytest.Options{Repository: "alice/app", Authorization: alice}, form, with(passthrough))
				})
			}
		}
	})
}

// overReplicas pushes twice, each request to the next of three, and reads it back.
func overReplicas(t *testing.T, up *proxytest.Upstream, client proxytest.Client, o proxytest.Options, form proxytest.Form, settings ...setting) {
	shared := inmemory.New()
	var replicas []*rig
	for range 3 {
		replicas = append(replicas, newRig(t, up, append(settings, storage(shared), action(filters.Store))...))
	}
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true, StatementSize: 300 << 10}) // held in parts
	o.BaseURL, o.Tags, o.Tree = balance(t, replicas), []string{"1"}, tree
	for range 2 {
		if _, err := client.Push(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range replicas {
		r.proxy.Settle()
	}
	if got := up.Inspect(t).Repository(o.Repository).Tags["1"]; got != plain.Digest() {
		t.Errorf("upstream's tag is %s, want %s", got, plain.Digest())
	}
	proxytest.AssertClean(t, up)
	proxytest.AssertComplete(t, up)
	back, err := proxytest.Pull(context.Background(), proxytest.PullOptions{BaseURL: o.BaseURL, Repository: o.Repository, Reference: tree.Digest(), Authorization: o.Authorization})
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Equal(tree); err != nil {
		t.Error(err)
	}
}

// balance gives each request to the next of the replicas.
func balance(t testing.TB, replicas []*rig) (url string) {
	t.Helper()
	var next atomic.Uint32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		replicas[int(next.Add(1))%len(replicas)].proxy.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// Half an hour before midnight UTC one of them is in tomorrow's generation already; half an hour after it one is still
// in yesterday's.
func TestReplicasWithClocksAnHourApartAreOne(t *testing.T) {
	for name, now := range map[string]time.Time{
		"before midnight": time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC),
		"after midnight":  time.Date(2026, 3, 2, 0, 30, 0, 0, time.UTC),
	} {
		for _, client := range proxytest.Clients() {
			if !client.Indexes {
				continue
			}
			t.Run(name+" "+client.Name, func(t *testing.T) {
				up, shared := proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), inmemory.New()
				var replicas []*rig
				for _, off := range []time.Duration{0, time.Hour, -time.Hour} {
					replicas = append(replicas, newRig(t, up, storage(shared), clock(func() time.Time { return now.Add(off) })))
				}
				balancer := balance(t, replicas)
				for build, form := range forms {
					plain := proxytest.Synthetic(proxytest.SyntheticOptions{Build: build})
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Build: build, Form: form, SBOM: true, StatementSize: 300 << 10})
					if _, err := client.Push(context.Background(), proxytest.Options{BaseURL: balancer, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
						t.Fatal(err)
					}
					for _, r := range replicas {
						r.proxy.Settle()
					}
					if got := replicas[0].upstreamDigest("app", "1"); got != plain.Digest() {
						t.Errorf("upstream's tag is %s, want %s", got, plain.Digest())
					}
					back, err := proxytest.PullAll(context.Background(), balancer, "app", tree.Digest())
					if err != nil {
						t.Fatal(err)
					}
					if err := back.Equal(tree); err != nil {
						t.Error(err)
					}
				}
				proxytest.AssertClean(t, up)
				proxytest.AssertComplete(t, up)
			})
		}
	}
}

// An upload goes on while its key is replaced: the new key comes behind the old one first, then in front of it, and the
// old one leaves last.
func TestAnUploadGoesOnWhileTheSealKeyIsReplaced(t *testing.T) {
	key := func(b byte) config.Secret {
		k := make([]byte, 32)
		k[0] = b
		return config.Secret(base64.StdEncoding.EncodeToString(k))
	}
	up, shared := proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), inmemory.New()
	replica := func(keys ...config.Secret) *rig {
		return newRig(t, up, storage(shared), with(func(c *config.Config) { c.SealKeys = keys }))
	}
	old, both, turned, young := replica(key(1)), replica(key(1), key(2)), replica(key(2), key(1)), replica(key(2))
	blob := []byte(`{"architecture":"amd64","os":"linux"}`)
	digest := godigest.FromBytes(blob).String()
	for name, c := range map[string]struct {
		from, to *rig
		status   int
	}{
		"before and after the new key is added":     {old, both, http.StatusCreated},
		"after and before the new key is added":     {both, old, http.StatusCreated},
		"before and after the keys change places":   {both, turned, http.StatusCreated},
		"after and before the keys change places":   {turned, both, http.StatusCreated},
		"after and before the old key is taken out": {turned, young, http.StatusCreated},
		"with a key that has been taken out":        {old, young, http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			location := c.from.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted).Header.Get("Location")
			request(t, http.MethodPut, absolute(c.to, elsewhere(t, location))+"digest="+digest, blob).want(t, c.status)
		})
	}
}

// elsewhere is a Location without its host.
func elsewhere(t testing.TB, location string) string {
	t.Helper()
	u, err := http.NewRequest(http.MethodGet, location, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u.URL.RequestURI()
}
