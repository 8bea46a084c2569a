package proxy

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsGivenBackOnceAfterRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &quiet{}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go q.giveBack(ctx, quietTime)
		given := func(want int64, when string) {
			t.Helper()
			synctest.Wait()
			if got := q.given.Load(); got != want {
				t.Errorf("%s: given back %d times, want %d", when, got, want)
			}
		}
		time.Sleep(10 * quietTime)
		given(0, "before any request")
		for range 20 { // never quiet for long enough
			q.requests.Add(1)
			time.Sleep(quietTime / 2)
		}
		given(0, "while requests come")
		time.Sleep(2 * quietTime)
		given(1, "after them")
		time.Sleep(10 * quietTime)
		given(1, "long after them")
		q.requests.Add(1)
		time.Sleep(3 * quietTime)
		given(2, "after one more")
	})
}

// What layers were copied with is in pools, which a single collection does not empty.
func TestGivingMemoryBackEmptiesPools(t *testing.T) {
	const size = 64 << 20
	pool := sync.Pool{New: func() any { return new([size]byte) }}
	pool.Put(pool.Get())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	q := &quiet{}
	q.requests.Add(1)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go q.giveBack(ctx, 5*time.Millisecond)
	for end := time.Now().Add(time.Minute); q.given.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing was given back")
		}
	}
	runtime.ReadMemStats(&after)
	if after.HeapInuse+size/2 > before.HeapInuse {
		t.Errorf("heap in use %d MiB before and %d MiB after", before.HeapInuse>>20, after.HeapInuse>>20)
	}
	runtime.KeepAlive(&pool)
}
