package h1

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestIdleConnectionsAreFewAndEnd(t *testing.T) {
	release := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Add(8)
	s := serve(t, func(_ int, c *peer) {
		if _, _, more := c.request(); !more {
			return
		}
		waiting.Done()
		<-release
		c.say(ok)
		c.request()
	})
	c := newClient(t)
	c.IdleTimeout = 100 * time.Millisecond
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, _, err := do(t, c, "GET", s.url(), ""); err != nil {
				t.Error(err)
			}
		})
	}
	waiting.Wait()
	close(release)
	all.Wait()
	if n := c.idle(); n > c.MaxIdle {
		t.Errorf("%d connections are idle", n)
	}
	for deadline := time.Now().Add(10 * time.Second); c.idle() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are idle long after the timeout", c.idle())
		}
	}
}

func TestWhatStreamsIsLargeOrIsBehindAProxyIsLeftToAnother(t *testing.T) {
	s := serve(t, answers(ok))
	c := newClient(t)
	var others, again atomic.Int64
	var sent []byte
	c.Other = roundTripper(func(req *http.Request) (*http.Response, error) {
		others.Add(1)
		sent = nil
		if req.Body != nil {
			sent, _ = io.ReadAll(req.Body)
		}
		if req.GetBody != nil { // what a Transport reads when nothing of the request was written
			if again, err := req.GetBody(); err == nil {
				sent, _ = io.ReadAll(again)
			}
			again.Add(1)
		}
		return &http.Response{StatusCode: 299, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	})
	large := bytes.Repeat([]byte("x"), largestBody+1)
	streaming := request(t, "PUT", s.url(), "")
	streaming.Body, streaming.ContentLength = io.NopCloser(strings.NewReader("stream")), 6
	for _, test := range []struct {
		req  *http.Request
		body string
	}{{streaming, "stream"}, {request(t, "PUT", s.url(), string(large)), string(large)}, {request(t, "GET", "http://bücher.example/", ""), ""}} {
		resp, err := c.RoundTrip(test.req)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 299 || string(sent) != test.body {
			t.Errorf("%s: %d, sent %d bytes", test.req.Method, resp.StatusCode, len(sent))
		}
	}
	if s.accepted() != 0 {
		t.Errorf("%d connections", s.accepted())
	}
	if again.Load() != 1 {
		t.Errorf("%d of them can be sent again, want the one that is in memory", again.Load())
	}

	asked := 0
	c.Proxy = func(req *http.Request) (*url.URL, error) {
		if asked++; req.URL.Hostname() == "proxied.example" {
			return &url.URL{Scheme: "http", Host: "proxy.example:3128"}, nil
		}
		return nil, nil
	}
	before := others.Load()
	for range 2 {
		if resp, err := c.RoundTrip(request(t, "PUT", "http://proxied.example/", "body")); err != nil || resp.StatusCode != 299 || string(sent) != "body" {
			t.Errorf("%v, %v, sent %q", resp, err, sent)
		}
		if _, body, err := do(t, c, "GET", s.url(), ""); err != nil || body != "ok" {
			t.Errorf("%q, %v", body, err)
		}
	}
	if others.Load() != before+2 || asked != 2 {
		t.Errorf("%d requests through the proxy, asked about %d hosts", others.Load()-before, asked)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
