package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// tokens are a registry's token service and its guard: whoever comes without a token that still holds is sent to it.
type tokens struct {
	mu     sync.Mutex
	n      int // of tokens that were given out
	void   int // so many of the first do not hold any more
	repeal func(*http.Request) bool
	then   func()
}

func (k *tokens) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	fmt.Fprintf(w, `{"token":"t%d","expires_in":3600}`, k.n)
}

func (k *tokens) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		n, err := strconv.Atoi(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer t"))
		holds := err == nil && n > k.void
		if holds && k.repeal != nil && k.repeal(r) { // this request is the last that any token is good for
			k.void = k.n
			k.repeal = nil
			k.then()
		}
		k.mu.Unlock()
		if !holds {
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.Host+`/token",service="registry",scope="repository:app:pull,push"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// tokenRig is a registry whose token service has moods; what a test asks the registry itself needs no token.
func tokenRig(t *testing.T) (*rig, *moody, *tokens) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	m, k := &moody{}, &tokens{}
	mux := http.NewServeMux()
	mux.Handle("/token", m.wrap(k))
	mux.Handle("/", k.guard(up.Handler))
	front := httptest.NewServer(mux)
	t.Cleanup(front.Close)
	r := newRig(t, up, with(func(c *config.Config) {
		u := &c.Upstreams[0]
		u.URL, u.Credentials, u.Username, u.Password = front.URL, config.CredentialsBasic, "ci", "a password"
	}))
	return r, m, k
}

// I1, I2, I6, I7: the token service fails, from the first request on or when the token that a push began with is void in
// the middle of it: the client hears what is wrong, without a secret, and the next push is whole.
func TestWhateverATokenServiceDoesIsSaidAndARetryConverges(t *testing.T) {
	status := func(code int) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(code) }
	}
	body := func(text string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { fmt.Fprint(w, text) }
	}
	reset := func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { _ = hijack(w).Close() }
	for name, service := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request, http.Handler)
		status int // of Sluice's
		says   string
	}{
		"302": {func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, "https://login.example/token?session=a+password", http.StatusFound)
		}, 502, "answers 302 Found, which leads to https://login.example: a request for a token is not sent on"},
		"401":                      {status(401), 403, "answers 401 Unauthorized to the configured credentials"},
		"403":                      {status(403), 403, "answers 403 Forbidden to the configured credentials"},
		"404":                      {status(404), 403, "answers 404 Not Found to the configured credentials"},
		"429":                      {status(429), 502, "answers 429 Too Many Requests; try again later"},
		"500":                      {status(500), 502, "answers 500 Internal Server Error; try again later"},
		"502":                      {status(502), 502, "answers 502 Bad Gateway; try again later"},
		"503":                      {status(503), 502, "answers 503 Service Unavailable; try again later"},
		"a page of some portal":    {body("<html>Please log in</html>"), 403, "answers something that is no token"},
		"half a token":             {body(`{"token":"eyJhb`), 403, "answers something that is no token"},
		"nothing":                  {body(""), 403, "answers something that is no token"},
		"a token with a line":      {body(`{"token":"a\r\nX: y"}`), 403, "a token with characters that no header may hold"},
		"a token that is not good": {body(`{"token":"t0"}`), 403, "check upstreams[].credentials of sluice"},
		"a reset":                  {reset, 502, "token service of"},
	} {
		for when, repeal := range map[string]func(*http.Request) bool{
			"at first": nil, "after a layer": is(http.MethodPut, "/blobs/uploads/"), "after the images": is(http.MethodPut, "/manifests/"),
		} {
			if repeal != nil && !slices.Contains([]string{"401", "503", "a page of some portal", "a token that is not good", "a reset"}, name) {
				continue // one of each sort
			}
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				r, m, k := tokenRig(t)
				tree, plain := ordinary.trees()
				anyRequest := func(*http.Request) bool { return true }
				k.then = func() { m.mood.Store(&mood{anyRequest, service.answer}) }
				if k.repeal = repeal; repeal == nil {
					k.then()
				}
				err := ordinary.try(r, tree)
				if repeal == nil && err == nil {
					t.Error("the push succeeds")
				}
				if repeal == nil {
					a := r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil)
					if a.StatusCode != service.status || !strings.Contains(string(a.body), service.says) {
						t.Errorf("the client hears %s %s, want %d and %q", a.Status, a.body, service.status, service.says)
					}
				}
				m.check(r, ordinary, tree, plain)
				r.quiet(nil)
				for what, text := range map[string]string{"the client hears": fmt.Sprint(err), "the log has": r.log.String()} {
					for _, secret := range []string{"a password", "Y2k6YSBwYXNzd29yZA", "eyJhb", "Bearer t"} {
						if strings.Contains(text, secret) {
							t.Errorf("%s %q", what, secret)
						}
					}
				}
			})
		}
	}
}

// A token service that hangs holds nobody longer than the client waits, and the others are served as soon as it answers.
func TestAHangingTokenServiceHoldsNobodyLongerThanTheClientWaits(t *testing.T) {
	r, m, _ := tokenRig(t)
	tree, plain := ordinary.trees()
	hanging, over := make(chan struct{}, 64), make(chan struct{})
	m.mood.Store(&mood{func(*http.Request) bool { return true }, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		hanging <- struct{}{}
		<-over
		next.ServeHTTP(w, r)
	}})
	push := func(ctx context.Context) <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := proxytest.BuildKit(ctx, proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree})
			ended <- err
		}()
		return ended
	}
	ctx, giveUp := context.WithCancel(t.Context())
	impatient, patient := push(ctx), push(t.Context())
	receive(t, "request that hangs", hanging)
	giveUp()
	if err := receive(t, "end of the push that was given up", impatient); err == nil {
		t.Error("it succeeds")
	}
	close(over)
	if err := receive(t, "end of the patient push", patient); err != nil {
		t.Errorf("whoever waited is not served: %v", err)
	}
	m.check(r, ordinary, tree, plain)
}
