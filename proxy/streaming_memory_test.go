package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// What the process may grow by, client and sink of this test included; the resident size with 1 GiB, of a
// process of its own, is measured in e2e.
func TestStreamMemoryDoesNotGrowWithTheLayer(t *testing.T) {
	for _, c := range []struct {
		uploads     int
		size, bound int64
	}{
		{1, 256 * mib, 8 * mib},
		{64, 8 * mib, 40 * mib},
	} {
		for _, w := range []way{ways[0], ways[3]} { // as BuildKit and as Docker send
			t.Run(fmt.Sprintf("%d uploads of %d MiB, %s", c.uploads, c.size/mib, w.name), func(t *testing.T) {
				var arrived, peak atomic.Int64
				all := make(chan struct{})
				r := newRig(t, newSink(t, func(rw http.ResponseWriter, req *http.Request) bool {
					var b [1]byte
					if _, err := io.ReadFull(req.Body, b[:]); err != nil {
						return false
					}
					if arrived.Add(1) == int64(c.uploads) {
						close(all)
					}
					select { // so that all are there at once
					case <-all:
					case <-time.After(patience):
						t.Errorf("only %d of %d uploads at once", arrived.Load(), c.uploads)
					}
					return swallow(rw, req)
				}))
				digest := layerDigest(c.size)
				transfers := make([]*transfer, c.uploads)
				before := inUse()
				stop := sample(&peak)
				for i := range transfers {
					transfers[i] = w.begin(t, r.url(), "app", digest, c.size)
				}
				var wg sync.WaitGroup
				for _, u := range transfers {
					wg.Go(func() {
						if err := u.sendAll(c.size); err != nil {
							t.Error(err) // the answer, below, ends the test
						}
					})
				}
				wg.Wait()
				for _, u := range transfers {
					u.finish().want(t, http.StatusCreated)
				}
				stop()
				grown := peak.Load() - before
				if grown > c.bound {
					t.Errorf("heap and stacks grew by %d KiB, at most %d KiB are expected", grown/kib, c.bound/kib)
				}
				t.Logf("heap and stacks grew by %d KiB", grown/kib)
			})
		}
	}
}

// inUse leaves out what is garbage already: how much of it there is at a time depends on when the collector runs, and how
// much of it is made is counted by benchmarks.
func inUse() int64 {
	runtime.GC()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(live)
	return int64(live[0].Value.Uint64() + live[1].Value.Uint64())
}

// sample notes the most that is in use until it is stopped.
func sample(peak *atomic.Int64) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			peak.Store(max(peak.Load(), inUse()))
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}
