package upstream

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"sluice/proxy/internal/h1"
)

// stallBytes must come of an answer's body while stallTimeout is waited for it: as much as a client must send (proxy's slowbody.go).
const stallBytes = 64 << 10

// steady makes an http.Transport do what h1.Client does: a body that stops coming, or hardly comes, is an error. net/http bounds
// the time to the end of the header only.
type steady struct{ over http.RoundTripper }

var _ http.RoundTripper = steady{}

func (s steady) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := s.over.RoundTrip(req.WithContext(ctx))
	if err != nil || resp.Body == http.NoBody {
		cancel(nil)
		return resp, err
	}
	b := &steadyBody{ReadCloser: resp.Body, cancel: cancel, patience: stallTimeout}
	b.timer = time.AfterFunc(b.patience/4, b.look)
	resp.Body = b
	return resp, nil
}

// CloseIdleConnections closes those of the transport below.
func (s steady) CloseIdleConnections() {
	if t, ok := s.over.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// steadyBody is looked at now and then, which costs less than a timer for each Read.
type steadyBody struct {
	io.ReadCloser
	cancel   context.CancelCauseFunc
	patience time.Duration
	timer    *time.Timer

	mu      sync.Mutex
	since   time.Time     // of a Read that waits; zero: none does
	waited  time.Duration // since stallBytes came: whoever reads may take any time
	bytes   int           // that came in waited
	stalled bool
	over    bool // nobody looks any more
}

func (b *steadyBody) Read(p []byte) (int, error) {
	start := time.Now()
	b.mu.Lock()
	b.since = start
	b.mu.Unlock()
	n, err := b.ReadCloser.Read(p)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Time{}
	b.waited += time.Since(start)
	if b.bytes += n; b.bytes >= stallBytes {
		b.waited, b.bytes = 0, 0
	}
	if err != nil {
		b.end()
		if b.stalled {
			err = h1.ErrStalled
		}
	}
	return n, err
}

// look ends a Read that has waited for too long, together with those before it.
func (b *steadyBody) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	if !b.since.IsZero() && b.waited+time.Since(b.since) >= b.patience {
		b.stalled = true
		b.cancel(h1.ErrStalled)
		return
	}
	b.timer.Reset(b.patience / 4)
}

// end is called with the lock held.
func (b *steadyBody) end() {
	b.over = true
	b.timer.Stop()
}

func (b *steadyBody) Close() error {
	b.mu.Lock()
	b.end()
	b.mu.Unlock()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
