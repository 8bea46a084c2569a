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

// unhurried cuts off clients that send their body byte by byte, or not at all. http.Server's ReadTimeout would be for whole
// layers, however large.
func (p *Proxy) unhurried(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		b := &slowBody{ReadCloser: r.Body, window: p.slowTime, cut: func() {
			_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
		}}
		b.timer = time.AfterFunc(b.window, b.check)
		defer b.leave()
		own := r.WithContext(r.Context()) // a copy: the server looks at the body of its own request when it answers
		own.Body = b
		next.ServeHTTP(w, own)
	})
}

// A slowBody knows how long it has been waited for.
type slowBody struct {
	io.ReadCloser
	window time.Duration
	cut    func() // ends the Read that waits
	timer  *time.Timer

	mu     sync.Mutex
	since  time.Time     // of a Read that waits; zero: none does
	waited time.Duration // since slowBytes came
	total  time.Duration
	bytes  int64 // that came in waited
	slow   *errTooSlow
	left   bool // the handler has ended, and the connection may have another request
}

func (b *slowBody) Read(p []byte) (int, error) {
	start := time.Now()
	b.mu.Lock()
	b.since = start
	b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	took := time.Since(start)
	b.since = time.Time{}
	b.waited += took
	b.total += took
	if b.bytes += int64(n); b.bytes >= slowBytes {
		b.waited, b.bytes = 0, 0
	}
	if b.slow != nil && err != nil && !errors.Is(err, io.EOF) {
		err = b.slow
	}
	return n, err
}

// check is called by the timer, when it may have been too long and never much later.
func (b *slowBody) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left {
		return
	}
	var now time.Duration
	if !b.since.IsZero() {
		now = time.Since(b.since)
	}
	switch {
	case b.waited+now >= b.window:
		b.slow = &errTooSlow{"64 KiB", b.window.String()}
	case b.total+now >= bodyTime:
		b.slow = &errTooSlow{"its body", bodyTime.String()}
	default:
		b.timer.Reset(max(b.window-b.waited-now, b.window/8))
		return
	}
	b.cut()
}

func (b *slowBody) leave() {
	b.timer.Stop()
	b.mu.Lock()
	b.left = true // a check that has begun is over
	b.mu.Unlock()
}
