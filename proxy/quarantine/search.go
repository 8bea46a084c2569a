package quarantine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
)

// listedFor is how long a list of the generations is believed. Every look-up asks in the generations of now all the
// same, see candidates, and any other becomes older: a list can only name one that has been swept meanwhile.
// It is more than the minute after which housekeeping makes another.
const listedFor = 3 * time.Minute

// skew is how far the clock of another replica may go ahead of ours.
const skew = 2 * time.Hour

// listing remembers the generations that there are, so that a look-up in a bucket waits for one round trip and not for
// two, and the order in which they are looked in.
type listing struct {
	mu    sync.Mutex
	names []string // newest first
	at    time.Time
	days  [3]string // that the order is for
	order order
}

// An order is where to look first, and what is the oldest of all. Many read it, and nobody writes.
type order struct {
	today, oldest string
	generations   []string // today's, then newest first
}

// candidates are the generations to look in: those listed, and those that may have come into being since then. Uploads
// that began yesterday still write there, and a clock that is ahead writes into tomorrow.
func (s *Store) candidates(ctx context.Context) (order, error) {
	now := s.now()
	days := [3]string{s.dayOf(now), s.dayOf(now.Add(skew)), s.dayOf(now.Add(-day))}
	l := &s.listing
	l.mu.Lock()
	defer l.mu.Unlock()
	if age := now.Sub(l.at); age < 0 || age >= listedFor {
		l.mu.Unlock()
		err := s.Refresh(ctx)
		l.mu.Lock()
		if err != nil {
			return order{}, err
		}
	}
	if l.days != days {
		l.days, l.order = days, newOrder(l.names, days)
	}
	return l.order, nil
}

// Refresh lists the generations anew. Whoever calls it every minute spares every look-up the waiting for it.
func (s *Store) Refresh(ctx context.Context) error {
	now := s.now()
	names, err := s.generations(ctx)
	if err != nil {
		return err
	}
	l := &s.listing
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names, l.at, l.days = names, now, [3]string{}
	return nil
}

func newOrder(listed []string, days [3]string) order {
	names := slices.Clone(listed)
	for _, g := range days {
		if !slices.Contains(names, g) {
			names = append(names, g)
		}
	}
	slices.Sort(names)
	o := order{today: days[0], oldest: names[0], generations: []string{days[0]}}
	for _, g := range slices.Backward(names) {
		if g != o.today {
			o.generations = append(o.generations, g)
		}
	}
	return o
}

// A finding is where search found something.
type finding struct {
	generation string
	dying      bool // it may be swept while a push that begins now is under way
}

// search returns what the newest generation has, today's before any other; visit says that it found nothing by an
// absent error or by errDamaged. All generations are visited at once, unless the storage answers at once.
func search[T any](ctx context.Context, s *Store, o object, visit func(ctx context.Context, path string) (T, error)) (found T, at finding, err error) {
	order, err := s.candidates(ctx)
	if err != nil {
		return found, finding{}, err
	}
	if !s.storage.Immediate() {
		if path := o.in(order.today); s.written.Has(path) {
			found, err := visit(ctx, path)
			if !objects.Absent(err) && !errors.Is(err, errDamaged) {
				return found, finding{generation: order.today}, err
			}
			s.written.Forget(path)
		}
	}
	var visited []chan visitOf[T] // nil: one is visited when those before it have nothing
	if !s.storage.Immediate() {
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		defer running.Wait()
		defer cancel() // whoever still looks looks in vain
		visited = make([]chan visitOf[T], len(order.generations))
		for i, g := range order.generations {
			visited[i] = make(chan visitOf[T], 1)
			running.Go(func() {
				found, err := contain.Call(func() (T, error) { return visit(ctx, o.in(g)) })
				visited[i] <- visitOf[T]{found, err}
			})
		}
	}
	var damage error
	for i, g := range order.generations {
		var r visitOf[T]
		if visited != nil {
			r = <-visited[i]
		} else {
			r.found, r.err = visit(ctx, o.in(g))
		}
		switch {
		case errors.Is(r.err, errDamaged):
			damage = r.err
		case !objects.Absent(r.err):
			return r.found, finding{g, s.dying(g, order.today, g == order.oldest)}, r.err
		}
	}
	if damage != nil { // whoever needs it sends it again, which repairs it
		return found, finding{}, fmt.Errorf("%w: %s: %w", ErrNotFound, o, damage)
	}
	return found, finding{}, ErrNotFound
}

// A visitOf is what one generation has.
type visitOf[T any] struct {
	found T
	err   error
}
