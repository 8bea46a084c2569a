package h1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A server that closes an idle connection while a request is on its way.
func TestARequestOnAStaleConnectionIsSentOnceMore(t *testing.T) {
	for _, test := range []struct {
		method, body string
		again        bool
	}{
		{"GET", "", true},
		{"HEAD", "", true},
		{"PUT", "manifest", true},
		{"DELETE", "", false},
		{"POST", "", true},
		{"POST", "a whole blob", false},
		{"PATCH", "a chunk", false},
	} {
		t.Run(test.method+" "+test.body, func(t *testing.T) {
			var requests atomic.Int64
			s := serve(t, func(n int, c *peer) {
				for i := 0; ; i++ {
					_, body, more := c.request()
					if !more {
						return
					}
					if requests.Add(1); n == 0 && i == 1 {
						return // it has read the request, and ends without a word
					}
					if i+n > 0 && body != test.body {
						t.Errorf("body %q", body)
					}
					c.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			c := newClient(t)
			if _, _, err := do(t, c, "GET", s.url(), ""); err != nil {
				t.Fatal(err)
			}
			_, _, err := do(t, c, test.method, s.url(), test.body)
			if test.again != (err == nil) {
				t.Errorf("%v", err)
			}
			if want := map[bool]int64{true: 3, false: 2}[test.again]; requests.Load() != want {
				t.Errorf("%d requests, want %d", requests.Load(), want)
			}
		})
	}
}

func TestOnlyAReusedConnectionIsTriedAgain(t *testing.T) {
	s := serve(t, func(_ int, c *peer) { c.request() })
	c := newClient(t)
	if _, _, err := do(t, c, "GET", s.url(), ""); err == nil {
		t.Error("no error")
	}
	if s.accepted() != 1 {
		t.Errorf("%d connections", s.accepted())
	}
}

// Once a byte of an answer came the request has been seen.
func TestNothingIsSentAgainBehindAByteOfAnAnswer(t *testing.T) {
	s := serve(t, func(_ int, c *peer) {
		for i := 0; ; i++ {
			if _, _, more := c.request(); !more {
				return
			}
			if i == 1 {
				c.say("H")
				return
			}
			c.say(ok)
		}
	})
	c := newClient(t)
	if _, _, err := do(t, c, "GET", s.url(), ""); err != nil {
		t.Fatal(err)
	}
	if _, _, err := do(t, c, "GET", s.url(), ""); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	if s.accepted() != 1 {
		t.Errorf("%d connections", s.accepted())
	}
}

// No request goes over an idle connection that has ended, or that says something unasked: a PATCH must not be lost,
// and the answer to no question is nobody's.
func TestAnIdleConnectionIsLookedAtBeforeItIsUsed(t *testing.T) {
	for name, last := range map[string]func(c *peer){
		"ended":   func(*peer) {},
		"talking": func(c *peer) { c.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"); c.request() },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(n int, c *peer) {
				for {
					if _, _, more := c.request(); !more {
						return
					}
					c.say(ok)
					if n == 0 {
						last(c)
						return
					}
				}
			})
			c := newClient(t)
			if _, _, err := do(t, c, "GET", s.url(), ""); err != nil {
				t.Fatal(err)
			}
			c.mu.Lock()
			cn := c.hosts[origin{"http", s.ln.Addr().String()}].idle[0]
			c.mu.Unlock()
			for deadline := time.Now().Add(10 * time.Second); cn.quiet(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it still looks usable")
				}
			}
			_, body, err := do(t, c, "PATCH", s.url(), "chunk")
			if err != nil || body != "ok" {
				t.Errorf("%q, %v", body, err)
			}
			if s.accepted() != 2 {
				t.Errorf("%d connections", s.accepted())
			}
		})
	}
}

// More than the answer in one packet: what is behind it belongs to nobody.
func TestWhatIsBehindAnAnswerIsNotTheNext(t *testing.T) {
	s := serve(t, func(n int, c *peer) {
		for {
			if _, _, more := c.request(); !more {
				return
			}
			if n == 0 {
				c.say(ok + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
				continue
			}
			c.say(ok)
		}
	})
	c := newClient(t)
	for range 2 {
		if _, body, err := do(t, c, "GET", s.url(), ""); err != nil || body != "ok" {
			t.Errorf("%q, %v", body, err)
		}
	}
}

func TestTheEndOfTheContextEndsARequest(t *testing.T) {
	for name, answer := range map[string]string{
		"before an answer": "", "in its header": "HTTP/1.1 200 OK\r\n", "in its body": "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
		"in chunks": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			said, over := make(chan struct{}), make(chan struct{})
			s := serve(t, func(_ int, c *peer) {
				c.request()
				c.say(answer)
				close(said)
				<-over
			})
			defer close(over)
			c := newClient(t)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-said; time.Sleep(10 * time.Millisecond); cancel() }()
			began := time.Now()
			resp, err := c.RoundTrip(request(t, "GET", s.url(), "").WithContext(ctx))
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("after %s", took)
			}
			if c.idle() != 0 {
				t.Error("the connection is kept")
			}
		})
	}
	t.Run("while it is written", func(t *testing.T) {
		ours, theirs := net.Pipe() // it takes nothing that is not read
		defer theirs.Close()
		c := newClient(t)
		c.HeaderTimeout = time.Minute
		c.Dial = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		began := time.Now()
		_, err := c.RoundTrip(request(t, "PUT", "http://registry.example/", strings.Repeat("x", largestBody)).WithContext(ctx))
		if took := time.Since(began); !errors.Is(err, context.DeadlineExceeded) || took > 20*time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
	t.Run("before it begins", func(t *testing.T) {
		s := serve(t, answers(ok))
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		cancel(why)
		if _, err := newClient(t).RoundTrip(request(t, "GET", s.url(), "").WithContext(ctx)); !errors.Is(err, why) {
			t.Errorf("%v", err)
		}
	})
}

// A context that ends after the answer was read has nothing to do with the connection any more.
func TestAContextThatEndsLaterLeavesTheConnectionAlone(t *testing.T) {
	s := serve(t, answers(ok))
	c := newClient(t)
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := c.RoundTrip(request(t, "GET", s.url(), "").WithContext(ctx))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		cancel()
		resp.Body.Close()
	}
	if s.accepted() != 1 {
		t.Errorf("%d connections", s.accepted())
	}
}

