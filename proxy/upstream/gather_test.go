package upstream

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// counted counts the writes that reach the socket, and fails those after failAt, if that is set, behind so many bytes.
type counted struct {
	net.Conn
	writes atomic.Int64
	failAt int64
	behind int
}

func (c *counted) Write(b []byte) (int, error) {
	if n := c.writes.Add(1); c.failAt > 0 && n >= c.failAt {
		n, _ := c.Conn.Write(b[:c.behind])
		return n, errors.New("cable cut")
	}
	return c.Conn.Write(b)
}

// gathered is a connection of ours over TLS, what is below it, and what its other end reads.
func gathered(t *testing.T) (*conn, *counted, <-chan []byte) {
	t.Helper()
	certificates := httptest.NewTLSServer(nil)
	t.Cleanup(certificates.Close)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", certificates.TLS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	got := make(chan []byte, 1)
	go func() {
		defer close(got)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		b, _ := io.ReadAll(c)
		got <- b
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	below := &counted{Conn: raw}
	g := &gather{Conn: below}
	tc := tls.Client(g, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return &conn{Conn: tc, below: g}, below, got
}

func TestRecordsOfOneWriteAreJoined(t *testing.T) {
	c, below, got := gathered(t)
	body := bytes.Repeat([]byte("0123456789abcdef"), 2<<20/16+1) // ends in the middle of a record
	before := below.writes.Load()
	for _, part := range [][]byte{body[:100], body[100 : 1<<20], body[1<<20:]} {
		if n, err := c.Write(part); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	// 129 records.
	if n := below.writes.Load() - before; n > 11 {
		t.Errorf("%d writes for 2 MiB", n)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if b := <-got; !bytes.Equal(b, body) {
		t.Errorf("%d bytes arrived, not the %d that were sent", len(b), len(body))
	}
}

func TestAJoinedWriteThatFailsIsTheLast(t *testing.T) {
	c, below, _ := gathered(t)
	defer c.Close()
	below.failAt = below.writes.Load() + 2
	if n, err := c.Write(make([]byte, 1<<20)); err == nil || n == 1<<20 {
		t.Errorf("wrote %d, %v, want an error", n, err)
	}
	below.failAt = 0
	writes := below.writes.Load()
	if _, err := c.Write(make([]byte, 100)); err == nil {
		t.Error("a record followed one that was lost")
	}
	if below.writes.Load() != writes {
		t.Error("something was sent after a record was lost")
	}
}

// A chunk of an upload of which the registry has seen a part is not sent once more, so what has left is told.
func TestAJoinedWriteThatFailsTellsWhetherAnythingHasLeft(t *testing.T) {
	for _, behind := range []int{0, recordSize + 1<<10} {
		c, below, _ := gathered(t)
		below.failAt, below.behind = below.writes.Load()+1, behind
		if n, err := c.Write(make([]byte, 2*recordSize)); err == nil || (n > 0) != (behind > 0) || n >= 2*recordSize {
			t.Errorf("%d bytes have left: wrote %d, %v", behind, n, err)
		}
		c.Close()
	}
}

// A registry that takes nothing must not keep a cancelled request from ending.
func TestCloseDoesNotWaitForAPeerThatTakesNothing(t *testing.T) {
	certificates := httptest.NewTLSServer(nil)
	t.Cleanup(certificates.Close)
	client, server := newPipe()
	g := &gather{Conn: client}
	tc := tls.Client(g, &tls.Config{InsecureSkipVerify: true})
	peer := tls.Server(server, certificates.TLS)
	shaken := make(chan error, 1)
	go func() { shaken <- peer.Handshake() }()
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	c := &conn{Conn: tc, below: g}
	written := make(chan error, 1)
	go func() { _, err := c.Write(make([]byte, 1<<20)); written <- err }()
	for { // until the pipe is full
		client.(*end).out.mu.Lock()
		full := client.(*end).out.n == pipeBuffer
		client.(*end).out.mu.Unlock()
		if full {
			break
		}
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	c.Close()
	if err := <-written; err == nil {
		t.Error("the write succeeded")
	}
	if took := time.Since(began); took > 4*time.Second { // crypto/tls gives an alert 5 s
		t.Errorf("Close took %s", took)
	}
}
