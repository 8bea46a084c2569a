package proxy

import (
	"context"
	"sync"
)

// A held body is read into memory before the storage has it, up to three times heldInMemory, and more where the storage
// is a bucket. How many of more than what is believed come at the same time is bounded, since each may take its
// client's time; nearly all statements are smaller, and wait for nobody. No identity has more than half of the places.
const (
	heldAtOnce = 256
	heldOfOne  = heldAtOnce / 2
)

// A crowd is who sends large bodies that are held, at this moment. The zero value is one of nobody.
type crowd struct {
	mu    sync.Mutex
	total int
	of    map[string]int
	left  chan struct{} // closed, and replaced, when somebody has left; nil: nobody waits
}

// tryEnter is false when there is no place for an identity; then left is closed when there may be one.
func (c *crowd) tryEnter(who string) (entered bool, left <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.total < heldAtOnce && c.of[who] < heldOfOne {
		if c.of == nil {
			c.of = map[string]int{}
		}
		c.total++
		c.of[who]++
		return true, nil
	}
	if c.left == nil {
		c.left = make(chan struct{})
	}
	return false, c.left
}

// enter waits for a place.
func (c *crowd) enter(ctx context.Context, who string) error {
	for {
		entered, left := c.tryEnter(who)
		if entered {
			return nil
		}
		select {
		case <-left:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *crowd) leave(who string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total--
	if c.of[who]--; c.of[who] == 0 {
		delete(c.of, who)
	}
	if c.left != nil {
		close(c.left)
		c.left = nil
	}
}

// enterCrowd lets a body be held, unless it is known to be small. A request has one place, until it ends (leaveCrowd).
func (ex *exchange) enterCrowd(length int64) error {
	if ex.crowded || length >= 0 && length <= believed {
		return nil
	}
	ctx, cancel := context.WithTimeout(ex.ctx(), roomPatience)
	defer cancel()
	if err := ex.p.crowd.enter(ctx, ex.id.Key); err != nil {
		if ex.ctx().Err() != nil {
			return ex.ctx().Err()
		}
		return transient(err, "the blob for %s waits: %d of more than %d bytes are on their way already, or %d of %s, and sluice keeps no more in memory; try again",
			ex.about(), heldAtOnce, believed, heldOfOne, ex.id.Name)
	}
	ex.crowded = true
	return nil
}

// triesCrowd is enterCrowd for what need not be held.
func (ex *exchange) triesCrowd() bool {
	if !ex.crowded {
		ex.crowded, _ = ex.p.crowd.tryEnter(ex.id.Key)
	}
	return ex.crowded
}

func (ex *exchange) leaveCrowd() {
	if ex.crowded {
		ex.crowded = false
		ex.p.crowd.leave(ex.id.Key)
	}
}