func TestAnAnswerThatDoesNotComeIsATimeout(t *testing.T) {
	over := make(chan struct{})
	s := serve(t, func(_ int, c *peer) { c.request(); c.say("HTTP/1.1 200 OK\r\n"); <-over })
	defer close(over)
	c := newClient(t)
	c.HeaderTimeout = 50 * time.Millisecond
	if _, _, err := do(t, c, "GET", s.url(), ""); !errors.Is(err, ErrHeaderTimeout) {
		t.Errorf("%v", err)
	}
	c.HeaderTimeout = time.Minute
	if _, err := c.Within(50*time.Millisecond, nil).RoundTrip(request(t, "GET", s.url(), "")); !errors.Is(err, ErrHeaderTimeout) {
		t.Errorf("with less patience: %v", err)
	}
}

// The timeout is the header's: a large blob takes its time.
func TestABodyMayTakeLonger(t *testing.T) {
	t.Parallel()                   // most of it is waiting
	const header = 2 * time.Second // long for what comes at once, also on a busy machine
	s := serve(t, func(_ int, c *peer) {
		for {
			if _, _, more := c.request(); !more {
				return
			}
			c.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
			for range 4 {
				time.Sleep(header / 3)
				c.say("x")
			}
		}
	})
	c := newClient(t)
	c.HeaderTimeout = header
	for range 2 {
		if _, body, err := do(t, c, "GET", s.url(), ""); err != nil || body != "xxxx" {
			t.Errorf("%q, %v", body, err)
		}
	}
	if s.accepted() != 1 {
		t.Errorf("%d connections", s.accepted())
	}
}

func TestABodyThatIsNotReadCostsTheConnectionUnlessItIsHere(t *testing.T) {
	for name, test := range map[string]struct {
		length, kept int
	}{"small": {100, 1}, "large": {1 << 20, 2}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, answers(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", test.length, strings.Repeat("x", test.length))))
			c := newClient(t)
			for range 2 {
				resp, err := c.RoundTrip(request(t, "GET", s.url(), ""))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
					t.Error(err)
				}
				resp.Body.Close()
				if n, err := resp.Body.Read(make([]byte, 1)); n > 0 || err == nil {
					t.Error("a closed body can be read")
				}
				resp.Body.Close()
			}
			if s.accepted() != test.kept {
				t.Errorf("%d connections, want %d", s.accepted(), test.kept)
			}
		})
	}
}

// A server may refuse a body without reading it, and close.
func TestARefusalInTheMiddleOfABodyIsHeard(t *testing.T) {
	s := serve(t, func(_ int, c *peer) {
		if _, err := c.r.ReadString('\n'); err != nil {
			return
		}
		c.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, c.r)
	})
	resp, body, err := do(t, newClient(t), "PUT", s.url(), strings.Repeat("x", largestBody))
	if err != nil || resp.StatusCode != 413 || body != "big" {
		t.Errorf("%v, %q, %v", resp, body, err)
	}
}

// What goes and comes belongs together, with many at once, over TLS too.
func TestManyAtOnce(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Echo", r.URL.Path)
		if len(b)%2 == 1 {
			w.(http.Flusher).Flush() // chunked
		}
		_, _ = w.Write(b)
	})
	for name, s := range map[string]*httptest.Server{"http": httptest.NewServer(echo), "tls": httptest.NewTLSServer(echo)} {
		t.Run(name, func(t *testing.T) {
			defer s.Close()
			c := newClient(t)
			defer c.CloseIdleConnections()
			var all sync.WaitGroup
			for g := range 8 {
				all.Go(func() {
					for i := range 50 {
						path, body := fmt.Sprintf("/%d/%d", g, i), strings.Repeat("b", g*100+i)
						resp, got, err := do(t, c, "PUT", s.URL+path, body)
						if err != nil || got != body || resp.Header.Get("Echo") != path {
							t.Errorf("%s: %v", path, err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
}
