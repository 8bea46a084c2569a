package upstream

import (
	"slices"
	"time"
)

const (
	// window is what a rate counts in: quotas are per second.
	window = time.Second
	// pauseAfterRefusal is how long an action rests when upstream has said "Rate exceeded": as long as its
	// bucket needs to fill again.
	pauseAfterRefusal = time.Second
	// maxRate bounds the memory of a lane.
	maxRate = 100_000
)

// A lane lets requests of one action through, at most `rate` in any second, and those that wait in turns: one of
// each repository, then the next of each. First come, first served would let one large push keep all
// others waiting. It is a plain state machine: whoever calls it holds a lock and tells it the time.
//
// After a refusal by upstream, whose quota others use too, the limit is halved, and comes back by a tenth of the rate per
// second (additive increase, multiplicative decrease, as TCP shares a line with others it knows nothing of).
type lane struct {
	rate  int
	limit int         // at most rate
	sent  []time.Time // a ring: when the last `rate` requests went
	n     int         // how many went

	resume  time.Time // nothing goes before
	halved  time.Time // when the limit was last halved
	changed time.Time // when the limit last changed either way

	lines   []*line // of repositories with somebody waiting; the first is next
	waiting int
}

// line is the queue of one repository.
type line struct {
	repo  string
	queue []*waiter
}

// waiter is one request in the queue.
type waiter struct {
	repo  string
	ready chan struct{} // closed when it may go
}

func newLane(rate int) *lane {
	return &lane{rate: rate, limit: rate, sent: make([]time.Time, rate)}
}

// take lets a request through at once, if nobody waits and the rate allows it.
func (l *lane) take(now time.Time) bool {
	if l.waiting > 0 || l.free(now, 0).After(now) {
		return false
	}
	l.went(now)
	return true
}

func (l *lane) went(now time.Time) {
	l.sent[l.n%l.rate] = now
	l.n++
}

// free is when the request may go that has `before` others before it. The k-th next one may go a
// second after the one that is `limit` places before it.
func (l *lane) free(now time.Time, before int) time.Time {
	l.recover(now)
	at := l.resume
	if i := l.n + before%l.limit - l.limit; i >= 0 {
		if t := l.sent[i%l.rate].Add(window); t.After(at) {
			at = t
		}
	}
	if now.After(at) {
		at = now
	}
	return at.Add(time.Duration(before/l.limit) * window)
}

// recover gives back a tenth of the rate for every second without a refusal.
func (l *lane) recover(now time.Time) {
	if l.limit == l.rate {
		return
	}
	if steps := int(min(now.Sub(l.changed)/time.Second, maxRate)); steps > 0 {
		l.limit = min(l.rate, l.limit+steps*max(1, l.rate/10))
		l.changed = l.changed.Add(time.Duration(steps) * time.Second)
	}
}

// slow is upstream's refusal. The requests that were on their way meanwhile are refused too, which is one
// refusal and not many.
func (l *lane) slow(now time.Time, wait time.Duration) {
	l.recover(now)
	if now.Sub(l.halved) >= window {
		l.limit, l.halved = max(1, l.limit/2), now
	}
	l.changed = now
	if at := now.Add(max(wait, pauseAfterRefusal)); at.After(l.resume) {
		l.resume = at
	}
}

// due is when a request of the repository would go if it joined now and nobody else came.
func (l *lane) due(now time.Time, repo string) time.Time {
	at := slices.IndexFunc(l.lines, func(q *line) bool { return q.repo == repo })
	own := 0
	if at < 0 {
		at = len(l.lines)
	} else {
		own = len(l.lines[at].queue)
	}
	before := own
	for i, q := range l.lines {
		switch {
		case i < at:
			before += min(len(q.queue), own+1)
		case i > at:
			before += min(len(q.queue), own)
		}
	}
	return l.free(now, before)
}

// join puts a request at the end of its repository's line.
func (l *lane) join(w *waiter) {
	l.waiting++
	for _, q := range l.lines {
		if q.repo == w.repo {
			q.queue = append(q.queue, w)
			return
		}
	}
	l.lines = append(l.lines, &line{repo: w.repo, queue: []*waiter{w}})
}

// leave takes out a request that waits no more. It does nothing to one that may go.
func (l *lane) leave(w *waiter) {
	for i, q := range l.lines {
		if q.repo != w.repo {
			continue
		}
		for j := range q.queue {
			if q.queue[j] == w {
				q.queue = append(q.queue[:j], q.queue[j+1:]...)
				l.waiting--
				break
			}
		}
		if len(q.queue) == 0 {
			l.lines = append(l.lines[:i], l.lines[i+1:]...)
		}
		return
	}
}

// advance lets go whoever may, and says when to look again; false: nobody waits.
func (l *lane) advance(now time.Time) (next time.Time, ok bool) {
	for l.waiting > 0 {
		if at := l.free(now, 0); at.After(now) {
			return at, true
		}
		q := l.lines[0]
		l.lines = l.lines[1:]
		w := q.queue[0]
		if q.queue = q.queue[1:]; len(q.queue) > 0 {
			l.lines = append(l.lines, q)
		}
		l.waiting--
		l.went(now)
		close(w.ready)
	}
	return time.Time{}, false
}
