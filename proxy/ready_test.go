package proxy_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func (r *rig) ready() (int, string) {
	w := httptest.NewRecorder()
	r.proxy.Admin().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	r.proxy.Settle() // the check behind it
	return w.Code, w.Body.String()
}

func TestReadyzNamesTheUpstreamThatIsGoneAndDoesNotFlap(t *testing.T) {
	var status, asked atomic.Int64
	status.Store(http.StatusUnauthorized)
	second := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(int(status.Load()))
	}))
	defer second.Close()
	host := strings.TrimPrefix(second.URL, "http://")
	now := time.Now()
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), clock(func() time.Time { return now }), with(func(c *config.Config) {
		c.Upstreams = append(c.Upstreams, config.Upstream{Prefix: "two", URL: second.URL, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass})
	}))
	check := func(want int, line string) {
		t.Helper()
		if code, body := r.ready(); code != want || !strings.Contains(body, line+"\n") || !strings.Contains(body, "ok storage\n") {
			t.Errorf("%d %q, want %d and %q", code, body, want, line)
		}
	}
	check(200, "ok upstream "+host)
	for range 20 {
		check(200, "ok upstream "+host)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("upstream was asked %d times within 10 s", n)
	}
	status.Store(http.StatusInternalServerError)
	bad := "not ready: upstream " + host + ": answers 500 to GET /v2/, see the log"
	now = now.Add(11 * time.Second)
	check(200, "ok upstream "+host) // the answer is the last one, the check runs behind it
	check(200, "ok upstream "+host) // one failure is none
	now = now.Add(11 * time.Second)
	r.ready()
	check(503, bad)
	status.Store(http.StatusUnauthorized)
	now = now.Add(11 * time.Second)
	r.ready()
	check(200, "ok upstream "+host)
}

func TestReadyzIsNoWithAnUpstreamThatNeverAnswered(t *testing.T) {
	address := freeAddress(t)
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.Upstreams[0].URL = "http://" + address }))
	if code, body := r.ready(); code != 503 || !strings.Contains(body, "not ready: upstream "+address+": ") {
		t.Errorf("%d %q", code, body)
	}
}

// An upstream that is no registry, or has another scheme than the configuration says, is told from one that is down.
func TestReadyzSaysWhatIsWrongWithAnUpstream(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure.StartTLS()
	defer secure.Close()
	wantsLogin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer wantsLogin.Close()
	broken := filepath.Join(t.TempDir(), "password") // not there
	for _, tt := range []struct{ name, url, body, log string }{
		{"https asked in http", strings.Replace(secure.URL, "https://", "http://", 1), "answers 400 to GET /v2/, see the log", "check http or https"},
		{"a password that cannot be read", wantsLogin.URL, "Sluice has no credentials for it, see the log", broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) {
				c.Upstreams[0].URL, c.Upstreams[0].Credentials = tt.url, config.CredentialsBasic
				c.Upstreams[0].Username, c.Upstreams[0].PasswordFile = "bob", broken
			}))
			if code, body := r.ready(); code != 503 || !strings.Contains(body, tt.body) || !strings.Contains(r.log.String(), tt.log) {
				t.Errorf("%d %q, want %q, and in the log %q:\n%s", code, body, tt.body, tt.log, r.log)
			}
		})
	}
}
