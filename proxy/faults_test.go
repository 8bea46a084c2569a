package proxy_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// holdsNow asserts what must be true whatever happened: nothing of an attestation upstream (I2),
// nothing dangling (I7), and if the tag answers it is the rewrite (I6).
func (r *rig) holdsNow(plain *proxytest.Tree) {
	r.t.Helper()
	proxytest.AssertClean(r.t, r.upstream)
	proxytest.AssertComplete(r.t, r.upstream)
	a := r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...)
	if a.StatusCode == http.StatusOK && a.Header.Get("Docker-Content-Digest") != plain.Digest() {
		r.t.Errorf("upstream's tag is %s, the only right answer is %s (I6)", a.Header.Get("Docker-Content-Digest"), plain.Digest())
	}
}

// finished asserts what a 201 for the tag means.
func (r *rig) finished(tree, plain *proxytest.Tree, act filters.Action) {
	r.t.Helper()
	if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
		r.t.Errorf("upstream's tag is %s, want %s (I6)", got, plain.Digest())
	}
	a := r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...)
	if a.StatusCode != http.StatusOK || a.Header.Get("Sluice-Forwarded-Digest") != plain.Digest() {
		r.t.Errorf("original is answered %s with forwarded digest %q, want 200 and %s (I6)", a.Status, a.Header.Get("Sluice-Forwarded-Digest"), plain.Digest())
	}
	if act != filters.Store {
		return
	}
	back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
	if err != nil {
		r.t.Errorf("what was stored cannot be read: %v", err)
	} else if err := back.Equal(tree); err != nil {
		r.t.Error(err)
	}
}

func tryPush(r *rig, push proxytest.Pusher, tree *proxytest.Tree) error {
	_, err := push(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true})
	return err
}

// A faultCase is one kind of push that is tried with a fault at every place.
type faultCase struct {
	name string
	push proxytest.Pusher
	form proxytest.Form
	act  filters.Action
}

var faultCases = []faultCase{
	{"buildkit legacy store", proxytest.BuildKit, proxytest.FormLegacy, filters.Store},
	{"buildkit artifact store", proxytest.BuildKit, proxytest.FormArtifact, filters.Store},
	{"buildkit legacy strip", proxytest.BuildKit, proxytest.FormLegacy, filters.Strip},
	{"skopeo legacy store", proxytest.Skopeo, proxytest.FormLegacy, filters.Store},
	{"oras legacy store", proxytest.Oras, proxytest.FormLegacy, filters.Store},
}

func (c faultCase) trees() (tree, plain *proxytest.Tree) {
	o := proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}}
	plain = proxytest.Synthetic(o)
	o.Form = c.form
	return proxytest.Synthetic(o), plain
}

// check is the same after every fault: what is upstream is right although the push broke off, and
// the retry converges, also in a new process.
func (c faultCase) check(r *rig, tree, plain *proxytest.Tree, heal func()) {
	first := tryPush(r, c.push, tree)
	heal()
	r.holdsNow(plain)
	if first == nil {
		r.finished(tree, plain, c.act)
	}
	r.restart()
	if err := tryPush(r, c.push, tree); err != nil {
		r.t.Fatalf("the retry fails too: %v (the first time: %v)", err, first)
	}
	r.holdsNow(plain)
	r.finished(tree, plain, c.act)
}

// I1, I2, I6, I7: the storage fails at its n-th call, for every n, in every way, and then works again.
func TestAPushSurvivesEveryFaultOfTheStorage(t *testing.T) {
	for i, c := range faultCases {
		for k, kind := range proxytest.DriverFaults() {
			if i > 1 && (i+k)%2 == 0 {
				continue // every kind with BuildKit's pushes, and every other one with the rest: they share all but their order
			}
			t.Run(c.name+", "+string(kind), func(t *testing.T) {
				t.Parallel()
				tree, plain := c.trees()
				fault := &proxytest.Fault{}
				proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
					driver := proxytest.NewFailingDriver(inmemory.New())
					r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(c.act), storage(driver))
					driver.Fault = fault // from here on: a proxy that cannot start is another matter
					c.check(r, tree, plain, heal)
				})
			})
		}
	}
}

// The same for upstream's n-th request.
func TestAPushSurvivesEveryFaultOfUpstream(t *testing.T) {
	for i, c := range faultCases {
		for k, kind := range proxytest.UpstreamFaults() {
			if i > 1 && (i+k)%2 == 0 {
				continue
			}
			if kind == proxytest.FaultDead && i > 0 {
				continue // each such push waits for all retries: one client shows what there is to see
			}
			t.Run(c.name+", "+string(kind), func(t *testing.T) {
				t.Parallel()
				tree, plain := c.trees()
				fault := &proxytest.Fault{}
				proxytest.EveryCall(t, fault, kind, func(t *testing.T, heal func()) {
					up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(h http.Handler) http.Handler {
						f := proxytest.NewFailingUpstream(h)
						f.Fault = fault
						return f
					}})
					c.check(newRig(t, up, action(c.act)), tree, plain, heal)
				})
			})
		}
	}
}
