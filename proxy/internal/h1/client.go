package h1

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

var (
	// ErrHeaderTimeout says that no answer came in time.
	ErrHeaderTimeout = errors.New("no answer in time")
	// ErrStalled says that an answer has begun, and that no more of it came in time, or too little.
	ErrStalled = errors.New("the answer stopped coming")
)

// largestBody is what is sent without reading at the same time: every server's socket takes so much, so that one which
// answers before it reads does not keep both sides waiting.
const largestBody = 32 << 10

// Client keeps connections and sends requests. All fields are set before its first use, except that Other may be nil
// where nobody needs it. It is safe for concurrent use.
type Client struct {
	Dial          func(ctx context.Context, network, address string) (net.Conn, error) // for http
	DialTLS       func(ctx context.Context, network, address string) (net.Conn, error) // for https, with its handshake done
	HeaderTimeout time.Duration                                                        // from the request to the end of the answer's header
	StallTimeout  time.Duration                                                        // for which a read of a body waits at least; 0: for ever
	StallBytes    int                                                                  // of a body that must come in StallTimeout of waiting; 0: any
	IdleTimeout   time.Duration                                                        // how long a connection waits for the next request
	MaxIdle       int                                                                  // connections that wait, for each host
	MaxHeader     int                                                                  // bytes

	// Other takes what this client does not, and everything for hosts for which Proxy names one.
	Other http.RoundTripper
	Proxy func(*http.Request) (*url.URL, error) // asked once for each host; nil: none

	mu    sync.Mutex
	hosts map[origin]*host
	timer *time.Timer // runs while connections are idle
}

var _ http.RoundTripper = (*Client)(nil)

type origin struct{ scheme, host string }

// host is where connections lead.
type host struct {
	origin  origin
	address string
	secure  bool
	other   bool    // everything is left to Other
	idle    []*conn // the last is the one that was used last
}

// RoundTrip sends a request.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	return c.roundTrip(req, c.HeaderTimeout, c.Other)
}

// Within is the client with another HeaderTimeout, and another Other that has the same one. The connections are the same.
func (c *Client) Within(headerTimeout time.Duration, other http.RoundTripper) http.RoundTripper {
	return &within{c, headerTimeout, other}
}

type within struct {
	*Client
	headerTimeout time.Duration
	other         http.RoundTripper
}

func (w *within) RoundTrip(req *http.Request) (*http.Response, error) {
	return w.roundTrip(req, w.headerTimeout, w.other)
}

func (c *Client) roundTrip(req *http.Request, timeout time.Duration, other http.RoundTripper) (*http.Response, error) {
	payload, ok := inMemory(req)
	if !ok {
		return other.RoundTrip(forOther(req, payload))
	}
	h, err := c.host(req)
	if err != nil {
		return nil, err
	}
	if h.other {
		return other.RoundTrip(forOther(req, payload))
	}
	ctx := req.Context()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	cn := c.take(h)
	for {
		if cn == nil {
			if cn, err = c.connect(ctx, h); err != nil {
				return nil, err
			}
		}
		resp, err := cn.exchange(req, payload, timeout)
		if err == nil {
			return resp, nil // and the connection may be another request's already
		}
		stale := cn.reused && !cn.answered && (!cn.wrote || repeatable(req, payload))
		if !stale || ctx.Err() != nil || errors.Is(err, ErrHeaderTimeout) || errors.Is(err, ErrBadRequest) {
			return nil, err
		}
		cn = nil // another idle one may be as old
	}
}

// inMemory is the body of a request that this client sends.
func inMemory(req *http.Request) (payload []byte, ok bool) {
	switch b := req.Body.(type) {
	case nil:
		return nil, true
	case *Body:
		return b.bytes, len(b.bytes) <= largestBody
	}
	return nil, req.Body == http.NoBody
}

