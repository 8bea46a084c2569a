package upstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestRecordsAreFollowedHoweverTheyCome(t *testing.T) {
	record := append([]byte{23, 3, 3, 1, 2}, make([]byte, 258)...)
	wire := bytes.Repeat(record, 3)
	for size := 1; size <= len(wire); size++ {
		var r records
		for at := 0; at < len(wire); at += size {
			end := min(at+size, len(wire))
			r.came(wire[at:end])
			if want := end%len(record) == 0; r.whole() != want {
				t.Fatalf("in pieces of %d: whole is %v behind %d bytes", size, r.whole(), end)
			}
		}
	}
}

// heldBack joins what is written.
type heldBack struct {
	net.Conn
	held *bytes.Buffer // nil: nothing is
}

func (h *heldBack) Write(b []byte) (int, error) {
	if h.held != nil {
		return h.held.Write(b)
	}
	return h.Conn.Write(b)
}

// An answer that nobody asked for, of which TLS has the beginning: its end must not come as the answer to the next request.
func TestAnAnswerThatHasBegunToComeUnaskedIsNotTheNext(t *testing.T) {
	cert, ca := authority(t, "one")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections atomic.Int32
	var all sync.WaitGroup
	serve := func(below *heldBack, first bool) {
		defer below.Close()
		c := tls.Server(below, &tls.Config{Certificates: []tls.Certificate{cert}})
		br := bufio.NewReader(c)
		say := func(body string) { fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body) }
		var rest []byte
		for {
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			switch {
			case rest != nil:
				_, _ = below.Conn.Write(rest)
				return
			case !first:
				say("asked")
				continue
			}
			below.held = &bytes.Buffer{}
			say("asked")
			say("unasked")
			wire := below.held.Bytes()
			_, _ = below.Conn.Write(wire[:len(wire)-10])
			rest = wire[len(wire)-10:]
		}
	}
	all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			first := connections.Add(1) == 1
			all.Go(func() { serve(&heldBack{Conn: c}, first) })
		}
	})
	r, _ := open(t, Options{URL: "https://" + ln.Addr().String(), Credentials: Anonymous, CA: file})
	for range 2 {
		resp, err := r.Do(context.Background(), Request{Repository: "app", Path: "tags/list"})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != "asked" {
			t.Errorf("%q, %v", b, err)
		}
	}
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections, want another for the second request", n)
	}
	_ = r.Close()
	ln.Close()
	all.Wait()
}
