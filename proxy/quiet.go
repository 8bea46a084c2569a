package proxy

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// quietTime is for how long nobody must have asked for anything before memory is given back. Shorter, and pushes that
// follow each other would fetch it anew each time.
const quietTime = 5 * time.Second

// quiet knows when nobody asks for anything.
type quiet struct {
	requests atomic.Int64 // that have come, ever
	given    atomic.Int64 // how many times memory was given back
}

// giveBack returns memory to the system once after every time that requests came: the buffers of layers, and garbage. The
// runtime would come to it by itself after some minutes. A request that still runs keeps what it uses.
func (q *quiet) giveBack(ctx context.Context, after time.Duration) {
	tick := time.NewTicker(after)
	defer tick.Stop()
	var before, done int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := q.requests.Load()
		if now == before && now != done {
			runtime.GC()         // empties pools, and keeps what was in them for one more round
			debug.FreeOSMemory() // collects that, too
			done = now
			q.given.Add(1)
		}
		before = now
	}
}
