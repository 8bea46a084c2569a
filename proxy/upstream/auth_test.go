package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
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

func TestABearerTokenIsFetchedPerRepositoryAndActions(t *testing.T) {
	f := newFake(t, &fake{scheme: "bearer"})
	f.allow = func(got string) bool { return strings.HasPrefix(got, "Bearer t") }
	r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: password("p")})
	do(t, r, 200, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})                   // t1
	do(t, r, 200, Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true})    // widened: t2
	do(t, r, 200, Request{Method: "GET", Repository: "app", Path: "manifests/1"})                    // allowed by t2
	do(t, r, 200, Request{Method: "GET", Repository: "other", Path: "manifests/1"})                  // t3
	do(t, r, 200, Request{Method: "DELETE", Repository: "app", Path: "manifests/sha256:x"})          // t4
	do(t, r, 200, Request{Method: "POST", Repository: "app", Mount: "base", Path: "x", Push: true})  // t5
	do(t, r, 200, Request{Path: "_catalog"})                                                         // t6
	do(t, r, 200, Request{Method: "DELETE", Repository: "app", Path: "blobs/uploads/x", Push: true}) // t2
	same(t, f.requests(),
		"HEAD app/manifests/1 ", "HEAD app/manifests/1 Bearer t1",
		"POST app/blobs/uploads/ Bearer t2", "GET app/manifests/1 Bearer t2", "GET other/manifests/1 Bearer t3",
		"DELETE app/manifests/sha256:x Bearer t4", "POST app/x Bearer t5", "GET _catalog Bearer t6", "DELETE app/blobs/uploads/x Bearer t2")
	var got []string
	for i, q := range f.tokenRequests() {
		got = append(got, q.Get("service")+" "+strings.Join(q["scope"], " "))
		if f.auths[i] != basicHeader("u", "p") {
			t.Errorf("token %d was asked for with %q", i+1, f.auths[i])
		}
	}
	same(t, got, "fake repository:app:pull", "fake repository:app:pull,push", "fake repository:other:pull",
		"fake repository:app:delete,pull", "fake repository:app:pull,push repository:base:pull", "fake registry:catalog:*")
}

func TestAnonymousGetsATokenWithoutCredentials(t *testing.T) {
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer t1")})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous, Username: "u", Password: password("p")})
	do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
	if f.auths[0] != "" {
		t.Errorf("the token service got %q", f.auths[0])
	}
}

func TestATokenIsRenewedAheadOfItsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		answer map[string]any
		fresh  time.Duration // still used
		stale  time.Duration // replaced
	}{
		"five minutes":                  {map[string]any{"token": "T", "expires_in": 300}, 269 * time.Second, 271 * time.Second},
		"ten seconds":                   {map[string]any{"token": "T", "expires_in": 10}, 7 * time.Second, 8 * time.Second},
		"unsaid is a minute":            {map[string]any{"token": "T"}, 44 * time.Second, 46 * time.Second},
		"access_token":                  {map[string]any{"access_token": "T", "expires_in": 300}, 269 * time.Second, 271 * time.Second},
		"issued in the service's past":  {map[string]any{"token": "T", "expires_in": 300, "issued_at": time.Now().Add(-200 * time.Second)}, 69 * time.Second, 78 * time.Second},
		"issued at a time out of sense": {map[string]any{"token": "T", "expires_in": 300, "issued_at": time.Now().Add(-time.Hour)}, 269 * time.Second, 271 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "bearer"})
			f.grant = func(n int) (int, map[string]any) { return 200, c.answer }
			f.allow = only("Bearer T")
			r, clock := open(t, Options{URL: f.URL, Credentials: Anonymous})
			get := func() int {
				do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
				return len(f.tokenRequests())
			}
			if n := get(); n != 1 {
				t.Fatalf("%d tokens", n)
			}
			clock.add(c.fresh)
			if n := get(); n != 1 {
				t.Errorf("after %s: %d tokens, want 1", c.fresh, n)
			}
			clock.add(c.stale - c.fresh)
			if n := get(); n != 2 {
				t.Errorf("after %s: %d tokens, want 2", c.stale, n)
			}
			if n := len(f.requests()); n != 4 {
				t.Errorf("%d requests, want 4: renewal ahead of time spares the 401", n)
			}
		})
	}
}

