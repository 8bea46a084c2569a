package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// raw writes bytes to the proxy as they are, and reads until it closes the connection or is silent for a while behind an answer.
func raw(t *testing.T, address, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Both sides may close first; what was answered is what counts.
	_, _ = io.WriteString(c, text)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	in := bufio.NewReader(c)
	_, _ = in.Peek(1)
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	b, _ := io.ReadAll(in)
	return string(b)
}

// A request that two programs would read differently is refused, with nothing of it upstream: behind a load balancer the
// second half would be somebody else's request.
func TestRequestsThatCanBeReadInTwoWaysAreRefused(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.Method+" "+r.URL.Path)
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}})
	r := run(t, up, inmemory.New(), nil)
	defer r.end()
	const smuggled = "DELETE /v2/smuggled/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
	patch := "PATCH /v2/app/blobs/uploads/x HTTP/1.1\r\nHost: localhost\r\n"
	for _, tt := range []struct {
		name, request string
		// answers is how many the proxy may give: the request itself, and none to what is smuggled in its body.
		answers int
		status  string
	}{
		{"Content-Length and Transfer-Encoding", patch + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, 2, ""},
		{"two lengths", patch + "Content-Length: 0\r\nContent-Length: 60\r\n\r\n" + smuggled, 1, "400"},
		{"a list of lengths", patch + "Content-Length: 0, 60\r\n\r\n" + smuggled, 1, "400"},
		{"a signed length", patch + "Content-Length: +0\r\n\r\n" + smuggled, 1, "400"},
		{"a negative length", patch + "Content-Length: -1\r\n\r\n" + smuggled, 1, "400"},
		{"a hexadecimal length", patch + "Content-Length: 0x0\r\n\r\n" + smuggled, 1, "400"},
		{"a space before the colon", patch + "Content-Length : 60\r\n\r\n" + smuggled, 1, "400"},
		{"a space inside the length", patch + "Content-Length: 6 0\r\n\r\n" + smuggled, 1, "400"},
		{"two Transfer-Encodings", patch + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + smuggled, 1, "501"},
		{"an unknown Transfer-Encoding", patch + "Transfer-Encoding: xchunked\r\n\r\n" + smuggled, 1, "501"},
		{"Transfer-Encoding in disguise", patch + "Transfer-Encoding:\x0bchunked\r\n\r\n" + smuggled, 1, "400"},
		{"a chunk size that is no number", patch + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + smuggled, 1, ""},
		{"a chunk size that overflows", patch + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + smuggled, 1, ""},
		{"a chunk longer than its size", patch + "Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n" + smuggled, 1, ""},
		{"a broken chunk where nobody reads a body", "GET /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + smuggled, 1, ""},
		{"a broken chunk at the version check", "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + smuggled, 1, ""},
		{"a broken chunk behind more than is read", patch + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("40000\r\n"+strings.Repeat("x", 0x40000)+"\r\n", 3) + "zz\r\n" + smuggled, 1, ""},
		{"a folded header", patch + "X: a\r\n Content-Length: 60\r\n\r\n" + smuggled, 2, ""},
		{"a header without a colon", patch + "Content-Length 60\r\n\r\n" + smuggled, 1, "400"},
		{"a null byte in a header", patch + "X: a\x00b\r\n\r\n" + smuggled, 1, "400"},
		{"two hosts", "GET /v2/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 1, "400"},
		{"no host", "GET /v2/ HTTP/1.1\r\n\r\n", 1, "400"},
		{"a host with a path", "GET /v2/ HTTP/1.1\r\nHost: a/../b\r\n\r\n", 1, "400"},
		{"no version", "GET /v2/\r\n\r\n", 1, "400"},
		{"another protocol", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1, ""},
		{"a line break in the path", "GET /v2/\nX: y HTTP/1.1\r\nHost: localhost\r\n\r\n", 1, "400"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := raw(t, r.config.Listen, tt.request)
			if n := strings.Count(got, "HTTP/1.1 "); n > tt.answers {
				t.Errorf("%d answers, at most %d expected: %q", n, tt.answers, got)
			}
			mu.Lock()
			defer mu.Unlock()
			// Where RFC 9112 has one reading (chunked wins over a length; a folded line is one line) what follows is a request
			// of its own, judged like any other.
			if tt.answers == 1 && strings.Contains(strings.Join(seen, "\n"), "smuggled") {
				t.Errorf("upstream saw %s", seen)
			}
			seen = nil
			if tt.status != "" && !strings.HasPrefix(got, "HTTP/1.1 "+tt.status) {
				t.Errorf("answered %.80q, want %s", got, tt.status)
			}
		})
	}
}

// The form with a whole URL (RFC 9112, 3.2.2) is for proxies of another kind: it must not choose where a request goes.
func TestAWholeURLInTheRequestLineLeadsNowhereElse(t *testing.T) {
	r := run(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New(), nil)
	defer r.end()
	elsewhere := make(chan string, 10)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() {
		for {
			c, err := other.Accept()
			if err != nil {
				return
			}
			elsewhere <- c.RemoteAddr().String()
			c.Close()
		}
	}()
	for _, line := range []string{
		"GET http://" + other.Addr().String() + "/v2/ HTTP/1.1", "GET http://" + other.Addr().String() + "/v2/app/manifests/1 HTTP/1.1",
		"CONNECT " + other.Addr().String() + " HTTP/1.1", "GET //" + other.Addr().String() + "/v2/ HTTP/1.1",
	} {
		if got := raw(t, r.config.Listen, line+"\r\nHost: "+other.Addr().String()+"\r\nX-Forwarded-Host: "+other.Addr().String()+"\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 ") {
			t.Errorf("%s: %q", line, got)
		}
	}
	select {
	case a := <-elsewhere:
		t.Errorf("a connection was made to where the request line says, from %s", a)
	default:
	}
}

func TestFloodsOfHeadersAreCutOff(t *testing.T) {
	r := run(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New(), nil)
	defer r.end()
	for name, request := range map[string]string{
		"one long header":    "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 256<<10) + "\r\n\r\n",
		"many headers":       "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X: y\r\n", 64<<10) + "\r\n",
		"a long path":        "GET /v2/" + strings.Repeat("x", 256<<10) + " HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"trailers at length": "PATCH /v2/app/blobs/uploads/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X: y\r\n", 64<<10) + "\r\n",
	} {
		got := raw(t, r.config.Listen, request)
		if strings.HasPrefix(got, "HTTP/1.1 2") {
			t.Errorf("%s: %.80q", name, got)
		}
	}
	if got := raw(t, r.config.Listen, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("afterwards: %.80q", got)
	}
}

