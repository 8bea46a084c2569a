package proxy_test

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/proxytest"
)

// meanwhile lets something happen once, before or after the nth request that it sees.
type meanwhile struct {
	mu    sync.Mutex
	left  int // 0: nothing
	after bool
	do    func()
	done  bool
}

func (m *meanwhile) next(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		now := m.left == 1
		m.left = max(m.left-1, 0)
		m.mu.Unlock()
		if now && !m.after {
			m.do()
		}
		h.ServeHTTP(w, r)
		if now && m.after {
			m.do()
		}
		if now {
			m.done = true
		}
	})
}

// One repository deletes its attestation while another pushes the same build: what the second one was told is kept in the
// place that they share stays there, however the requests of the two follow each other.
func TestAnAttestationInASharedPlaceOutlivesADeleteWhileItIsPushed(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	image := tree.Images()[0].Digest
	// two is what happens while one does.
	try := func(t *testing.T, n int, after bool, one, two func(deleting, pushing *rig, att string)) (more bool) {
		t.Helper()
		m := &meanwhile{after: after}
		up, shared := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, Wrap: m.next}), inmemory.New()
		deleting, pushing := newRig(t, up, storage(shared), onePlace()), newRig(t, up, storage(shared), onePlace())
		deleting.push(proxytest.BuildKit, "dev", "1", tree)
		att := deleting.referrers("dev", image).Manifests[0].Digest
		m.do = func() { two(deleting, pushing, att) }
		m.mu.Lock()
		m.left = n
		m.mu.Unlock()
		one(deleting, pushing, att)
		if !m.done {
			return false
		}
		pushing.direct(http.MethodHead, "/v2/attestations/manifests/"+att, nil, acceptAll...).want(t, http.StatusOK)
		if got := len(pushing.referrers("prod", image).Manifests); got != 1 {
			t.Errorf("%d referrers are listed in prod, want 1", got)
		}
		if got := len(pushing.listedUpstream("attestations", image).Manifests); got != 1 {
			t.Errorf("%d referrers are listed in the place, want 1", got)
		}
		proxytest.AssertComplete(t, up)
		if t.Failed() {
			t.Fatalf("at request %d", n)
		}
		return true
	}
	remove := func(deleting, _ *rig, att string) {
		deleting.request(http.MethodDelete, "/v2/dev/manifests/"+att, nil).want(deleting.t, http.StatusAccepted)
	}
	push := func(_, pushing *rig, _ string) {
		o := proxytest.Options{BaseURL: pushing.url(), Repository: "prod", Tags: []string{"1"}, Tree: tree}
		_, err := proxytest.BuildKit(context.Background(), o)
		if err != nil { // the place may have lacked for a moment what it was to list: then the client is told
			_, err = proxytest.BuildKit(context.Background(), o)
		}
		if err != nil {
			pushing.t.Errorf("push: %v", err)
		}
	}
	twice := func(deleting, pushing *rig, att string) {
		push(deleting, pushing, att)
		again := newRig(deleting.t, deleting.upstream, storage(deleting.storage), onePlace())
		again.request(http.MethodDelete, "/v2/dev/manifests/"+att, nil)
	}
	for name, after := range map[string]bool{"before": false, "after": true} {
		t.Run("pushed, and deleted by another, "+name+" a request of the delete", func(t *testing.T) {
			n := 1
			for try(t, n, after, func(deleting, _ *rig, att string) {
				if a := deleting.request(http.MethodDelete, "/v2/dev/manifests/"+att, nil); a.StatusCode != http.StatusAccepted && a.StatusCode != http.StatusNotFound {
					deleting.t.Errorf("%s: %s", a.Status, a.body)
				}
			}, twice) {
				n++
			}
			if n < 3 {
				t.Errorf("only %d requests", n)
			}
		})
		t.Run("pushed "+name+" a request of the delete", func(t *testing.T) {
			n := 1
			for try(t, n, after, remove, push) {
				n++
			}
			if n < 3 {
				t.Errorf("only %d requests", n)
			}
		})
		t.Run("deleted "+name+" a request of the push", func(t *testing.T) {
			n := 1
			for try(t, n, after, push, remove) {
				n++
			}
			if n < 3 {
				t.Errorf("only %d requests", n)
			}
		})
	}
}