func TestAFailingRenewalLeavesATokenThatStillHolds(t *testing.T) {
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer t1")})
	f.grant = func(n int) (int, map[string]any) {
		if n > 1 {
			return 500, nil
		}
		return 200, map[string]any{"token": "t1", "expires_in": 300}
	}
	r, clock := open(t, Options{URL: f.URL, Credentials: Anonymous})
	do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
	clock.add(280 * time.Second)
	do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
	clock.add(30 * time.Second)
	_, err := r.Do(context.Background(), Request{Repository: "app", Path: "tags/list"})
	if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "500") {
		t.Errorf("error = %v", err)
	}
}

func TestFiftyConcurrent401sFetchOneToken(t *testing.T) {
	const n = 50
	var all sync.WaitGroup
	all.Add(n)
	f := newFake(t, &fake{scheme: "bearer"})
	f.allow = func(got string) bool {
		if got == "" { // none is answered before all have come
			all.Done()
			all.Wait()
		}
		return got == "Bearer t1"
	}
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			resp, err := r.Do(context.Background(), Request{Repository: "app", Path: "tags/list"})
			if err != nil {
				t.Error(err)
				return
			}
			resp.Body.Close()
			if resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	wg.Wait()
	if got := len(f.tokenRequests()); got != 1 {
		t.Errorf("%d tokens were fetched", got)
	}
}

func TestAWaiterThatLeavesDoesNotEndTheFetchOfOthers(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer t1")})
	f.grant = func(n int) (int, map[string]any) {
		close(asked)
		<-answer
		return 200, map[string]any{"token": "t1"}
	}
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error)
	go func() {
		_, err := r.Do(ctx, Request{Repository: "app", Path: "tags/list"})
		left <- err
	}()
	<-asked
	done := make(chan int)
	go func() {
		resp, _ := do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
		done <- resp.StatusCode
	}()
	for waiting := 0; waiting < 2; { // until the second waits as well
		r.auth.mu.Lock()
		if e := r.auth.grants["repository:app:pull"]; e != nil && e.flight != nil {
			waiting = e.flight.waiters
		}
		r.auth.mu.Unlock()
	}
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	close(answer)
	<-done
}

func TestAMountGoesOnWithoutARefusedSource(t *testing.T) {
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer ok")})
	f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" && len(r.URL.Query()["scope"]) > 1 {
			w.WriteHeader(403)
			return
		}
		f.ServeHTTP(w, r)
	})
	f.grant = func(int) (int, map[string]any) { return 200, map[string]any{"token": "ok"} }
	f.handle = func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(202) }
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	do(t, r, 202, Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Query: url.Values{"from": {"secret/base"}}, Mount: "secret/base", Push: true})
}

func TestAScopeThatA401AsksForIsRemembered(t *testing.T) {
	var tokens []string
	mux := http.NewServeMux()
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		tokens = append(tokens, strings.Join(r.URL.Query()["scope"], " "))
		fmt.Fprintf(w, `{"token":%q}`, "t:"+r.URL.Query().Get("scope"))
	})
	var seen int
	f := newFake(t, &fake{})
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		seen++
		if !strings.Contains(r.Header.Get("Authorization"), "delete") {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+f.URL+`/token",scope="repository:app:delete"`)
			w.WriteHeader(401)
		}
	})
	f.Config.Handler = mux
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
	cancel := Request{Method: "DELETE", Repository: "app", Location: "/v2/app/blobs/uploads/x", Push: true}
	do(t, r, 200, cancel)
	do(t, r, 200, cancel)
	same(t, tokens, "repository:app:delete,pull,push")
	if seen != 3 {
		t.Errorf("%d requests, want 3", seen)
	}
}

func TestAnIdentityTokenIsPosted(t *testing.T) {
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer t1")})
	dockerConfig(t, fmt.Sprintf(`{"auths":{%q:{"auth":"","identitytoken":"refresh-me"}}}`, host(f)))
	r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
	do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
	q := f.tokenRequests()[0]
	if q.Get("grant_type") != "refresh_token" || q.Get("refresh_token") != "refresh-me" || q.Get("service") != "fake" || q.Get("scope") != "repository:app:pull" || q.Get("client_id") == "" {
		t.Errorf("form = %v", q)
	}
}

func host(f *fake) string { return strings.TrimPrefix(f.URL, "http://") }

