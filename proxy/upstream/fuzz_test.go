package upstream

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// FuzzChallenges: whatever a registry writes into WWW-Authenticate is read without a panic, and in bounds.
func FuzzChallenges(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://auth.example/token",service="registry",scope="repository:a:pull"`, `Basic realm="x"`, `Basic realm="x", Bearer realm="y"`,
		`Bearer`, `,,,=`, `Bearer realm="unterminated`, `Bearer realm="a\"b",error="insufficient_scope"`, "Basic\trealm = x ,, Negotiate abc==", "=", `"`, "\xa70",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, c := range challenges(http.Header{"Www-Authenticate": {line}}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) || len(c.scheme) > len(line) {
				t.Errorf("scheme %q of %q", c.scheme, line)
			}
			for k, v := range c.params {
				if k == "" || len(k)+len(v) > len(line) {
					t.Errorf("parameter %q=%q of %q", k, v, line)
				}
			}
		}
	})
}

// FuzzLocation: whatever a registry names as the place of an upload, Sluice goes to the registry itself or to a host
// that is configured, and nowhere else.
func FuzzLocation(f *testing.F) {
	r, err := New(Options{URL: "https://registry.example", Credentials: Anonymous, Hosts: []string{"uploads.example"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = r.Close() })
	for _, s := range []string{
		"/v2/app/blobs/uploads/1", "https://registry.example/v2/app/blobs/uploads/1?_state=x", "https://uploads.example/1", "//evil.example/1", "https://evil.example/",
		"https://registry.example@evil.example/", "https://registry.example.evil.example/", `https:\\evil.example`, "http://registry.example/", "https://registry.example:8443/", "file:///etc/passwd", "\x00", "", "https://[::1]/",
		"https://uploAds.eXAmple#0", "https://upload\u017f.example/1",
	} {
		f.Add(s)
	}
	base, err := url.Parse("https://registry.example/v2/app/blobs/uploads/")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, location string) {
		got, err := r.Location(&http.Response{Header: http.Header{"Location": {location}}, Request: &http.Request{Method: http.MethodPost, URL: base}})
		if err != nil {
			return
		}
		u, err := url.Parse(got)
		if err != nil {
			t.Fatalf("%q became %q: %v", location, got, err)
		}
		u = base.ResolveReference(u)
		u.Host = strings.Map(func(c rune) rune { // what DNS takes for the same
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			return c
		}, u.Host)
		if u.Scheme != "https" || u.Host != "registry.example" && u.Host != "registry.example:443" && u.Host != "uploads.example" && u.Host != "uploads.example:443" || u.User != nil {
			t.Errorf("%q leads to %s", location, u)
		}
	})
}

// FuzzTokenAnswer: whatever a token service answers becomes a header that can be sent, for a time that makes sense, or an error
// that does not show it.
func FuzzTokenAnswer(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, s := range []string{
		`{"token":"t","expires_in":300,"issued_at":"2026-01-02T03:04:00Z"}`, `{"access_token":"t"}`, `{"token":"t\nX-Injected: 1"}`, `{"token":" "}`, `{"token":"t","expires_in":1e300}`,
		`{"token":"t","expires_in":-1}`, `{"token":"t","expires_in":1e-300,"issued_at":"0001-01-01T00:00:00Z"}`, `{"token":7}`, `{"token":"t","expires_in":"300"}`, `[]`, ``, `{"TOKEN":"t"}`, "\xff",
	} {
		f.Add(s, "Fri, 02 Jan 2026 03:04:05 GMT")
	}
	f.Add(`{"token":"t","expires_in":300,"issued_at":"9999-12-31T23:59:59Z"}`, "")
	r, err := New(Options{URL: "https://registry.example", Credentials: Anonymous})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = r.Close() })
	r.now = func() time.Time { return now }
	realm := &url.URL{Scheme: "https", Host: "auth.example"}
	f.Fuzz(func(t *testing.T, body, date string) {
		resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Date": {date}}, Body: io.NopCloser(strings.NewReader(body))}
		g, err := r.readToken(resp, service{scheme: "bearer", realm: realm}, []string{"repository:app:pull"}, credential{username: "u", password: "p"})
		if err != nil {
			if len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Fatalf("%q is in the error %v", body, err)
			}
			return
		}
		token, ok := strings.CutPrefix(g.header, "Bearer ")
		if !ok || token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			t.Errorf("%q became %q", body, g.header)
		}
		if left := g.ends.Sub(now); left < 0 || left > 30*24*time.Hour || g.renewAt.After(g.ends) || g.renewAt.Before(now) {
			t.Errorf("%q (%q) is renewed at %s and ends at %s, it is %s", body, date, g.renewAt, g.ends, now)
		}
	})
}

// FuzzDockerConfiguration: whatever is in the Docker configuration is an account or an error that does not show it. No helper is
// run: what a configuration names as one is a program of whoever wrote it.
func FuzzDockerConfiguration(f *testing.F) {
	for _, s := range []string{
		`{"auths":{"registry.example":{"auth":"dXNlcjpwYXNzd29yZA=="}}}`, `{"auths":{"https://registry.example/v1/":{"username":"u","password":"p"}}}`, `{"auths":{"registry.example":{"identitytoken":"secret-token"}}}`,
		`{"auths":{"registry.example":{"auth":"%%%"}}}`, `{"auths":{"registry.example":{"auth":"bm9jb2xvbg=="}}}`, `{"auths":{"registry.example":{"registrytoken":"a\nb"}}}`, `{"auths":[]}`, `{"auths":{"registry.example":null}}`, `{`, ``, `null`,
		`{"auths":{"registry.example":{"auth":"PHRva2VuPjpzZWNyZXQ="}},"HttpHeaders":{"X":"y"}}`,
	} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Setenv("DOCKER_CONFIG", dir)
	f.Setenv("DOCKER_AUTH_CONFIG", "")
	d := newDockerSource("registry.example")
	f.Fuzz(func(t *testing.T, content string) {
		if strings.Contains(strings.ToLower(content), "cred") || strings.Contains(content, `\u`) {
			return // it may name a helper
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := d.credential(t.Context())
		switch {
		case err == nil:
			if c.username == tokenUser {
				t.Errorf("%q has the user %s", content, c.username)
			}
		case len(content) > 20 && strings.Contains(err.Error(), content):
			t.Errorf("%q is in the error %v", content, err)
		}
	})
}
