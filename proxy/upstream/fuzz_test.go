package upstream

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
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
