package proxy_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// I7: a client that HEAD tells "there" sends only the tag (oras, crane). An original is there as long
// as everything that it lists is.
func TestAnOriginalIsThereOnlyWithItsAttestations(t *testing.T) {
	start := time.Now()
	now := start
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Strip), clock(func() time.Time { return now }))
	r.push(proxytest.BuildKit, "app", "1", tree)
	there := 0
	for hours := range 12 {
		now = start.Add(time.Duration(hours) * 24 * time.Hour)
		r.proxy.Sweep(context.Background())
		h := r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...)
		if h.StatusCode == http.StatusNotFound {
			break
		}
		h.want(t, http.StatusOK)
		there++
		for _, m := range tree.Attestations() {
			r.request(http.MethodHead, "/v2/app/manifests/"+m.Digest, nil, acceptAll...).want(t, http.StatusOK)
		}
		// What such a client then sends.
		r.request(http.MethodPut, "/v2/app/manifests/2", tree.Root.Bytes(), "Content-Type", ociIndex).want(t, http.StatusCreated)
	}
	if there < 3 {
		t.Errorf("there for %d days only, retention is 2", there)
	}
	// Asked for only once after a while, at the end of its life, and not again before the sweep.
	r.push(proxytest.BuildKit, "app", "1", tree)
	start = now
	now = start.Add(48 * time.Hour)
	r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
	now = start.Add(73 * time.Hour)
	r.proxy.Sweep(context.Background())
	if h := r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...); h.StatusCode == http.StatusOK {
		r.request(http.MethodPut, "/v2/app/manifests/3", tree.Root.Bytes(), "Content-Type", ociIndex).want(t, http.StatusCreated)
	}
	r.push(proxytest.BuildKit, "app", "1", tree)
}

// shown is the tree behind a tag, which HEAD and GET agree about and which can be pulled whole (I7):
// Docker 29 and containerd 2.2 fetch attestation manifests too, and fail on a 404.
func (r *rig) shown(tag string) *proxytest.Tree {
	r.t.Helper()
	head := r.request(http.MethodHead, "/v2/app/manifests/"+tag, nil, acceptAll...).want(r.t, http.StatusOK)
	get := r.request(http.MethodGet, "/v2/app/manifests/"+tag, nil, acceptAll...).want(r.t, http.StatusOK)
	if h, g := head.Header.Get("Docker-Content-Digest"), get.Header.Get("Docker-Content-Digest"); h != g {
		r.t.Errorf("HEAD says %s, GET %s", h, g)
	}
	back, err := proxytest.PullAll(context.Background(), r.url(), "app", tag)
	if err != nil {
		r.t.Fatalf("what tag %s shows cannot be pulled: %v", tag, err)
	}
	return back
}

// I7: with view: original a tag shows the original as long as all of it can be had, and then what
// upstream has.
func TestViewOriginalEndsWithWhatIsDeleted(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	for name, digest := range map[string]string{"an attestation": tree.Attestations()[0].Digest, "the original": tree.Digest()} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), view(config.ViewOriginal))
			for range 2 {
				r.push(proxytest.BuildKit, "app", "1", tree)
				if err := r.shown("1").Equal(tree); err != nil {
					t.Errorf("after the push: %v", err)
				}
				r.request(http.MethodDelete, "/v2/app/manifests/"+digest, nil).want(t, http.StatusAccepted)
				if err := r.shown("1").Equal(plain); err != nil {
					t.Errorf("after the delete: %v", err)
				}
				r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
			}
		})
	}
}

// I7: when store.retention is over the parts of an original go at different times. Whenever that is,
// the tag shows all of the original or nothing of it, and a push brings it back.
func TestViewOriginalIsWholeWhateverExpires(t *testing.T) {
	now := time.Now()
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), view(config.ViewOriginal),
		clock(func() time.Time { return now }), with(func(c *config.Config) { c.Store.Retention = 30 }))
	r.push(proxytest.BuildKit, "app", "1", tree)
	start := now
	for _, day := range []int{0, 1, 2, 3, 4, 5, 29, 30, 31, 32, 33, 34, 35, 40, 45} {
		now = start.Add(time.Duration(day) * 24 * time.Hour)
		r.proxy.Sweep(context.Background())
		want := tree
		if r.request(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).Header.Get("Docker-Content-Digest") == plain.Digest() {
			if day < 30 {
				t.Fatalf("the original is gone on day %d", day)
			}
			want = plain
		}
		if err := r.shown("1").Equal(want); err != nil {
			t.Errorf("day %d: %v", day, err)
		}
	}
	if err := r.shown("1").Equal(plain); err != nil {
		t.Errorf("a fortnight after store.retention: %v", err)
	}
	if n := len(r.referrers("app", tree.Images()[0].Digest).Manifests); n != 0 {
		t.Errorf("%d referrers after store.retention", n)
	}
	r.push(proxytest.BuildKit, "app", "1", tree)
	if err := r.shown("1").Equal(tree); err != nil {
		t.Errorf("after another push: %v", err)
	}
}

// I6: the last push decides what a tag shows, also a push without attestations of the same images.
func TestViewOriginalShowsThePlainImageThatWasPushedLast(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), view(config.ViewOriginal))
	for range 2 {
		for _, pushed := range []*proxytest.Tree{tree, plain} {
			r.push(proxytest.BuildKit, "app", "1", pushed)
			a := r.request(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
			if got := a.Header.Get("Docker-Content-Digest"); got != pushed.Digest() {
				t.Errorf("the tag shows %s after a push of %s", got, pushed.Digest())
			}
		}
	}
}

