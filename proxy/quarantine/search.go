package quarantine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/proxy/internal/objects"
)

// listedFor is how long a list of the generations is believed. Every look-up asks in the generations of now all the
// same, see candidates, and any other becomes older: a list can only name one that has been swept meanwhile.
const listedFor = time.Minute

// skew is how far the clock of another replica may go ahead of ours.
const skew = 2 * time.Hour

// listing remembers the generations that there are, so that a look-up in a bucket waits for one round trip and not for
// two.
type listing struct {
	mu    sync.Mutex
	names []string // newest first
	at    time.Time
}

// candidates are the generations to look in, newest first: those listed, and those that may have come into being since
// then. Uploads that began yesterday still write there, and a clock that is ahead writes into tomorrow.
func (s *Store) candidates(ctx context.Context) ([]string, error) {
	now := s.now()
	s.listing.mu.Lock()
	names, age := s.listing.names, now.Sub(s.listing.at)
	s.listing.mu.Unlock()
	if age < 0 || age >= listedFor {
		var err error
		if names, err = s.generations(ctx); err != nil {
			return nil, err
		}
		s.listing.mu.Lock()
		s.listing.names, s.listing.at = names, now
		s.listing.mu.Unlock()
	}
	names = slices.Clone(names)
	for _, t := range []time.Time{now, now.Add(skew), now.Add(-day)} {
		if g := t.UTC().Format(dayFormat); !slices.Contains(names, g) {
			names = append(names, g)
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	return names, nil
}

// A finding is where search found something.
type finding struct {
	generation string
	dying      bool // it may be swept while a push that begins now is under way
}

// search visits all generations at once and returns what the newest one has, today's before any other; visit says that
// it found nothing by an absent error or by errDamaged.
func search[T any](ctx context.Context, s *Store, o object, visit func(ctx context.Context, path string) (T, error)) (found T, at finding, err error) {
	all, err := s.candidates(ctx)
	if err != nil {
		return found, finding{}, err
	}
	today := s.Generation()
	order := append([]string{today}, slices.DeleteFunc(slices.Clone(all), func(g string) bool { return g == today })...)

	type result struct {
		found T
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel() // whoever still looks looks in vain
	results := make([]chan result, len(order))
	for i, g := range order {
		results[i] = make(chan result, 1)
		running.Go(func() {
			found, err := visit(ctx, o.in(g))
			results[i] <- result{found, err}
		})
	}
	var damage error
	for i, g := range order {
		switch r := <-results[i]; {
		case errors.Is(r.err, errDamaged):
			damage = r.err
		case !objects.Absent(r.err):
			return r.found, finding{g, s.dying(g, today, g == all[len(all)-1])}, r.err
		}
	}
	if damage != nil { // whoever needs it sends it again, which repairs it
		return found, finding{}, fmt.Errorf("%w: %s: %w", ErrNotFound, o, damage)
	}
	return found, finding{}, fmt.Errorf("%w: %s", ErrNotFound, o)
}
