//go:build soak

package soak

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"
)

// A faulty server answers some requests in its own way, for moments.
type faulty struct {
	name   string
	next   http.Handler
	faults []fault
	steps  []func(*http.Request) bool // which requests a moment is about
	dice   *dice
	tally  atomic.Pointer[tally]
	now    atomic.Pointer[moment]
}

type fault struct {
	name   string
	answer func(f *faulty, m *moment, w http.ResponseWriter, r *http.Request)
}

type moment struct {
	fault
	of    func(*http.Request) bool
	oneIn int
	over  chan struct{}
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m := f.now.Load(); m != nil && m.of(r) && f.dice.n(m.oneIn) == 0 {
		f.tally.Load().did(f.word(m.fault))
		m.answer(f, m, w, r)
		return
	}
	f.next.ServeHTTP(w, r)
}

func (f *faulty) word(x fault) string { return f.name + ": " + x.name }

// misbehave goes through the faults until ctx ends: each has its turn before one comes again.
func (f *faulty) misbehave(ctx context.Context, n *tally) {
	f.tally.Store(n)
	for _, x := range f.faults {
		n.expect(f.word(x))
	}
	for ctx.Err() == nil {
		for _, i := range f.dice.shuffled(len(f.faults)) {
			m := &moment{fault: f.faults[i], of: f.steps[f.dice.n(len(f.steps))], oneIn: 1 + f.dice.n(3), over: make(chan struct{})}
			f.dice.pause(ctx, time.Second)
			f.now.Store(m)
			f.dice.pause(ctx, 1500*time.Millisecond)
			f.now.Store(nil)
			close(m.over)
		}
	}
}

func status(code int, header ...string) func(*faulty, *moment, http.ResponseWriter, *http.Request) {
	return func(_ *faulty, _ *moment, w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"a bad moment"}]}`)
	}
}

func raw(text string) func(*faulty, *moment, http.ResponseWriter, *http.Request) {
	return func(_ *faulty, _ *moment, w http.ResponseWriter, _ *http.Request) {
		conn := hijack(w)
		defer conn.Close()
		_, _ = io.WriteString(conn, text)
	}
}

func hijack(w http.ResponseWriter) net.Conn {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	return conn
}

func reset(w http.ResponseWriter) {
	conn := hijack(w)
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// connections are the faults that any server has.
var connections = []fault{
	{"a reset", func(_ *faulty, _ *moment, w http.ResponseWriter, _ *http.Request) { reset(w) }},
	{"no HTTP at all", raw("220 mail.example ESMTP\r\n")},
	{"half a header", raw("HTTP/1.1 201 Created\r\nDocker-Cont")},
	{"half a body", raw("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000\r\n\r\n{\"err")},
	{"hangs, and takes nothing", func(_ *faulty, m *moment, _ http.ResponseWriter, r *http.Request) { hang(m, r) }},
	{"hangs after the body", func(_ *faulty, m *moment, _ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // net/http sees a client that goes away only then
		hang(m, r)
	}},
	{"does it and loses the answer", func(f *faulty, _ *moment, w http.ResponseWriter, r *http.Request) {
		f.next.ServeHTTP(httptest.NewRecorder(), r)
		reset(w)
	}},
	{"dawdles", func(f *faulty, _ *moment, w http.ResponseWriter, r *http.Request) {
		if f.dice.pause(r.Context(), 500*time.Millisecond); r.Context().Err() == nil {
			f.next.ServeHTTP(w, r)
		}
	}},
	{"trickles", func(f *faulty, _ *moment, w http.ResponseWriter, r *http.Request) {
		f.next.ServeHTTP(&trickle{ResponseWriter: w}, r)
	}},
	{"closes the connection", func(f *faulty, _ *moment, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		f.next.ServeHTTP(w, r)
	}},
}

func hang(m *moment, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-m.over:
	}
	panic(http.ErrAbortHandler)
}

// trickle writes the beginning of a body byte by byte.
type trickle struct {
	http.ResponseWriter
	written int
}

func (t *trickle) Write(b []byte) (int, error) {
	for i := range b {
		if t.written++; t.written > 500 {
			n, err := t.ResponseWriter.Write(b[i:])
			return i + n, err
		}
		if _, err := t.ResponseWriter.Write(b[i : i+1]); err != nil {
			return i, err
		}
		t.Flush()
	}
	return len(b), nil
}

func (t *trickle) Flush() { t.ResponseWriter.(http.Flusher).Flush() }

// is matches requests by method and a part of the path.
func is(method, part string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.Path, part) }
}

func every(*http.Request) bool { return true }
