package h1

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A server speaks whatever a test wants. play has one connection, and how many came before it.
type server struct {
	t    *testing.T
	ln   net.Listener
	conn chan int // one for each connection that has been accepted
	play func(n int, c *peer)
	done sync.WaitGroup
}

// A peer is the server's end of a connection.
type peer struct {
	net.Conn
	r *bufio.Reader
}

func serve(t *testing.T, play func(n int, c *peer)) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, ln: ln, conn: make(chan int, 1000), play: play}
	s.done.Go(func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conn <- n
			s.done.Go(func() {
				defer c.Close()
				play(n, &peer{Conn: c, r: bufio.NewReader(c)})
			})
		}
	})
	t.Cleanup(func() { ln.Close(); s.done.Wait() })
	return s
}

func (s *server) url() string { return "http://" + s.ln.Addr().String() }

// accepted is how many connections there were.
func (s *server) accepted() int { return len(s.conn) }

// request reads one, and is false when there is no other.
func (p *peer) request() (r *http.Request, body string, ok bool) {
	r, err := http.ReadRequest(p.r)
	if err != nil {
		return nil, "", false
	}
	b, err := io.ReadAll(r.Body)
	return r, string(b), err == nil
}

func (p *peer) say(s string) { _, _ = io.WriteString(p, s) }

// answers says one thing to every request.
func answers(s string) func(int, *peer) {
	return func(_ int, c *peer) {
		for {
			if _, _, ok := c.request(); !ok {
				return
			}
			c.say(s)
		}
	}
}

func newClient(t *testing.T) *Client {
	t.Helper()
	d := &net.Dialer{}
	c := &Client{
		Dial: d.DialContext,
		DialTLS: func(ctx context.Context, network, address string) (net.Conn, error) {
			return (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(ctx, network, address)
		},
		HeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxIdle: 4, MaxHeader: 64 << 10,
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Body, req.ContentLength = NewBody([]byte(body)), int64(len(body))
	}
	return req
}

// do sends a request and reads all of its answer.
func do(t *testing.T, c *Client, method, url, body string) (*http.Response, string, error) {
	t.Helper()
	resp, err := c.RoundTrip(request(t, method, url, body))
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); cerr != nil {
		t.Error(cerr)
	}
	return resp, string(b), err
}