// What the threat model promises of connections.
func TestAServerGivesHeadersLittleTimeAndBodiesAll(t *testing.T) {
	s := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{})).proxy.Server(nil)
	if s.ReadHeaderTimeout != 30*time.Second || s.IdleTimeout != 2*time.Minute || s.MaxHeaderBytes != 64<<10 {
		t.Errorf("%d bytes of headers in %s, idle for %s; SECURITY.md says 64 KiB in 30 s", s.MaxHeaderBytes, s.ReadHeaderTimeout, s.IdleTimeout)
	}
	if s.ReadTimeout != 0 || s.WriteTimeout != 0 {
		t.Errorf("a layer has %s to come and %s to go; it may take its time", s.ReadTimeout, s.WriteTimeout)
	}
}

// Whoever sends headers byte by byte, or nothing, holds up nobody else, and not for long.
func TestSlowHeadersHoldUpNobody(t *testing.T) {
	r := run(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New(), func(c *config.Config) { c.Admin = freeAddress(t) })
	defer r.end()
	for range 200 {
		c, err := net.Dial("tcp", r.config.Listen)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	}
	c, err := net.Dial("tcp", r.config.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	start := time.Now()
	fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != 200 || time.Since(start) > 5*time.Second {
		t.Errorf("%v, %v after %s", resp, err, time.Since(start))
	}
}
