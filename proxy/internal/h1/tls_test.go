package h1

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// serveTLS is serve over TLS. Records are as large as what is written, and leave together with what is written while the
// peer's conn is corked.
func serveTLS(t *testing.T, play func(n int, c *peer, below *corked)) (s *server, url string) {
	t.Helper()
	h := httptest.NewTLSServer(nil)
	cfg := &tls.Config{Certificates: h.TLS.Certificates, DynamicRecordSizingDisabled: true}
	h.Close()
	s = serve(t, func(n int, c *peer) {
		below := &corked{Conn: c.Conn}
		c.Conn = tls.Server(below, cfg)
		c.r = bufio.NewReader(c.Conn)
		play(n, c, below)
	})
	return s, strings.Replace(s.url(), "http://", "https://", 1)
}

// corked joins what is written.
type corked struct {
	net.Conn
	on   bool
	held []byte
}

func (c *corked) Write(b []byte) (int, error) {
	if c.on {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// SetWriteDeadline is what CloseWrite ends all writing with.
func (c *corked) SetWriteDeadline(time.Time) error { return nil }

func (c *corked) uncork() {
	c.on = false
	_, _ = c.Conn.Write(c.held)
	c.held = nil
}

// overTLS shows its socket, as the connections do that Sluice makes.
type overTLS struct {
	*tls.Conn
	raw *net.TCPConn
}

func (c *overTLS) SyscallConn() (syscall.RawConn, error) { return c.raw.SyscallConn() }

func newTLSClient(t *testing.T) *Client {
	c := newClient(t)
	c.DialTLS = func(ctx context.Context, network, address string) (net.Conn, error) {
		raw, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &overTLS{tls.Client(raw, &tls.Config{InsecureSkipVerify: true}), raw.(*net.TCPConn)}, nil
	}
	return c
}

// What is behind an answer may be neither in the reader nor on the socket, but in TLS: the rest of a record, or a
// record that came along with the last.
func TestWhatTLSHoldsBehindAnAnswerIsNotTheNext(t *testing.T) {
	const size = 10000 // the end of the body is read past the reader's buffer
	answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size))
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for name, say := range map[string]func(c *peer, below *corked){
		"in the same record": func(c *peer, _ *corked) { c.say(answer + poison) },
		"in the next record": func(c *peer, below *corked) { below.on = true; c.say(answer); c.say(poison); below.uncork() },
		"an end": func(c *peer, below *corked) {
			below.on = true
			c.say(answer)
			_ = c.Conn.(*tls.Conn).CloseWrite()
			below.uncork()
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, url := serveTLS(t, func(n int, c *peer, below *corked) {
				for {
					if _, _, more := c.request(); !more {
						return
					}
					if n == 0 {
						say(c, below)
						continue
					}
					c.say(ok)
				}
			})
			c := newTLSClient(t)
			resp, err := c.RoundTrip(request(t, "GET", url, ""))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(resp.Body, make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if c.idle() != 1 {
				t.Fatal("the connection was not kept, so this shows nothing")
			}
			if _, body, err := do(t, c, "PATCH", url, "chunk"); err != nil || body != "ok" {
				t.Errorf("%q, %v", body, err)
			}
			if s.accepted() != 2 {
				t.Errorf("%d connections", s.accepted())
			}
		})
	}
}

// To look costs no connection: TLS goes on behind a read that had no time.
func TestATLSConnectionIsUsedForManyRequests(t *testing.T) {
	var requests atomic.Int64
	s, url := serveTLS(t, func(_ int, c *peer, _ *corked) {
		for {
			_, body, more := c.request()
			if !more {
				return
			}
			requests.Add(1)
			c.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}
	})
	c := newTLSClient(t)
	const n = 200
	for i := range n {
		want := strings.Repeat("b", 1+i*100)
		if _, body, err := do(t, c, "PATCH", url, want); err != nil || body != want {
			t.Fatalf("request %d: %d bytes, %v", i, len(body), err)
		}
	}
	if requests.Load() != n || s.accepted() != 1 {
		t.Errorf("%d requests on %d connections", requests.Load(), s.accepted())
	}
}
