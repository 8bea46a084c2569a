package proxy

import (
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
)

// FuzzContentRange: a range that is understood is one, and nothing overflows.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"0-99", "bytes 0-99/100", "bytes 0-99/*", "0--1", "5-4", "-1-5", "9223372036854775807-9223372036854775807", "1-2-3", "", "-", "0x1-2", "+1-2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		start, end, ok := parseContentRange(v)
		if ok && (start < 0 || end < start-1 || end-start+1 < 0) {
			t.Errorf("%q is %d-%d", v, start, end)
		}
	})
}

// FuzzRoute: whatever the path, nobody gets an answer without credentials, and what a handler takes for a repository is one.
func FuzzRoute(f *testing.F) {
	users := f.TempDir() + "/users"
	if err := os.WriteFile(users, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	c := config.Default()
	c.Access.Mode, c.Access.Htpasswd = config.AccessHtpasswd, users
	c.Upstreams = []config.Upstream{{URL: "http://127.0.0.1:1", Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
	p, err := New(Options{Config: c, Storage: inmemory.New()})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = p.Close() })
	for _, s := range []string{
		"/v2/", "/v2/app/manifests/1", "/v2/a/b/blobs/sha256:" + strings.Repeat("a", 64), "/v2/../etc/passwd", "/v2/a/../b/manifests/1", "/v2/%2e%2e/manifests/1", "/v2/a%2fb/tags/list",
		"//v2/a/manifests/1", "/v2/a/blobs/uploads", "/v2/a/blobs/uploads/x", "/v2/_catalog", "/v2/a/_aliases/manifests/1", "/v2/A/manifests/1", "/v2/a/referrers/x", "/healthz", "", "/v2/a/manifests/" + strings.Repeat("x", 300),
	} {
		f.Add("GET", s)
		f.Add("PUT", s)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || strings.ContainsAny(method, " \r\n\t") || method == "" {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL, r.RequestURI, r.Host = method, u, path, "localhost"
		w := httptest.NewRecorder()
		p.Handler().ServeHTTP(w, r)
		if w.Code >= 200 && w.Code < 300 || w.Code >= 500 {
			t.Errorf("%s %q: %d %s", method, path, w.Code, w.Body)
		}
	})
}