func (c *Client) idle() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.hosts {
		n += len(h.idle)
	}
	return n
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestAnswersAreReadToTheirEnd(t *testing.T) {
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
	for name, test := range map[string]struct {
		method, answer string
		status         int
		body           string
		length         int64
		kept           bool
	}{
		"with a length":                  {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", 5, true},
		"of no length":                   {"POST", "HTTP/1.1 202 Accepted\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 202, "", 0, true},
		"with the same length twice":     {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2, true},
		"in chunks":                      {"GET", chunked, 200, "abcde", -1, true},
		"HEAD with a length":             {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", 200, "", 12345, true},
		"HEAD without":                   {"HEAD", "HTTP/1.1 404 Not Found\r\n\r\n", 404, "", -1, true},
		"HEAD in chunks":                 {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, "", -1, true},
		"204":                            {"DELETE", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", 0, true},
		"304 with a length":              {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", 304, "", 0, true},
		"until the connection ends":      {"GET", "HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello", -1, false},
		"Connection: close":              {"GET", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2, false},
		"close in chunks":                {"GET", strings.Replace(chunked, "\r\n", "\r\nConnection: close\r\n", 1), 200, "abcde", -1, false},
		"HEAD and close":                 {"HEAD", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", 200, "", -1, false},
		"HTTP/1.0":                       {"GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2, false},
		"HTTP/1.0 that stays":            {"GET", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2, true},
		"behind 100 Continue":            {"PUT", "HTTP/1.1 100 Continue\r\n\r\n" + ok, 200, "ok", 2, true},
		"behind five informational ones": {"GET", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 5) + ok, 200, "ok", 2, true},
		"without a reason":               {"GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2, true},
		"with bare line feeds":           {"GET", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, "ok", 2, true},
		"with a long header":             {"GET", "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("y", 40<<10) + "\r\nContent-Length: 2\r\n\r\nok", 200, "ok", 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(_ int, c *peer) {
				for {
					if _, _, more := c.request(); !more {
						return
					}
					c.say(test.answer)
					if !test.kept {
						return
					}
				}
			})
			c := newClient(t)
			for i := range 2 {
				resp, body, err := do(t, c, test.method, s.url(), "")
				if err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != test.status || body != test.body || resp.ContentLength != test.length {
					t.Errorf("status %d, body %q, length %d", resp.StatusCode, body, resp.ContentLength)
				}
				if resp.Request == nil || resp.Request.URL.Host != s.ln.Addr().String() {
					t.Error("the answer does not say of which request")
				}
				want := 1
				if !test.kept {
					want = i + 1
				}
				if got := s.accepted(); got != want {
					t.Errorf("%d connections for %d requests, want %d", got, i+1, want)
				}
			}
		})
	}
}

func TestWhatIsNoAnswerIsRefused(t *testing.T) {
	for name, answer := range map[string]string{
		"length and chunks":              "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok.",
		"a list of lengths":              "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
		"a signed length":                "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
		"a negative length":              "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
		"an empty length":                "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok",
		"a huge length":                  "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
		"another encoding":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"an encoding with a Kelvin sign": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n",
		"two encodings":                  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks of 1.0":                  "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"a folded line":                  "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
		"a space before a colon":         "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
		"a line without a colon":         "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\nok",
		"a name that is none":            "HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\nok",
		"a bare carriage return":         "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nok",
		"a zero byte":                    "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok",
		"another protocol":               "SSH-2.0-OpenSSH\r\n\r\n",
		"HTTP/2":                         "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"no status":                      "HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok",
		"a status of four digits":        "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
		"a status of nought":             "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
		"a switch":                       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
		"six informational ones":         strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 6) + ok,
		"too long a header":              "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 64<<10/6+10) + "\r\n",
		"too long a line":                "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 65<<10) + "\r\n\r\n",
		"an end in the header":           "HTTP/1.1 200 OK\r\nContent-Le",
		"an end behind a whole line":     "HTTP/1.1 200 OK\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(_ int, c *peer) {
				if _, _, ok := c.request(); ok {
					c.say(answer)
				}
			})
			c := newClient(t)
			resp, body, err := do(t, c, "GET", s.url(), "")
			if err == nil {
				t.Errorf("%d with %q", resp.StatusCode, body)
			}
			if c.idle() != 0 {
				t.Error("the connection is kept")
			}
			if s.accepted() != 1 {
				t.Errorf("%d connections", s.accepted())
			}
		})
	}
}

func TestABodyThatEndsEarlyIsAnError(t *testing.T) {
	for name, answer := range map[string]string{
		"with a length":        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
		"in chunks":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"in a chunk":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
		"in the trailer":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n",
		"with a bad chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
		"with a long trailer":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: y\r\n", 65<<10/6) + "\r\n",
		"with a negative size": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
		"with a long line":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + xs(2<<20) + "\r\nhello\r\n0\r\n\r\n",
		"with little in much":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;"+xs(2<<10)+"\r\nx\r\n", 1<<10) + "0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(_ int, c *peer) {
				if _, _, ok := c.request(); ok {
					c.say(answer)
				}
			})
			c := newClient(t)
			if _, body, err := do(t, c, "GET", s.url(), ""); err == nil {
				t.Errorf("%q was taken for all", body)
			}
			if c.idle() != 0 {
				t.Error("the connection is kept")
			}
		})
	}
}

