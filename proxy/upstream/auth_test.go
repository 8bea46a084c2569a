package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func basicHeader(user, pass string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+pass))
}

func only(want string) func(string) bool { return func(got string) bool { return got == want } }

func TestBasicCredentialsAreSentOnlyWhenAskedForAndThenAlways(t *testing.T) {
	want := basicHeader("u", "p:w")
	f := newFake(t, &fake{scheme: "basic", allow: only(want)})
	r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: password("p:w")})
	do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
	do(t, r, 200, Request{Repository: "other", Path: "tags/list"})
	same(t, f.requests(), "GET app/tags/list ", "GET app/tags/list "+want, "GET other/tags/list "+want)
}

func TestAPasswordIsReadAgainAfterA401(t *testing.T) {
	f := newFake(t, &fake{scheme: "basic"})
	valid := "one"
	f.allow = func(got string) bool { return got == basicHeader("u", valid) }
	r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: func() (string, error) { return valid, nil }})
	do(t, r, 200, Request{})
	valid = "two" // rotated
	do(t, r, 200, Request{})
	if n := len(f.requests()); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
	f.allow = only("never")
	_, body := do(t, r, 401, Request{})
	if !strings.Contains(string(body), "UNAUTHORIZED") {
		t.Errorf("the registry's own answer is lost: %q", body)
	}
	if n := len(f.requests()); n != 5 {
		t.Errorf("%d requests: the same password was sent again", n)
	}
}

func TestPassthroughIsVerbatim(t *testing.T) {
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer client")})
	r, _ := open(t, Options{URL: f.URL, Credentials: Passthrough, Username: "u", Password: password("p")})
	if !r.Passthrough() {
		t.Error("Passthrough() = false")
	}
	resp, body := do(t, r, 401, Request{Repository: "app", Path: "tags/list", Authorization: "Digest of/sorts=,\"x"})
	if want := `Bearer realm="` + f.URL + `/token",service="fake",scope="repository:app:pull"`; resp.Header.Get("WWW-Authenticate") != want {
		t.Errorf("challenge = %s", resp.Header.Get("WWW-Authenticate"))
	}
	if string(body) != `{"errors":[{"code":"UNAUTHORIZED"}]}`+"\n" {
		t.Errorf("body = %q", body)
	}
	do(t, r, 200, Request{Repository: "app", Path: "tags/list", Authorization: "Bearer client"})
	do(t, r, 401, Request{Repository: "app", Path: "tags/list", Header: http.Header{"Authorization": {"Bearer client"}}})
	same(t, f.requests(), `GET app/tags/list Digest of/sorts=,"x`, "GET app/tags/list Bearer client", "GET app/tags/list ")
	if n := len(f.tokenRequests()); n != 0 {
		t.Errorf("%d tokens were fetched", n)
	}
}

func TestAClientsAuthorizationStaysHereOtherwise(t *testing.T) {
	f := newFake(t, &fake{})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	do(t, r, 200, Request{Authorization: "Basic x", Header: http.Header{"Authorization": {"Basic y"}, "Proxy-Authorization": {"z"}, "Cookie": {"a=b"}, "X-Odd": {"kept"}, "Connection": {"X-Hop"}, "X-Hop": {"1"}}})
	same(t, f.requests(), "GET  ")
}

func TestErrorsHoldNoSecret(t *testing.T) {
	const secret = "hunter2"
	failing := newFake(t, &fake{scheme: "bearer", allow: only("never")})
	failing.grant = func(n int) (int, map[string]any) { return 403, map[string]any{"details": secret} }
	odd := newFake(t, &fake{scheme: "bearer", allow: only("never")})
	odd.grant = func(n int) (int, map[string]any) { return 200, map[string]any{"token": secret + "\r\nX: y"} }
	basic := newFake(t, &fake{scheme: "basic", allow: only("never")})
	opts := func(u string) Options {
		return Options{URL: u, Credentials: Basic, Username: "u", Password: password(secret)}
	}
	unreadable := opts(basic.URL)
	unreadable.Password = func() (string, error) { return "", errors.New("open /run/secrets/pw: permission denied") }
	for name, c := range map[string]struct {
		o    Options
		q    Request
		kind error
		want string
	}{
		"a refused token":          {opts(failing.URL), Request{Repository: "app", Path: "tags/list"}, ErrCredentials, "repository:app:pull"},
		"a token with a newline":   {opts(odd.URL), Request{Repository: "app", Path: "tags/list"}, ErrCredentials, "token"},
		"an unreadable password":   {unreadable, Request{}, ErrCredentials, "permission denied"},
		"nobody listens":           {opts("http://127.0.0.1:1"), Request{Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/x?_state=" + secret}, ErrUnreachable, "127.0.0.1:1"},
		"no such host":             {opts("http://registry.invalid"), Request{Query: url.Values{"t": {secret}}}, ErrUnreachable, "check the host"},
		"a Location somewhere":     {opts(basic.URL), Request{Method: "PUT", Location: "https://evil.example/?_state=" + secret}, ErrHost, "evil.example"},
		"a Location out of syntax": {opts(basic.URL), Request{Method: "PUT", Location: "http://[" + secret}, ErrHost, "not a URL"},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := open(t, c.o)
			resp, err := r.Do(context.Background(), c.q)
			if err == nil {
				io.Copy(io.Discard, resp.Body)
				t.Fatalf("status %d", resp.StatusCode)
			}
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v; want %v with %q", err, c.kind, c.want)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				if strings.Contains(fmt.Sprintf("%v %+v %#v", e, e, e.Error()), secret) {
					t.Errorf("error shows the secret: %v", e)
				}
			}
		})
	}
	for _, u := range []string{"https://u:" + secret + "@registry.example.com", "u:" + secret + "@registry.example.com", "https://u:" + secret + "@[x", "https://u:" + secret + "@h/path", "ftp://u:" + secret + "@h"} {
		if _, err := New(Options{URL: u}); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: error = %v", u, err)
		}
	}
}