// forOther gives http.Transport a body of a type that it sends together with the header.
func forOther(req *http.Request, payload []byte) *http.Request {
	if b, ours := req.Body.(*Body); ours {
		b.lent = true
		req = req.WithContext(req.Context())
		// With GetBody a request of which nothing was written is sent over another connection, whatever its method.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(payload)), nil }
		req.Body = io.NopCloser(bytes.NewReader(payload))
	}
	return req
}

// host finds where a request goes.
func (c *Client) host(req *http.Request) (*host, error) {
	key := origin{req.URL.Scheme, req.URL.Host}
	c.mu.Lock()
	h := c.hosts[key]
	c.mu.Unlock()
	if h != nil {
		return h, nil
	}
	h = &host{origin: key, secure: key.scheme == "https"}
	if key.scheme != "http" && !h.secure || req.URL.Hostname() == "" {
		return nil, errors.New("no http or https URL with a host")
	}
	port := req.URL.Port()
	if port == "" {
		port = map[bool]string{false: "80", true: "443"}[h.secure]
	}
	h.address = net.JoinHostPort(req.URL.Hostname(), port)
	for i := range len(key.host) {
		if key.host[i] >= 0x80 { // is to be made ASCII first
			h.other = true
		}
	}
	if c.Proxy != nil {
		proxy, err := c.Proxy(req)
		if err != nil {
			return nil, err
		}
		h.other = h.other || proxy != nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.hosts[key]; known != nil {
		return known, nil
	}
	if c.hosts == nil || len(c.hosts) >= maxHosts {
		c.closeIdle()
		c.hosts = map[origin]*host{}
	}
	c.hosts[key] = h
	return h, nil
}

// maxHosts bounds what is remembered: redirects may lead to many.
const maxHosts = 256

// connect makes a connection.
func (c *Client) connect(ctx context.Context, h *host) (*conn, error) {
	dial := c.Dial
	if h.secure {
		dial = c.DialTLS
	}
	nc, err := dial(ctx, "tcp", h.address)
	if err != nil {
		return nil, err
	}
	return newConn(c, h, nc), nil
}

// take is an idle connection that can be used, nil if there is none.
func (c *Client) take(h *host) *conn {
	for {
		c.mu.Lock()
		n := len(h.idle)
		if n == 0 {
			c.mu.Unlock()
			return nil
		}
		cn := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		c.mu.Unlock()
		if cn.quiet() {
			return cn
		}
		_ = cn.nc.Close()
	}
}

// put makes a connection idle.
func (c *Client) put(cn *conn) {
	cn.idleSince = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(cn.host.idle) >= c.MaxIdle || c.hosts[cn.host.origin] != cn.host {
		_ = cn.nc.Close()
		return
	}
	cn.host.idle = append(cn.host.idle, cn)
	if c.timer == nil {
		c.timer = time.AfterFunc(c.IdleTimeout, c.sweep)
	}
}

// sweep closes what has been idle for too long, and comes again while something is idle.
func (c *Client) sweep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, next := time.Now().Add(-c.IdleTimeout), time.Duration(-1)
	for _, h := range c.hosts {
		keep := 0
		for keep < len(h.idle) && !h.idle[keep].idleSince.After(old) { // the oldest come first
			_ = h.idle[keep].nc.Close()
			keep++
		}
		n := copy(h.idle, h.idle[keep:])
		clear(h.idle[n:])
		if h.idle = h.idle[:n]; n > 0 {
			if wait := h.idle[0].idleSince.Sub(old); next < 0 || wait < next {
				next = wait
			}
		}
	}
	if c.timer = nil; next >= 0 {
		c.timer = time.AfterFunc(max(next, time.Millisecond), c.sweep)
	}
}

// CloseIdleConnections closes those that wait. Requests that are under way are left alone.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeIdle()
	if other, ok := c.Other.(interface{ CloseIdleConnections() }); ok {
		other.CloseIdleConnections()
	}
}

// closeIdle is called with the lock held.
func (c *Client) closeIdle() {
	for _, h := range c.hosts {
		for _, cn := range h.idle {
			_ = cn.nc.Close()
		}
		h.idle = nil
	}
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}