// dockerConfig sets a Docker configuration for the test, and no other in reach.
func dockerConfig(t *testing.T, config string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_CONFIG", dir)
	if config == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// helper puts a credential helper named docker-credential-test on the PATH.
func helper(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestDockerCredentials(t *testing.T) {
	entry := func(user, pass string) string {
		return base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))
	}
	for name, c := range map[string]struct {
		mode   Mode
		config string // %s is the host
		script string
		want   string // Authorization of the second request; "" = only one, which is 401
	}{
		"an entry":                                 {Docker, `{"auths":{"%s":{"auth":"` + entry("d", "x") + `"}}}`, "", basicHeader("d", "x")},
		"an entry of another host is no entry":     {Docker, `{"auths":{"example.com":{"auth":"` + entry("d", "x") + `"}}}`, "", ""},
		"no entry is anonymous":                    {Docker, `{}`, "", ""},
		"no file is anonymous":                     {Docker, "", "", ""},
		"a username asks no Docker configuration":  {Basic, `{"auths":{"%s":{"auth":"` + entry("d", "x") + `"}}}`, "", basicHeader("u", "p")},
		"a helper":                                 {Docker, `{"credHelpers":{"%s":"test"}}`, `read h; echo "{\"Username\":\"h\",\"Secret\":\"$h\"}"`, "HELPER"},
		"a store that does not know the host":      {Docker, `{"credsStore":"test"}`, `echo "credentials not found in native keychain"; exit 1`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "basic"})
			want := strings.ReplaceAll(c.want, "HELPER", basicHeader("h", host(f)))
			f.allow = only(want)
			dockerConfig(t, strings.ReplaceAll(c.config, "%s", host(f)))
			helper(t, c.script)
			r, _ := open(t, Options{URL: f.URL, Credentials: c.mode, Username: "u", Password: password("p")})
			if c.want == "" {
				f.allow = only("never")
				do(t, r, 401, Request{})
				same(t, f.requests(), "GET  ")
				return
			}
			do(t, r, 200, Request{})
			same(t, f.requests(), "GET  ", "GET  "+want)
		})
	}
}

func TestAHelperIsAskedAgainAfterA401(t *testing.T) {
	f := newFake(t, &fake{scheme: "basic"})
	count := filepath.Join(t.TempDir(), "count")
	helper(t, `echo x >>`+count+`; n=$(wc -l <`+count+`); echo "{\"Username\":\"AWS\",\"Secret\":\"pass$n\"}"`)
	dockerConfig(t, fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, host(f)))
	f.allow = only(basicHeader("AWS", "pass1"))
	r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
	do(t, r, 200, Request{})
	do(t, r, 200, Request{})
	f.allow = only(basicHeader("AWS", "pass2")) // twelve hours later
	do(t, r, 200, Request{})
	if b, _ := os.ReadFile(count); len(b) != 4 {
		t.Errorf("the helper ran %d times, want 2", len(b)/2)
	}
}

func TestAFailingHelperIsAnErrorThatSaysSo(t *testing.T) {
	for name, c := range map[string]struct{ script, want, never string }{
		"with a message":      {`echo "session ended, log in again"; exit 1`, "session ended, log in again", ""},
		"that is missing":     {"", "docker-credential-test", ""},
		"that prints secrets": {`echo '{"Username":"u","Secret":"hunter2"}'; exit 3`, "exit status 3", "hunter2"},
		"that prints nothing": {`exit 0`, "EOF", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "basic", allow: only("never")})
			dockerConfig(t, fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, host(f)))
			if c.script != "" {
				helper(t, c.script)
			}
			r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
			_, err := r.Do(context.Background(), Request{})
			if !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), host(f)) {
				t.Errorf("error = %v; want ErrCredentials with %q", err, c.want)
			}
			if c.never != "" && strings.Contains(fmt.Sprint(err), c.never) {
				t.Errorf("error shows the secret: %v", err)
			}
		})
	}
}

