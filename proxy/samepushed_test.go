package proxy_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/proxytest"
)

// The same is deleted and pushed at once, by two replicas, in a registry without a list of referrers of its own. Either may
// come last, but the list that Sluice keeps there names nothing that is gone, and the same push again ends as if nothing had
// happened.
func TestWhatIsDeletedAndPushedAtOnceIsListedByNothingThatIsGone(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	image, signed := tree.Images()[0].Digest, bundleOf(tree.Images()[0])
	for what, c := range map[string]struct {
		place string
		push  func(r *rig, tag string) error
		is    func(r *rig) (digest string)
	}{
		"an attestation": {"attestations", func(r *rig, tag string) error {
			_, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{tag}, Tree: tree})
			return err
		}, func(r *rig) string { return r.referrers("app", image).Manifests[0].Digest }},
		"a signature": {"app", func(r *rig, _ string) error {
			if a := signed.push(r.request, "app"); a.StatusCode != http.StatusCreated {
				return &proxytest.Failure{Call: a.Status + string(a.body)}
			}
			return nil
		}, func(*rig) string { return signed.digest }},
	} {
		try := func(t *testing.T, newUpstream upstreamFunc, n int, after, deletes bool) (more bool) {
			t.Helper()
			m := &meanwhile{after: after}
			up, shared := newUpstream(t, proxytest.UpstreamOptions{Delete: true, NoReferrers: true, Wrap: m.next}), inmemory.New()
			deleting, pushing := newRig(t, up, storage(shared), onePlace()), newRig(t, up, storage(shared), onePlace())
			if what == "a signature" {
				deleting.push(proxytest.BuildKit, "app", "0", proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}}))
			}
			if err := c.push(deleting, "1"); err != nil {
				t.Fatal(err)
			}
			path := "/v2/app/manifests/" + c.is(deleting)
			one := func() { _ = c.push(pushing, "2") } // which may be told that something is gone
			m.do = func() { deleting.request(http.MethodDelete, path, nil) }
			if deletes {
				one, m.do = m.do, one
			}
			m.mu.Lock()
			m.left = n
			m.mu.Unlock()
			if one(); !m.done {
				return false
			}
			proxytest.AssertComplete(t, up)
			if err := c.push(pushing, "3"); err != nil {
				t.Error(err)
			}
			proxytest.AssertComplete(t, up)
			if got := len(pushing.listedUpstream(c.place, image).Manifests); got != 1 {
				t.Errorf("%d referrers are listed, want 1", got)
			}
			if t.Failed() {
				t.Fatalf("at request %d", n)
			}
			return true
		}
		every(t, func(t *testing.T, newUpstream upstreamFunc) {
			for name, of := range map[string][2]bool{
				"pushed before a request of the delete": {false, true}, "pushed after a request of the delete": {true, true},
				"deleted before a request of the push": {false, false}, "deleted after a request of the push": {true, false},
			} {
				t.Run(what+" is "+name, func(t *testing.T) {
					n := 1
					for try(t, newUpstream, n, of[0], of[1]) {
						n++
					}
					if n < 3 {
						t.Errorf("only %d requests", n)
					}
				})
			}
		})
	}
}
