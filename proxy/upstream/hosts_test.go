package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func location(r *Registry, requested, loc string) (string, error) {
	u, _ := url.Parse(requested)
	return r.Location(&http.Response{Header: http.Header{"Location": {loc}}, Request: &http.Request{URL: u}})
}

func TestUploadLocations(t *testing.T) {
	const at = "https://registry.example.com/v2/app/blobs/uploads/"
	for name, c := range map[string]struct{ base, loc, want string }{
		"absolute":                     {"https://registry.example.com", "https://registry.example.com/v2/app/blobs/uploads/1?_state=a%2Bb", "https://registry.example.com/v2/app/blobs/uploads/1?_state=a%2Bb"},
		"relative to the host":         {"https://registry.example.com", "/v2/app/blobs/uploads/1?x=y", "https://registry.example.com/v2/app/blobs/uploads/1?x=y"},
		"relative to the request":      {"https://registry.example.com", "1", at + "1"},
		"http behind a TLS terminator": {"https://registry.example.com", "http://registry.example.com/v2/1", "https://registry.example.com/v2/1"},
		"the default port":             {"https://registry.example.com", "https://registry.example.com:443/v2/1", "https://registry.example.com/v2/1"},
		"another port":                 {"https://registry.example.com", "https://registry.example.com:8443/v2/1", "add registry.example.com:8443"},
		"another host":                 {"https://registry.example.com", "https://evil.example.com/v2/1", "add evil.example.com"},
		"a listed host":                {"https://registry.example.com", "https://upload.example.com/1", "https://upload.example.com/1"},
		"a listed host over http":      {"https://registry.example.com", "http://upload.example.com/1", "plain http"},
		"without a scheme":             {"https://registry.example.com", "//evil.example.com/1", "add evil.example.com"},
		"with a user":                  {"https://registry.example.com", "https://u:p@registry.example.com/1", "not an http or https URL"},
		"a file":                       {"https://registry.example.com", "file:///etc/passwd", "not an http or https URL"},
		"nothing":                      {"https://registry.example.com", "", "without a Location"},
	} {
		r, _ := open(t, Options{URL: c.base, Credentials: Anonymous, Hosts: []string{"upload.example.com"}})
		got, err := location(r, at, c.loc)
		if strings.HasPrefix(c.want, "https://") {
			if got != c.want || err != nil {
				t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
			}
			continue
		}
		if !errors.Is(err, ErrHost) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, error = %v; want ErrHost with %q", name, got, err, c.want)
		}
	}
}

func TestASessionOnAListedHostGetsNoCredentials(t *testing.T) {
	auth := basicHeader("u", "p")
	for name, o := range map[string]Options{
		"basic":       {Credentials: Basic, Username: "u", Password: password("p")},
		"passthrough": {Credentials: Passthrough}, // of clients
	} {
		t.Run(name, func(t *testing.T) {
			other := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(201) }})
			f := newFake(t, &fake{scheme: "basic", allow: only(auth)})
			o.URL, o.Hosts = f.URL, []string{host(other)}
			r, _ := open(t, o)
			do(t, r, 200, Request{Authorization: auth}) // credentials are in use
			do(t, r, 201, Request{Method: "PUT", Repository: "app", Location: other.URL + "/v2/s?sig=a%2Fb&x", Query: url.Values{"digest": {"sha256:0"}}, Push: true, Authorization: auth})
			same(t, other.requests(), "PUT s?sig=a%2Fb&x&digest=sha256%3A0 ")

			stranger := newFake(t, &fake{})
			if _, err := r.Do(context.Background(), Request{Method: "PUT", Repository: "app", Location: stranger.URL + "/v2/s", Push: true, Authorization: auth}); !errors.Is(err, ErrHost) {
				t.Errorf("error = %v", err)
			}
			same(t, stranger.requests())
		})
	}
}

