package proxy

import (
	"context"
	"testing"
	"testing/synctest"
)

// Whoever hangs up does not wait for another's change of the same list, and the lock goes on to the next.
func TestAFallbackTagIsNotWaitedForByWhoHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keyedMutex{}
		unlock, err := k.lock(t.Context(), "app:sha256-1")
		if err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		gone, next := make(chan error, 1), make(chan func(), 1)
		go func() {
			_, err := k.lock(ctx, "app:sha256-1")
			gone <- err
		}()
		go func() {
			unlock, err := k.lock(t.Context(), "app:sha256-1")
			if err != nil {
				t.Error(err)
			}
			next <- unlock
		}()
		synctest.Wait()
		leave()
		if err := <-gone; err == nil {
			t.Error("two have the lock")
		}
		synctest.Wait()
		if len(next) > 0 {
			t.Error("two have the lock")
		}
		unlock()
		(<-next)()
		if len(k.locks) > 0 {
			t.Errorf("%d locks are left", len(k.locks))
		}
	})
}
