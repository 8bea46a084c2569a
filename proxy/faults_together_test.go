package proxy_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// I6: twenty pushers of one tag: it ends as the rewrite of one of them, never a mix, and each hears of its own.
func TestTwentyPushersOfOneTagEndAsOneOfThem(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	want := map[string]string{} // forwarded digests by original
	var mu sync.Mutex
	var pushes sync.WaitGroup
	for i := range 20 {
		o := proxytest.SyntheticOptions{Seed: uint64(i % 5)}
		plain := proxytest.Synthetic(o)
		o.Form, o.Build = proxytest.FormLegacy, i
		tree := proxytest.Synthetic(o)
		pushes.Go(func() {
			if err := tryPush(r, proxytest.BuildKit, tree); err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			want[tree.Digest()] = plain.Digest()
		})
	}
	pushes.Wait()
	r.proxy.Settle()
	one := false
	for original, forwarded := range want {
		a := r.request(http.MethodHead, "/v2/app/manifests/"+original, nil, acceptAll...).want(t, http.StatusOK)
		if got := a.Header.Get("Sluice-Forwarded-Digest"); got != forwarded {
			t.Errorf("%s is said to be forwarded as %s, want %s", original, got, forwarded)
		}
		one = one || forwarded == r.upstreamDigest("app", "1")
	}
	if !one {
		t.Errorf("upstream's tag is %s, which nobody pushed", r.upstreamDigest("app", "1"))
	}
	proxytest.AssertClean(t, r.upstream)
	proxytest.AssertComplete(t, r.upstream)
}

// I7: SIGTERM in the middle of fifty uploads: those that end within shutdown_timeout are whole, the others are cut and
// leave nothing.
func TestShutdownInTheMiddleOfFiftyUploads(t *testing.T) {
	wrap, arrived := arriving()
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: wrap})
	before := settled(t)
	r := run(t, up, inmemory.New(), func(c *config.Config) { c.ShutdownTimeout = config.Duration(4 * time.Second) })
	var uploads []*slowly
	for i := range 50 {
		uploads = append(uploads, r.uploading(proxytest.RandomLayer(fmt.Sprint(i), "", uint64(i), 1, 64<<10), arrived))
	}
	r.stop()
	for i, s := range uploads {
		if i%2 == 0 {
			if _, err := s.body.Write(s.layer.Bytes()[s.layer.Size/2:]); err != nil {
				t.Fatal(err)
			}
			s.body.Close()
		}
	}
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
	for i, s := range uploads {
		if i%2 == 1 {
			s.body.CloseWithError(http.ErrAbortHandler)
		}
	}
	r.noneLeft(before)
	up.Server.Close() // it waits for handlers that still write to the storage
	blobs := up.Inspect(t).Repository("app").Blobs
	for i, s := range uploads {
		resp := receive(t, "answer", s.answer)
		_, there := blobs[s.layer.Digest]
		if whole := resp != nil && resp.StatusCode == http.StatusCreated; whole != (i%2 == 0) || there != whole {
			t.Errorf("upload %d is answered %v, and its layer is there: %t", i, resp, there)
		}
	}
}

// I7: the clock of the machine jumps between and in the middle of pushes.
func TestAClockThatJumpsLosesNoPush(t *testing.T) {
	var mu sync.Mutex
	var offset time.Duration
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(offset)
	}
	jump := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		offset = d
	}
	const day = 24 * time.Hour
	for _, to := range []time.Duration{time.Hour, -time.Hour, 26 * time.Hour, -3 * day, 10 * day, -10 * day} {
		t.Run(to.String(), func(t *testing.T) {
			c := ordinary
			tree, plain := c.trees()
			jump(0)
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), clock(now))
			// An attestation has arrived, and the index that names it comes after the jump and a sweep.
			for _, b := range tree.Statements() {
				r.request(http.MethodPut, put(r.upload("app"), b.Digest), b.Bytes()).want(t, http.StatusCreated)
			}
			open := r.upload("app")
			jump(to)
			r.proxy.Sweep(t.Context())
			b := tree.Statements()[0]
			if a := r.request(http.MethodPut, put(open, b.Digest), b.Bytes()); a.StatusCode != http.StatusCreated && a.StatusCode != http.StatusNotFound {
				t.Errorf("an upload from before is answered %s", a.Status)
			}
			if err := tryPush(r, c.push, tree); err != nil {
				t.Fatalf("the push after the jump fails: %v", err)
			}
			r.holdsNow(plain)
			r.finished(tree, plain, c.act)
			jump(0)
			r.proxy.Sweep(t.Context())
			r.holdsNow(plain)
			r.finished(tree, plain, c.act)
		})
	}
}
