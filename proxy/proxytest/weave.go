package proxytest

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"
)

// A Weave lets several actors run at the same time, of whom only one goes on at a time: each call that they make of the
// storage (WovenDriver) or of a registry (Direct) waits until it is chosen. Which one that is follows from a seed.
//
// Most races show with few changes at the right moment (Burckhardt et al., "A randomized scheduler with probabilistic
// guarantees of finding bugs", ASPLOS 2010): the actors have an order, the first that can go on does, and at a few steps that
// are drawn beforehand the one that runs becomes the last. Sometimes each step is drawn instead.
//
// It works in the bubble of a synctest.Test, whose clock goes on by a millisecond with each step. What runs in the bubble must
// wait for nothing but channels: whoever waits for a sync.Mutex whose holder makes a call would wait for good.
type Weave struct {
	rand *rand.Rand
	news chan struct{} // something may have changed while nobody could go on

	mu     sync.Mutex
	parked []*step
	left   int // actors that have not ended
	over   bool

	threads []*thread
	round   int
	steps   int
	changes []int  // steps at which the one that runs becomes the last
	writes  bool   // steps are counted only where something is written
	jumps   bool   // each step is drawn
	log     []line // what was chosen
}

// An Actor does something in the context that it is given.
type Actor struct {
	Name string
	Do   func(ctx context.Context)
	At   func(step int) // nil: nothing; called before each of its steps, which are counted from 1
}

// A thread is one actor and all that is done for it.
type thread struct {
	weave *Weave
	name  string
	rank  int // the lowest goes first
	steps int
	at    func(step int)
}

// A step is a call that waits.
type step struct {
	*thread
	what  string
	round int
	turn  chan struct{} // closed when it has come
}

type line struct{ who, what string }

type threadKey struct{}

// NewWeave draws from r.
func NewWeave(r *rand.Rand) *Weave { return &Weave{rand: r, news: make(chan struct{}, 1)} }

// Step waits until the actor of ctx may make a call. Who belongs to no actor goes on at once.
func Step(ctx context.Context, what string) {
	th, ok := ctx.Value(threadKey{}).(*thread)
	if !ok {
		return
	}
	w := th.weave
	w.mu.Lock()
	if w.over {
		w.mu.Unlock()
		return
	}
	s := &step{thread: th, what: what, round: w.round, turn: make(chan struct{})}
	w.parked = append(w.parked, s)
	w.mu.Unlock()
	w.tell()
	<-s.turn
}

func (w *Weave) tell() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// Run returns when all actors have ended, and nothing that was begun for them waits for its turn.
func (w *Weave) Run(ctx context.Context, actors ...Actor) {
	w.draw(len(actors))
	w.left, w.over = len(actors), false
	for i, a := range actors {
		th := &thread{weave: w, name: a.Name, rank: i, at: a.At}
		w.threads = append(w.threads, th)
		go func() {
			ctx := context.WithValue(ctx, threadKey{}, th)
			Step(ctx, "begins")
			a.Do(ctx)
			w.mu.Lock()
			w.left--
			w.mu.Unlock()
			w.tell()
		}()
	}
	ranks := w.rand.Perm(len(actors))
	for i, th := range w.threads {
		th.rank = ranks[i]
	}
	for {
		synctest.Wait()
		s, left := w.next()
		switch {
		case s != nil:
			time.Sleep(time.Millisecond)
			if s.steps++; s.at != nil {
				s.at(s.steps)
			}
			close(s.turn)
		case left == 0:
			return
		default:
			<-w.news // time passes until somebody has slept enough
		}
	}
}

// draw says when it is somebody else's turn.
func (w *Weave) draw(actors int) {
	w.threads, w.changes, w.log, w.steps, w.round = nil, nil, nil, 0, 0
	w.jumps = w.rand.IntN(8) == 0
	w.writes = w.rand.IntN(2) == 0
	within := []int{10, 30, 60, 120, 250}[w.rand.IntN(5)]
	for range 1 + w.rand.IntN(1+actors) {
		w.changes = append(w.changes, 1+w.rand.IntN(within))
	}
}

// volatile are the parts of a call's name that no seed tells.
var volatile = regexp.MustCompile(`/uploads/.*|/(_parts|_staging)/.*|-[A-Z0-9]{26}`)

var writes = regexp.MustCompile(`^(PutContent|Move|Delete|Writer|PUT|POST|PATCH|DELETE) `)

// next takes the step that is to be made, nil when nobody can go on; left is how many actors have not ended. Of what one actor
// does at the same time the order is drawn.
func (w *Weave) next() (chosen *step, left int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.round++
	if len(w.parked) == 0 {
		w.over = w.left == 0
		return nil, w.left
	}
	slices.SortStableFunc(w.parked, func(a, b *step) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.round, b.round),
			strings.Compare(volatile.ReplaceAllString(a.what, ""), volatile.ReplaceAllString(b.what, "")))
	})
	first := w.parked[0].thread
	if w.jumps && w.rand.IntN(4) == 0 {
		first = w.parked[w.rand.IntN(len(w.parked))].thread
	}
	var own []*step
	for _, s := range w.parked {
		if s.thread == first {
			own = append(own, s)
		}
	}
	chosen = own[0]
	if w.rand.IntN(3) == 0 {
		chosen = own[w.rand.IntN(len(own))]
	}
	if counts := !w.writes || writes.MatchString(chosen.what); counts {
		w.steps++
		if i := slices.Index(w.changes, w.steps); i >= 0 {
			w.changes = slices.Delete(w.changes, i, i+1)
			for _, th := range w.threads {
				first.rank = max(first.rank, th.rank+1)
			}
			return w.take(w.first(chosen)), w.left
		}
	}
	return w.take(chosen), w.left
}

// first is the step of another actor than that of last, which has just become the last, if one can go on.
func (w *Weave) first(last *step) *step {
	for _, s := range w.parked {
		if s.rank < last.rank {
			last = s
		}
	}
	return last
}

func (w *Weave) take(s *step) *step {
	w.parked = slices.DeleteFunc(w.parked, func(o *step) bool { return o == s })
	w.log = append(w.log, line{s.name, s.what})
	return s
}

// Log is what happened: whose turn it was, from which step to which.
func (w *Weave) Log() string {
	var b strings.Builder
	for i, l := range w.log {
		if i == 0 || w.log[i-1].who != l.who {
			fmt.Fprintf(&b, "%s:\n", l.who)
		}
		fmt.Fprintf(&b, "    %s\n", l.what)
	}
	return b.String()
}