func TestWhatIsSent(t *testing.T) {
	got := make(chan string, 1)
	s := serve(t, func(_ int, c *peer) {
		for {
			var lines []string
			length := 0
			for {
				line, err := c.r.ReadString('\n')
				if err != nil {
					return
				}
				lines = append(lines, line)
				if v, ok := strings.CutPrefix(line, "Content-Length: "); ok {
					length, _ = strconv.Atoi(strings.TrimSpace(v))
				}
				if line == "\r\n" {
					break
				}
			}
			b := make([]byte, length)
			if _, err := io.ReadFull(c.r, b); err != nil {
				return
			}
			got <- strings.Join(lines, "") + string(b)
			c.say(ok)
		}
	})
	c, host := newClient(t), s.ln.Addr().String()
	for _, test := range []struct{ method, path, body, want string }{
		{"GET", "/v2/a/b?x=1&y=%2F", "", "GET /v2/a/b?x=1&y=%2F HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"HEAD", "/v2/a/blobs/sha256:00", "", "HEAD /v2/a/blobs/sha256:00 HTTP/1.1\r\nHost: " + host + "\r\n\r\n"},
		{"POST", "", "", "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\n\r\n"},
		{"PUT", "/a%2Fb%20c", "hello", "PUT /a%2Fb%20c HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\n\r\nhello"},
		{"DELETE", "/a", "x", "DELETE /a HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 1\r\n\r\nx"},
	} {
		if _, _, err := do(t, c, test.method, s.url()+test.path, test.body); err != nil {
			t.Fatal(err)
		}
		if sent := <-got; sent != test.want {
			t.Errorf("sent %q, want %q", sent, test.want)
		}
	}
	req := request(t, "GET", s.url()+"/h", "")
	req.Header = http.Header{"Accept": {"a", " b\t"}, "Connection": {"close"}, "Transfer-Encoding": {"chunked"}, "Content-Length": {"7"}, "Host": {"other"}, "Trailer": {"x"}}
	resp, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if sent, want := <-got, "GET /h HTTP/1.1\r\nHost: "+host+"\r\nAccept: a\r\nAccept: b\r\n\r\n"; sent != want {
		t.Errorf("sent %q, want %q", sent, want)
	}
}

// A zone says by which interface this machine reaches an address, and is nobody else's business.
func TestTheZoneOfAnAddressIsNotSent(t *testing.T) {
	got := make(chan string, 1)
	s := serve(t, func(_ int, c *peer) {
		for {
			r, _, more := c.request()
			if !more {
				return
			}
			got <- r.Host
			c.say(ok)
		}
	})
	c := newClient(t)
	c.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, s.ln.Addr().String())
	}
	for url, want := range map[string]string{"http://[fe80::1%25eth0]:5000/v2/": "[fe80::1]:5000", "http://[fe80::1%25eth0]/v2/": "[fe80::1]", "http://[::1]:5000/": "[::1]:5000"} {
		if _, _, err := do(t, c, "GET", url, ""); err != nil {
			t.Fatal(err)
		}
		if host := <-got; host != want {
			t.Errorf("%s: Host is %s, want %s", url, host, want)
		}
	}
}

// What goes into a header must not be able to end it.
func TestNoRequestIsMadeOfWhatNoHeaderMayHold(t *testing.T) {
	s := serve(t, answers(ok))
	c := newClient(t)
	for name, change := range map[string]func(*http.Request){
		"value":  func(r *http.Request) { r.Header.Set("X", "a\r\nY: b") },
		"name":   func(r *http.Request) { r.Header["X: y\r\nZ"] = []string{"a"} },
		"method": func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" },
		"query":  func(r *http.Request) { r.URL.RawQuery = "a b" },
		"lines":  func(r *http.Request) { r.URL.RawQuery = "a\r\nX: y" },
		"host":   func(r *http.Request) { r.Host = "a\r\nX: y" },
	} {
		req := request(t, "GET", s.url()+"/", "")
		change(req)
		if resp, err := c.RoundTrip(req); err == nil {
			resp.Body.Close()
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	req := request(t, "GET", s.url()+"/", "")
	req.URL.Path = "/a b\r\nX: y" // is escaped
	resp, err := c.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}
