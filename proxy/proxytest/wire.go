package proxytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// connection is one client's requests during one push.
type connection struct {
	Options
	own         bool // the client is this connection's own
	agent       string
	retryable   func(*reply) bool // which answers the client tries again
	retriesLost bool              // a lost connection too
	authorized  atomic.Bool       // a 401 has been seen: send credentials from now on
	requests    atomic.Int64
	started     time.Time

	mu     sync.Mutex
	result Result
}

func connect(o Options, agent string) *connection {
	own := o.Client == nil
	if own {
		o.Client = &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16}}
	}
	c := &connection{Options: o, own: own, agent: agent, started: time.Now()}
	c.retryable = func(*reply) bool { return false }
	c.result.Pushed = o.Tree
	return c
}

// note adds to a list of the result.
func (c *connection) note(list *[]string, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*list = append(*list, what)
}

func (c *connection) finish(err error) (Result, error) {
	c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.result.Requests = int(c.requests.Load())
	c.result.Took = time.Since(c.started)
	if err == nil && c.result.Pushed != nil {
		c.result.Digest = c.result.Pushed.Digest()
	}
	return c.result, err
}

// close leaves a caller's client alone: a benchmark keeps its connections.
func (c *connection) close() {
	if c.own {
		c.Client.CloseIdleConnections()
	}
}

// concurrency is the limit of a client, or one request after the other.
func (c *connection) concurrency(limit int) int {
	if c.Sequential {
		return 1
	}
	return limit
}

// each calls f for every element, limit at a time; the first error ends it.
func each[T any](ctx context.Context, limit int, all []T, f func(context.Context, T) error) error {
	if limit == 1 {
		for _, e := range all {
			if err := f(ctx, e); err != nil {
				return err
			}
		}
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for _, e := range all {
		g.Go(func() error { return f(ctx, e) })
	}
	return g.Wait()
}

// request is one request; the path is below /v2/<repository>/ unless location is given.
type request struct {
	method, path string
	location     string // an upload's URL, absolute
	header       http.Header
	body         func() io.ReadCloser // nil: none
	size         int64                // -1: chunked
}

// reply is an answer whose body has been read (errors and manifests: at most 8 MiB).
type reply struct {
	method, url string
	status      int
	statusText  string
	header      http.Header
	body        []byte
	length      int64 // Content-Length, -1 if there was none
	anonymous   bool  // sent without credentials
}

func (r *reply) digest() string { return r.header.Get("Docker-Content-Digest") }

// errors are the spec's JSON errors of the body.
func (r *reply) errors() []registryError {
	var e struct {
		Errors []registryError `json:"errors"`
	}
	if json.Unmarshal(r.body, &e) != nil {
		return nil
	}
	return e.Errors
}

type registryError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail"`
}

// do sends a request, with credentials once asked for them, and again as often as the client would and Retries allows.
func (c *connection) do(ctx context.Context, q request) (*reply, error) {
	for attempt := 0; ; attempt++ {
		r, err := c.once(ctx, q)
		if err == nil && r.status == http.StatusUnauthorized && r.anonymous && c.Authorization != "" {
			c.authorized.Store(true)
			r, err = c.once(ctx, q)
		}
		again := err == nil && c.retryable(r) || err != nil && c.retriesLost && ctx.Err() == nil
		if !again || attempt >= c.Retries {
			return r, err
		}
		if c.Wait != nil {
			if err := c.Wait(attempt); err != nil {
				return r, err
			}
		}
	}
}

func (c *connection) once(ctx context.Context, q request) (*reply, error) {
	target := q.location
	if target == "" {
		target = strings.TrimSuffix(c.BaseURL, "/") + "/v2/" + c.Repository + "/" + q.path
		if q.path == "/" { // the base, GET /v2/
			target = strings.TrimSuffix(c.BaseURL, "/") + "/v2/"
		}
	}
	req, err := http.NewRequestWithContext(ctx, q.method, target, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.agent)
	if q.body != nil {
		req.Body, req.ContentLength = q.body(), q.size
		if q.size == 0 {
			req.Body = http.NoBody
		}
	}
	anonymous := c.Authorization == "" || !c.authorized.Load()
	if !anonymous {
		req.Header.Set("Authorization", c.Authorization)
	}
	c.requests.Add(1)
	resp, err := c.Client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r := &reply{method: q.method, url: target, status: resp.StatusCode, statusText: resp.Status, header: resp.Header, length: resp.ContentLength, anonymous: anonymous}
	if r.body, err = io.ReadAll(io.LimitReader(resp.Body, 8<<20)); err != nil {
		return nil, err
	}
	return r, nil
}

// resolve is an upload's Location, absolute or relative to the request it answers, with query values added.
func (r *reply) resolve(add ...string) (string, error) {
	location := r.header.Get("Location")
	if location == "" {
		return "", fmt.Errorf("missing Location header")
	}
	base, err := url.Parse(r.url)
	if err != nil {
		return "", err
	}
	u, err := base.Parse(location)
	if err != nil {
		return "", fmt.Errorf("unable to parse location %v: %w", location, err)
	}
	q := u.Query()
	for i := 0; i+1 < len(add); i += 2 {
		q.Set(add[i], add[i+1])
	}
	u.RawQuery = q.Encode() // percent-encodes the digest: sha256%3A
	return u.String(), nil
}

func headers(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(kv); i += 2 {
		h[http.CanonicalHeaderKey(kv[i])] = append(h[http.CanonicalHeaderKey(kv[i])], kv[i+1])
	}
	return h
}

func bytesBody(b []byte) func() io.ReadCloser {
	return func() io.ReadCloser { return io.NopCloser(bytes.NewReader(b)) }
}
