package proxy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// What a body is given. Only the time counts in which Sluice waits for the client, not that in which the client waits for
// the registry or the storage; a layer of any size over any usable line gets through.
const (
	slowTime  = 5 * time.Minute // of waiting in which slowBytes must come; as long as a registry may take no byte
	slowBytes = 64 << 10
	bodyTime  = sessionTTL // of waiting altogether: its upload's URL has ended by then
)

// errTooSlow ends a body that hardly comes.
type errTooSlow struct{ bytes, within string }

func (e *errTooSlow) Error() string {
	return fmt.Sprintf("the client sent less than %s while it was waited for for %s", e.bytes, e.within)
}

// tooSlow is true for a client that was cut off and is still there: net/http ends the context of a request whose body
// cannot be read, as if it had gone.
func tooSlow(err error) bool {
	_, is := errors.AsType[*errTooSlow](err)
	return is
}

// slowBodies looks at all bodies that are being read, now and then, and cuts off clients that send theirs byte by byte, or
// not at all. http.Server's ReadTimeout would be for whole layers, however large; a timer for each body would cost a small
// one as much as reading it.
type slowBodies struct {
	mu      sync.Mutex
	window  time.Duration
	first   *slowBody
	looking bool // look will be called
}

// A slowBody knows how long it has been waited for.
type slowBody struct {
	r io.Reader
	w http.ResponseWriter // whose deadline ends the Read that waits

	before, after *slowBody // below slowBodies.mu

	mu     sync.Mutex
	since  time.Time     // of a Read that waits; zero: none does
	waited time.Duration // since slowBytes came
	total  time.Duration
	bytes  int64 // that came in waited
	over   bool  // nobody waits for it any more
	slow   *errTooSlow
}

func (s *slowBodies) add(b *slowBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.after = s.first; b.after != nil {
		b.after.before = b
	}
	s.first = b
	if !s.looking {
		s.looking = true
		time.AfterFunc(s.window/8, s.look)
	}
}

// remove leaves the deadline of the connection to the next request: a look that has begun is over when it returns.
func (s *slowBodies) remove(b *slowBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.after != nil {
		b.after.before = b.before
	}
	if b.before != nil {
		b.before.after = b.after
	} else {
		s.first = b.after
	}
}

func (s *slowBodies) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for b := s.first; b != nil; b = b.after {
		b.check(s.window)
	}
	if s.looking = s.first != nil; s.looking {
		time.AfterFunc(s.window/8, s.look)
	}
}

func (b *slowBody) Read(p []byte) (int, error) {
	start := time.Now()
	b.mu.Lock()
	b.since = start
	b.mu.Unlock()
	n, err := b.r.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	took := time.Since(start)
	b.since = time.Time{}
	b.waited += took
	b.total += took
	if b.bytes += int64(n); b.bytes >= slowBytes {
		b.waited, b.bytes = 0, 0
	}
	b.over = err != nil
	if b.slow != nil && err != nil && !errors.Is(err, io.EOF) {
		err = b.slow
	}
	return n, err
}

// check ends the Read that waits if that has been too long.
func (b *slowBody) check(window time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over { // the server reads now, to see whether the client is still there, and a deadline would be taken for its end
		return
	}
	var now time.Duration
	if !b.since.IsZero() {
		now = time.Since(b.since)
	}
	switch {
	case b.waited+now >= window:
		b.slow = &errTooSlow{"64 KiB", window.String()}
	case b.total+now >= bodyTime:
		b.slow = &errTooSlow{"its body", bodyTime.String()}
	default:
		return
	}
	_ = http.NewResponseController(b.w).SetReadDeadline(time.Unix(1, 0))
}
