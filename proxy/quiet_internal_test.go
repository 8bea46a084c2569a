package proxy

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"
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
	type buffer [1 << 20]byte
	var pool sync.Pool
	made := new(buffer)
	kept := weak.Make(made)
	pool.Put(made)
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
	if kept.Value() != nil {
		t.Error("what was in a pool is still there")
	}
	runtime.KeepAlive(&pool)
}
