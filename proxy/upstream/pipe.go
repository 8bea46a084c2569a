package upstream

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipeBuffer is what one direction of a connection in memory holds at most. net.Pipe holds nothing: every
// write would wait for a reader that is ready, and a server that answers without reading for ever.
const pipeBuffer = 64 << 10

// listener is a net.Listener whose connections are made by its own dial, in memory.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*listener)(nil)

func newListener() *listener {
	return &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return memoryAddr{} }

func (l *listener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := newPipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, &dialError{errors.New("the embedded registry has been stopped")}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "embedded" }

// newPipe makes the two ends of a connection in memory.
func newPipe() (a, b net.Conn) {
	x, y := newHalf(), newHalf()
	return &end{in: x, out: y}, &end{in: y, out: x}
}

type end struct{ in, out *half }

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

// Close lets the peer read what was written before, as TCP does.
func (e *end) Close() error {
	e.out.closeWrite()
	e.in.closeRead()
	return nil
}

func (e *end) LocalAddr() net.Addr  { return memoryAddr{} }
func (e *end) RemoteAddr() net.Addr { return memoryAddr{} }

func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.readBy, t)
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.writeBy, t)
	return nil
}

// half is one direction: a ring of bytes with one condition for everything that may change.
type half struct {
	mu      sync.Mutex
	changed sync.Cond
	ring    []byte // made at the first write
	start   int
	n       int
	ended   bool // the writer closed: io.EOF behind what is left
	gone    bool // the reader closed
	readBy  deadline
	writeBy deadline
}

type deadline struct {
	passed bool
	timer  *time.Timer
	gen    int // of the timer: a stopped one may still be on its way
}

func newHalf() *half {
	h := &half{}
	h.changed.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.readBy.passed:
			return 0, os.ErrDeadlineExceeded
		case h.n > 0:
			n := copy(p, h.ring[h.start:min(h.start+h.n, len(h.ring))])
			if n < len(p) && n < h.n {
				n += copy(p[n:], h.ring[:h.n-n])
			}
			h.start = (h.start + n) % len(h.ring)
			h.n -= n
			h.changed.Broadcast()
			return n, nil
		case h.ended:
			return 0, io.EOF
		case len(p) == 0:
			return 0, nil
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (written int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.ended:
			return written, net.ErrClosed
		case h.gone:
			return written, io.ErrClosedPipe
		case h.writeBy.passed:
			return written, os.ErrDeadlineExceeded
		case len(p) == 0:
			return written, nil
		}
		if h.ring == nil {
			h.ring = make([]byte, pipeBuffer)
		}
		if h.n == len(h.ring) {
			h.changed.Wait()
			continue
		}
		at := (h.start + h.n) % len(h.ring)
		end := len(h.ring)
		if at < h.start {
			end = h.start
		}
		n := copy(h.ring[at:end], p)
		h.n += n
		written += n
		p = p[n:]
		h.changed.Broadcast()
	}
}

func (h *half) closeWrite() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	h.changed.Broadcast()
}

func (h *half) closeRead() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	h.ring, h.n = nil, 0
	for _, d := range []*deadline{&h.readBy, &h.writeBy} {
		if d.timer != nil {
			d.timer.Stop()
		}
	}
	h.changed.Broadcast()
}

func (h *half) setDeadline(d *deadline, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.gen++
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.passed = false
	if t.IsZero() {
		return
	}
	wait := time.Until(t)
	if wait <= 0 {
		d.passed = true
		h.changed.Broadcast()
		return
	}
	gen := d.gen
	d.timer = time.AfterFunc(wait, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if d.gen == gen {
			d.passed = true
			h.changed.Broadcast()
		}
	})
}