func TestRedirectsArePassedOrFollowedWithoutAuthorization(t *testing.T) {
	auth := basicHeader("u", "p")
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("the store got %q", r.Header.Get("Authorization"))
		}
		if r.Header.Get("Range") != "bytes=1-2" {
			t.Errorf("Range = %q", r.Header.Get("Range"))
		}
		w.WriteHeader(206)
	}))
	defer store.Close()
	f := newFake(t, &fake{scheme: "basic", allow: only(auth)})
	f.handle = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/away"), strings.Contains(r.URL.Path, "manifests"):
			http.Redirect(w, r, store.URL+"/blob?X-Amz-Signature=s", 307)
		case strings.HasSuffix(r.URL.Path, "/round"):
			http.Redirect(w, r, "/v2/app/blobs/round", 302)
		default:
			http.Redirect(w, r, "away", 301)
		}
	}
	ranged := http.Header{"Range": {"bytes=1-2"}}
	for name, o := range map[string]Options{
		"basic":       {Credentials: Basic, Username: "u", Password: password("p")},
		"passthrough": {Credentials: Passthrough},
	} {
		t.Run(name, func(t *testing.T) {
			o.URL = f.URL
			pass, _ := open(t, o)
			resp, _ := do(t, pass, 307, Request{Repository: "app", Path: "blobs/away", Header: ranged, Authorization: auth})
			if got := resp.Header.Get("Location"); got != store.URL+"/blob?X-Amz-Signature=s" {
				t.Errorf("Location = %s", got)
			}
			do(t, pass, 206, Request{Repository: "app", Path: "blobs/away", Header: ranged, Authorization: auth, Follow: true})

			o.Redirects = "follow"
			follow, _ := open(t, o)
			do(t, follow, 206, Request{Repository: "app", Path: "blobs/one", Header: ranged, Authorization: auth})
			do(t, follow, 206, Request{Method: "HEAD", Repository: "app", Path: "blobs/away", Header: ranged, Authorization: auth})
			do(t, follow, 307, Request{Repository: "app", Path: "manifests/1", Authorization: auth})
			do(t, follow, 307, Request{Method: "DELETE", Repository: "app", Path: "blobs/away", Authorization: auth})
			if _, err := follow.Do(context.Background(), Request{Repository: "app", Path: "blobs/round", Authorization: auth}); !errors.Is(err, ErrHost) || !strings.Contains(err.Error(), "more than 5") {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		want string
	}{
		"no scheme":               {Options{URL: "registry.example.com"}, "http:// or https://"},
		"another scheme":          {Options{URL: "ftp://registry.example.com"}, "use http or https"},
		"a path":                  {Options{URL: "https://registry.example.com/team"}, "has a path"},
		"a query":                 {Options{URL: "https://registry.example.com/?a=b"}, "query"},
		"no host":                 {Options{URL: "https://"}, "no host"},
		"an unknown mode":         {Options{URL: "https://r.example.com", Credentials: "magic"}, `"magic"`},
		"no mode":                 {Options{URL: "https://r.example.com"}, `credentials ""`},
		"auto":                    {Options{URL: "https://r.example.com", Credentials: "auto"}, `"auto"`},
		"basic without a user":    {Options{URL: "https://r.example.com", Credentials: Basic}, "username"},
		"an unknown redirects":    {Options{URL: "https://r.example.com", Redirects: "sometimes"}, `"sometimes"`},
		"a host that is a URL":    {Options{URL: "https://r.example.com", Hosts: []string{"https://auth.example.com"}}, "auth.example.com"},
		"a missing ca":            {Options{URL: "https://r.example.com", Credentials: Anonymous, CA: "/does/not/exist.pem"}, "/does/not/exist.pem"},
		"a URL beside embedded":   {Options{URL: "https://r.example.com", Embedded: http.NotFoundHandler()}, "embedded"},
		"embedded without a part": {Options{URL: "embedded"}, "http:// or https://"},
	} {
		if _, err := New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error = %v; want %q", name, err, c.want)
		}
	}
	for _, u := range []string{"https://docker.io", "https://index.docker.io/v2/"} {
		if r, _ := open(t, Options{URL: u, Credentials: Anonymous}); r.Host() != "registry-1.docker.io" {
			t.Errorf("%s is asked at %s", u, r.Host())
		}
	}
	r, _ := open(t, Options{URL: "http://127.0.0.1:1", Credentials: Anonymous})
	if _, err := r.Do(context.Background(), Request{Repository: "app", Path: "blobs/../../other/manifests/1"}); err == nil || errors.Is(err, ErrUnreachable) {
		t.Errorf("a path that leaves its repository: %v", err)
	}
}