func TestARegistryWithoutAuthenticationNeverStartsAHelper(t *testing.T) {
	f := newFake(t, &fake{})
	helper(t, "exit 1")
	dockerConfig(t, `{"credsStore":"test"}`)
	r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
	do(t, r, 200, Request{})
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

func TestRealmsOnOtherHosts(t *testing.T) {
	stranger := newFake(t, &fake{})
	strange := strings.Replace(stranger.URL, "127.0.0.1", "localhost", 1)
	for name, c := range map[string]struct {
		realm string
		hosts []string
		want  string // of the error; "" = allowed
	}{
		"the same name on another port":  {stranger.URL + "/token", nil, ""},
		"a stranger":                     {strange + "/token", nil, "add localhost:"},
		"a stranger that is listed":      {strange + "/token", []string{"localhost"}, ""},
		"listed with its port":           {strange + "/token", []string{strings.TrimPrefix(strange, "http://")}, ""},
		"another one listed":             {strange + "/token", []string{"localhost.example.com"}, "add localhost:"},
		"a URL with a user":              {strings.Replace(stranger.URL, "http://", "http://u:p@", 1), nil, "not an http or https URL"},
		"a file":                         {"file:///etc/passwd", nil, "not an http or https URL"},
		"a host that ends like it":       {"http://evil127.0.0.1/token", nil, "hosts"},
		"the registry's name as a user":  {"http://127.0.0.1@evil.example/token", nil, "not an http or https URL"},
		"the registry's name in a query": {"http://evil.example/?127.0.0.1", nil, "evil.example"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "bearer", realm: c.realm, allow: only("Bearer t1")})
			stranger.mu.Lock()
			stranger.tokens = nil
			stranger.mu.Unlock()
			r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: password("hunter2"), Hosts: c.hosts})
			resp, err := r.Do(context.Background(), Request{Repository: "app", Path: "tags/list"})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != 200 {
					t.Errorf("status %d", resp.StatusCode)
				}
				return
			}
			if !errors.Is(err, ErrHost) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error = %v; want ErrHost with %q", err, c.want)
			}
			if n := len(stranger.tokenRequests()); n != 0 {
				t.Error("credentials were sent")
			}
		})
	}
}

func TestWellKnownRealms(t *testing.T) {
	for _, c := range []struct {
		registry, realm string
		ok              bool
	}{
		{"https://docker.io", "https://auth.docker.io/token", true},
		{"https://registry-1.docker.io", "https://auth.docker.io/token", true},
		{"https://registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"https://registry.example.com", "https://auth.docker.io/token", false},
		{"https://registry.example.com", "https://auth.example.com/token", false},
		{"https://registry.example.com", "https://REGISTRY.example.com:5001/token", true},
		{"https://registry.example.com", "http://registry.example.com/token", false}, // plain http
		{"https://localhost:5000", "http://localhost:5001/token", true},              // stays on this machine
		{"http://registry.example.com", "https://registry.example.com/token", true},
	} {
		r, _ := open(t, Options{URL: c.registry, Credentials: Anonymous})
		if _, err := r.realm(c.realm); (err == nil) != c.ok {
			t.Errorf("%s names %s: error = %v", c.registry, c.realm, err)
		}
	}
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

func TestChallenges(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"bearer":                  {[]string{`Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"`}, "bearer https://a/token s repository:x:pull,push"},
		"tokens and spaces":       {[]string{`bearer  realm = "https://a" , service=s`}, "bearer https://a s "},
		"two in one line":         {[]string{`Basic realm="a, b=c", Bearer realm="https://a",service="x \"q\" \\"`}, `bearer https://a x "q" \ `},
		"two lines":               {[]string{`Basic realm="x"`, `Bearer realm="https://a"`}, "bearer https://a  "},
		"bearer without realm":    {[]string{`Bearer`, `Basic realm="x"`}, "basic x  "},
		"basic alone":             {[]string{`Basic`}, "basic   "},
		"negotiate and basic":     {[]string{`Negotiate, Basic realm=x`}, "basic x  "},
		"names in any case":       {[]string{`BEARER Realm="https://a",SERVICE="s"`}, "bearer https://a s "},
		"one that does not close": {[]string{`Bearer realm="https://a`}, "bearer https://a  "},
		"a parameter first":       {[]string{`realm="x"`}, "none"},
		"quotes":                  {[]string{`"""`}, "none"},
		"nothing":                 {nil, "none"},
		"another scheme":          {[]string{`Digest realm="x", nonce="y"`}, "none"},
	} {
		got := "none"
		if ch, ok := pick(challenges(http.Header{"Www-Authenticate": c.lines})); ok {
			got = strings.Join([]string{ch.scheme, ch.params["realm"], ch.params["service"], ch.params["scope"]}, " ")
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
