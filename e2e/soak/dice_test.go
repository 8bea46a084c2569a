//go:build soak

package soak

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A dice makes all choices of somebody in the mix.
type dice struct {
	mu     sync.Mutex
	random *rand.Rand
}

func newDice(seed, whose uint64) *dice { return &dice{random: rand.New(rand.NewPCG(seed, whose))} }

// seed is SOAK_SEED, or a new one.
func seed(t *testing.T) uint64 {
	t.Helper()
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("SOAK_SEED"); v != "" {
		var err error
		if s, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
	}
	t.Logf("SOAK_SEED=%d", s)
	return s
}

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.IntN(n)
}

func (d *dice) duration(below time.Duration) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Duration(d.random.Int64N(int64(below)))
}

// shuffled are the numbers below n in a new order.
func (d *dice) shuffled(n int) []int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.random.Perm(n)
}

// pause is a while of at most max, or shorter if ctx ends.
func (d *dice) pause(ctx context.Context, most time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d.duration(most)):
	}
}