// I3, I6: whoever comes last wins upstream and here: the tag shows an original of what it holds upstream, whole.
func TestConcurrentPushesOfOneTagAgreeAboutIt(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), view(config.ViewOriginal))
	var pushes sync.WaitGroup
	for i := range 6 {
		tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Build: i, Seed: uint64(i % 3)})
		pushes.Go(func() {
			if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
				t.Error(err)
			}
		})
	}
	pushes.Wait()
	r.proxy.Settle()
	r.shown("1")
	a := r.request(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
	if got, want := a.Header.Get("Sluice-Forwarded-Digest"), r.upstreamDigest("app", "1"); got != "" && got != want {
		t.Errorf("forwarded digest %s, upstream has %s", got, want)
	}
	proxytest.AssertClean(t, r.upstream)
	proxytest.AssertComplete(t, r.upstream)
}

// I6: the rule has changed between two pushes of the same index. What one rule has made of it may be kept for longer than
// what the other has.
func TestAnOriginalIsThereAsLongAsOneOfItsRewritesIsWhole(t *testing.T) {
	now := time.Now()
	up, storage := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(inmemory.New())
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	later := clock(func() time.Time { return now })
	newRig(t, up, storage, later, action(filters.Store)).push(proxytest.BuildKit, "app", "1", tree)
	now = now.Add(time.Hour)
	converting := newRig(t, up, storage, later, action(filters.Strip), with(func(c *config.Config) { c.MediaTypes = filters.MediaTypesDocker }))
	converting.push(proxytest.BuildKit, "app", "2", tree)
	now = now.Add(5 * 24 * time.Hour)
	r := newRig(t, up, storage, later, action(filters.Store))
	r.proxy.Sweep(context.Background())
	back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
	if err == nil {
		err = back.Equal(tree)
	}
	if err != nil {
		t.Error(err)
	}
}

// I6, I7: what was deleted and is pushed again waits in quarantine for an index that names it. A client that is told meanwhile
// that the index is there does not send it, and the attestation would not be kept.
func TestADeletedAttestationIsKeptAgainWhenItIsPushedAgain(t *testing.T) {
	for _, client := range proxytest.Clients() {
		if !client.Indexes {
			continue
		}
		t.Run(client.Name, func(t *testing.T) {
			for _, v := range []config.View{config.ViewUpstream, config.ViewOriginal} {
				now := time.Now()
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), view(v), clock(func() time.Time { return now }))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				r.push(proxytest.BuildKit, "app", "1", tree)
				r.request(http.MethodDelete, "/v2/app/manifests/"+tree.Attestations()[0].Digest, nil).want(t, http.StatusAccepted)
				r.push(client.Push, "app", "1", tree)
				now = now.Add(5 * 24 * time.Hour)
				r.proxy.Sweep(context.Background())
				back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
				if err == nil {
					err = back.Equal(tree)
				}
				if err != nil {
					t.Errorf("view %s: %v", v, err)
				}
			}
		})
	}
}

// A puller takes "not found" as final. Of what is known to be an original nobody knows that while the storage fails; whether it
// is one is not asked at the price of pushes that have nothing to do with attestations.
func TestAnOriginalIsNotGoneWhileTheStorageFails(t *testing.T) {
	for _, act := range []filters.Action{filters.Strip, filters.Store} {
		t.Run(string(act), func(t *testing.T) {
			driver := proxytest.NewFailingDriver(inmemory.New())
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act), storage(driver))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			r.push(proxytest.BuildKit, "app", "1", tree)
			driver.Fail(0, proxytest.FaultError)
			r.restart() // it remembers nothing
			failed := 0
			proxytest.EveryCall(t, driver.Fault, proxytest.FaultError, func(t *testing.T, heal func()) {
				a := r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...)
				known := !strings.Contains(driver.Failed(), " /aliases/")
				switch heal(); {
				case a.StatusCode == http.StatusOK, a.StatusCode == http.StatusNotFound && !known:
				case a.StatusCode == http.StatusTooManyRequests:
					failed++
				default:
					t.Errorf("%s: %s", a.Status, a.body)
				}
				r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
			})
			if failed == 0 {
				t.Error("no fault mattered, so nothing was shown")
			}
		})
	}
}

// I6: an attestation that went upstream while another rule held, or while the storage failed, is not sent again by clients that
// ask first. What readers find upstream is missing nowhere.
func TestAnOriginalIsWholeWithAnAttestationThatUpstreamHas(t *testing.T) {
	up, storage := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(inmemory.New())
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	newRig(t, up, storage, action(filters.Forward)).push(proxytest.BuildKit, "app", "1", tree)
	r := newRig(t, up, storage, action(filters.Strip), with(func(c *config.Config) { c.Unwrap = filters.UnwrapNever }))
	r.direct(http.MethodHead, "/v2/app/manifests/"+tree.Attestations()[0].Digest, nil, acceptAll...).want(t, http.StatusOK)
	other := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Compact: true})
	if other.Digest() == tree.Digest() || other.Attestations()[0].Digest != tree.Attestations()[0].Digest {
		t.Fatal("the same attestations are not in another index")
	}
	r.push(proxytest.Oras, "app", "2", other)
}
