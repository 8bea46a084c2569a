package upstream

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// What http.Transport does with a body of known length is io.Copy to the connection, which hands it to
// ReadFrom of a connection that has one. Large reads and writes make a layer cheaper: one system call for
// 2 MiB instead of sixty-four, and over TLS records that are joined (gather.go). BenchmarkUpload and `make bench`
// measure it.
//
// A stream begins with a small buffer and gets a larger one when it keeps filling that; larger ones are
// limited in number. So 64 slow uploads hold 64 small buffers, and a few fast ones are fast.
const (
	readsToGrow   = 4
	readsToShrink = 32
	lastWords     = 200 * time.Millisecond
)

// stallTimeout is after how long a registry that takes no byte, or that hardly goes on with its answer (stallBytes), is gone.
const stallTimeout = 5 * time.Minute

// A size of buffer, its free ones, and how many may be in use.
type size struct {
	bytes int
	pool  sync.Pool
	slots chan struct{} // nil: any number
}

// sizes are shared by all registries of the process: memory is what they have in common. Together the larger
// ones are at most 14 MiB.
var sizes = [...]*size{newSize(32<<10, 0), newSize(256<<10, 24), newSize(2<<20, 4)}

func newSize(bytes, atOnce int) *size {
	s := &size{bytes: bytes}
	s.pool.New = func() any { b := make([]byte, bytes); return &b }
	if atOnce > 0 {
		s.slots = make(chan struct{}, atOnce)
	}
	return s
}

// take is a buffer, nil when all are in use.
func (s *size) take() *[]byte {
	if s.slots != nil {
		select {
		case s.slots <- struct{}{}:
		default:
			return nil
		}
	}
	return s.pool.Get().(*[]byte)
}

func (s *size) give(buf *[]byte) {
	s.pool.Put(buf)
	if s.slots != nil {
		<-s.slots
	}
}

// pump copies r to w with buffers that fit the stream's speed.
func pump(w io.Writer, r io.Reader) (n int64, err error) {
	at := 0
	buf := sizes[at].take()
	defer func() { sizes[at].give(buf) }()
	change := func(to int) {
		if larger := sizes[to].take(); larger != nil {
			sizes[at].give(buf)
			at, buf = to, larger
		}
	}
	full, few := 0, 0 // reads in a row that say the buffer is too small, or too large
	for {
		nr, rerr := r.Read(*buf)
		if nr > 0 {
			nw, werr := w.Write((*buf)[:nr])
			n += int64(nw)
			if werr != nil {
				return n, werr
			}
		}
		if rerr != nil {
			if errors.Is(rerr, io.EOF) {
				rerr = nil
			}
			return n, rerr
		}
		if full++; nr < sizes[at].bytes {
			full = 0
		}
		if few++; at == 0 || nr >= sizes[at-1].bytes {
			few = 0
		}
		switch {
		case few >= readsToShrink:
			few = 0
			change(at - 1)
		case full >= readsToGrow && at+1 < len(sizes):
			full = 0
			change(at + 1)
		}
	}
}

// conn is a connection to a registry.
type conn struct {
	net.Conn
	below *gather // nil without TLS
}

var (
	_ io.ReaderFrom = (*conn)(nil)
	_ syscall.Conn  = (*conn)(nil)
)

// SyscallConn is that of the socket, for whoever wants to know whether anything has arrived.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	socket := c.Conn
	if c.below != nil {
		socket = c.below.Conn
	}
	if s, ok := socket.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// Whole is false while a part of a TLS record has been read and the rest of it has not come.
func (c *conn) Whole() bool { return c.below == nil || c.below.in.whole() }

// Write joins the records of one call. After an error of the connection it says of how many bytes they were at most, and
// nought only where none of them left: what may have been seen is not to be sent again.
func (c *conn) Write(b []byte) (int, error) {
	if c.below == nil || len(b) <= recordSize {
		return c.Conn.Write(b)
	}
	c.below.begin()
	n, err := c.Conn.Write(b)
	if sent, failed := c.below.end(); err == nil && failed != nil {
		return min(sent, len(b)), failed
	}
	return n, err
}

// Close does not say goodbye while a peer takes nothing: TLS would wait for its turn to write.
func (c *conn) Close() error {
	if c.below != nil && c.below.busy.Load() {
		return c.below.Close()
	}
	return c.Conn.Close()
}

// ReadFrom sends a body.
func (c *conn) ReadFrom(r io.Reader) (int64, error) {
	w := &patient{w: c, c: c}
	n, err := pump(w, r)
	if w.failed {
		// A registry that refuses a body in its middle answers and closes. The answer is read by
		// another goroutine at this moment; an error returned now would win over it.
		time.Sleep(lastWords)
	}
	if derr := w.done(); err == nil {
		err = derr
	}
	return n, err
}

// patient writes to a connection that must move on.
type patient struct {
	w      io.Writer
	c      net.Conn // below w; nil: not known, and any patience
	set    time.Time
	failed bool
}

func (p *patient) Write(b []byte) (n int, err error) {
	if now := time.Now(); p.c != nil && now.Sub(p.set) > stallTimeout/4 {
		p.set = now
		if err := p.c.SetWriteDeadline(now.Add(stallTimeout + stallTimeout/4)); err != nil {
			return 0, err
		}
	}
	n, err = p.w.Write(b)
	p.failed = err != nil
	return n, err
}

// done leaves no deadline to what follows.
func (p *patient) done() error {
	if p.c == nil {
		return nil
	}
	return p.c.SetWriteDeadline(time.Time{})
}
