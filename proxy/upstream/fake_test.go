package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a registry that records what it was asked, and a token service at the same address.
type fake struct {
	*httptest.Server
	mu     sync.Mutex
	log    []string
	tokens []url.Values // queries and forms of token requests
	auths  []string     // their Authorization

	handle http.HandlerFunc // below /v2/, after authentication
	scheme string           // "", "basic", "bearer"
	realm  string           // zero: /token of this server
	grant  func(n int) (status int, answer map[string]any)
	allow  func(authorization string) bool
}

func newFake(t *testing.T, f *fake) *fake {
	t.Helper()
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

func (f *fake) requests() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.log...)
}

func (f *fake) tokenRequests() []url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]url.Values(nil), f.tokens...)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		f.serveToken(w, r)
		return
	}
	auth := r.Header.Get("Authorization")
	f.note("%s %s %s", r.Method, strings.TrimPrefix(r.URL.RequestURI(), "/v2/"), auth)
	if f.scheme != "" && !f.allow(auth) {
		realm := f.realm
		if realm == "" {
			realm = f.URL + "/token"
		}
		if f.scheme == "basic" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		} else {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="fake",scope="repository:app:pull"`, realm))
		}
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
		return
	}
	if f.handle != nil {
		f.handle(w, r)
	}
}

func (f *fake) serveToken(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	f.tokens = append(f.tokens, r.Form)
	f.auths = append(f.auths, r.Header.Get("Authorization"))
	n := len(f.tokens)
	f.mu.Unlock()
	status, answer := http.StatusOK, map[string]any{"token": fmt.Sprintf("t%d", n), "expires_in": 300}
	if f.grant != nil {
		status, answer = f.grant(n)
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer)
}

// clock is a time that tests move; sleeping moves it too.
type clock struct {
	mu    sync.Mutex
	t     time.Time
	slept []time.Duration
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
	c.slept = append(c.slept, d)
	return ctx.Err()
}

// open makes a Registry with a clock that stands still.
func open(t *testing.T, o Options) (*Registry, *clock) {
	t.Helper()
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c := newClock()
	r.now, r.sleep, r.jitter = c.now, c.sleep, func() float64 { return 0.5 }
	t.Cleanup(func() { _ = r.Close() })
	return r, c
}

func password(p string) func() (string, error) { return func() (string, error) { return p, nil } }

// counter is a stream that says how much of it was read.
type counter struct {
	mu sync.Mutex
	r  io.Reader
	n  int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.mu.Lock()
	c.n += int64(n)
	c.mu.Unlock()
	return n, err
}

func (c *counter) read() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// zeros is a body of any length.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func same(t *testing.T, got []string, want ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("upstream saw\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}
