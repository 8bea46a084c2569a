package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
				r.auth.flights.Wait()
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

// A token service that hangs keeps nobody waiting as long as there is a token that holds, also the one that a push has.
func TestAHangingRenewalKeepsNobodyWaitingWhileTheOldTokenHolds(t *testing.T) {
	pull := Request{Repository: "app", Path: "tags/list"}
	push := Request{Method: http.MethodPost, Repository: "app", Path: "blobs/uploads/", Push: true}
	for name, asked := range map[string][]Request{"a pull": {pull}, "a push": {push}, "a pull after a push": {push, pull}} {
		t.Run(name, func(t *testing.T) {
			answers := make(chan struct{})
			answer := sync.OnceFunc(func() { close(answers) })
			f := newFake(t, &fake{scheme: "bearer", allow: func(got string) bool { return got != "" }})
			f.grant = func(n int) (int, map[string]any) {
				if n > 1 {
					<-answers
				}
				return 200, map[string]any{"token": fmt.Sprint("t", n), "expires_in": 60}
			}
			r, clock := open(t, Options{URL: f.URL, Credentials: Anonymous})
			t.Cleanup(answer)
			do(t, r, 200, asked[0])
			clock.add(46 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second) // less than a token service may take
			defer cancel()
			last := asked[len(asked)-1]
			for range 3 {
				resp, err := r.Do(ctx, last)
				if err != nil {
					t.Fatal(err)
				}
				Discard(resp)
			}
			answer()
			r.auth.flights.Wait()
			do(t, r, 200, last)
			clock.add(16 * time.Second) // the old one's life is over
			do(t, r, 200, last)
			log, tokens := f.requests(), f.tokenRequests()
			if got := log[len(log)-1]; !strings.HasSuffix(got, "Bearer t2") || len(tokens) != 2 {
				t.Errorf("%d tokens were fetched, and the last request is %s", len(tokens), got)
			}
			for _, got := range log[2:5] {
				if !strings.HasSuffix(got, "Bearer t1") {
					t.Errorf("while the service hangs: %s", got)
				}
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

func TestATokenWhoseAnswerBreaksOffIsAskedForAgain(t *testing.T) {
	for name, half := range map[string]string{
		"with a length": "Content-Length: 100\r\n\r\n{\"token\":\"t",
		"in chunks":     "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"tok\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			var tokens atomic.Int32
			u := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
				switch {
				case req.URL.Path == "/token" && tokens.Add(1) == 1:
					fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\n%s", half)
					return false
				case req.URL.Path == "/token":
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"token\":\"t\"}")
				case req.Header.Get("Authorization") == "Bearer t":
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				default:
					fmt.Fprintf(conn, "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://%s/token\"\r\nContent-Length: 0\r\n\r\n", req.Host)
				}
				return true
			})
			r, _ := open(t, Options{URL: u, Credentials: Anonymous})
			do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
			if tokens.Load() != 2 {
				t.Errorf("%d tokens were asked for", tokens.Load())
			}
		})
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
