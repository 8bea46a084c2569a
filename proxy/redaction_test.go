package proxy_test

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/config"
	"sluice/proxy/observe"
	"sluice/proxy/proxytest"
)

// The ways in which a registry misbehaves.
const (
	_ = iota // it does not
	brokenAnswer
	noAnswer
	unauthorizedAnswer
	redirectWithSignature
	sessionElsewhere
	repeating
	moods
	hanging
)

// Secrets are planted wherever one can be, requests fail in many ways at the most talkative log level, and nothing of them is
// in the log, in traces, in events, in what clients are told or in what the admin address shows. Headers that carry one on
// purpose (Location, and the challenge of a registry behind passthrough) are for whom they are sent to.
func TestNoSecretIsInTheLogOrInAnAnswer(t *testing.T) {
	_, spans := collect(t)
	traces, err := observe.NewTraces(t.Context(), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	all := plantings(t)
	var mu sync.Mutex
	secrets := map[string]string{}
	t.Run("set-ups", func(t *testing.T) {
		for _, p := range all {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				planted := p.try(t, traces)
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(secrets, planted)
			})
		}
	})
	if err := traces.Close(t.Context()); err != nil {
		t.Error(err)
	}
	text := spans()
	if !strings.Contains(text, "PUT manifest") {
		t.Error("the traces are about nothing")
	}
	search(t, map[string]string{"a trace": text}, secrets)
}

func search(t *testing.T, shown, secrets map[string]string) {
	t.Helper()
	for where, text := range shown {
		for what, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s is in %s: ...%s...", what, where, text[max(0, i-200):min(len(text), i+200)])
			}
		}
	}
}

// misbehaves is a registry in a mood, which may change.
func misbehaves(mood *atomic.Int64, hangs chan<- struct{}, goOn <-chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch mood.Load() {
		case brokenAnswer:
			http.Error(w, `{"errors":[{"code":"UNKNOWN","message":"broken"}]}`, http.StatusInternalServerError)
		case noAnswer:
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				conn.Close()
			}
		case unauthorizedAnswer:
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, http.StatusUnauthorized)
		case redirectWithSignature:
			w.Header().Set("Location", "https://bucket.s3.amazonaws.com/x?X-Amz-Credential=AKIAPLANTED&X-Amz-Signature=planted-signature")
			w.WriteHeader(http.StatusTemporaryRedirect)
		case sessionElsewhere:
			w.Header().Set("Location", "https://evil.example/v2/app/blobs/uploads/planted-session?_state=planted-state")
			w.WriteHeader(http.StatusAccepted)
		case repeating:
			auth := r.Header.Get("Authorization")
			user, password, _ := r.BasicAuth()
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"bad token %s of %s:%s"}]}`, auth, user, password)
		case hanging:
			select {
			case hangs <- struct{}{}:
			default:
			}
			<-goOn
			next.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// hook takes the first event and refuses all others, in words that repeat what it was sent.
func hook(t *testing.T) (url string, bodies func() string) {
	t.Helper()
	var mu sync.Mutex
	var text strings.Builder
	events := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		text.Write(b)
		if events++; events > 1 {
			http.Error(w, "no: "+r.Header.Get("Authorization")+r.URL.String(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL + "/planted-hook-path", func() string { mu.Lock(); defer mu.Unlock(); return text.String() }
}

// try gives back what was secret in it.
func (p planting) try(t *testing.T, traces *observe.Traces) map[string]string {
	t.Helper()
	var mood atomic.Int64
	hangs, goOn := make(chan struct{}, 1), make(chan struct{})
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return misbehaves(&mood, hangs, goOn, p.signIn(next))
	}})
	hookURL, events := hook(t)
	sealKey := strings.Repeat("5ea1", 16)
	r := newRig(t, up, append(p.settings, traced(traces), with(func(c *config.Config) {
		c.SealKeys = []config.Secret{config.Secret(sealKey)}
		c.Pprof, c.AccessLog = true, true
		c.Notifications.Endpoints = []config.Endpoint{{
			Name: "hook", URL: config.Secret(hookURL), Headers: map[string][]config.Secret{"Authorization": {"planted-hook-header"}},
			Timeout: config.Duration(time.Second), Threshold: 10, Backoff: config.Duration(time.Millisecond),
		}}
	}))...)
	secrets := everywhere(sealKey)
	maps.Copy(secrets, p.secrets)
	good := p.authorizations[0]
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	if _, err := proxytest.BuildKit(t.Context(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1", "2"}, Tree: tree, Authorization: good, Sequential: true}); err != nil {
		t.Fatalf("a push that is right: %v", err)
	}

	told := &strings.Builder{}
	uploads := 0
	layer := tree.Blobs()[0]
	for m := range int64(moods) {
		mood.Store(m)
		for i, auth := range p.authorizations {
			tired := m == brokenAnswer || m == noAnswer // these are tried again for seconds, whoever asks
			if i > 0 && tired {
				break
			}
			for j, q := range [][2]string{
				{http.MethodPut, "/v2/app/manifests/1"},
				{http.MethodPost, "/v2/app/blobs/uploads/"},
				{http.MethodGet, "/v2/?x=planted-query"},
				{http.MethodGet, "/v2/app/manifests/1?x=planted-query"},
				{http.MethodGet, "/v2/app/blobs/" + layer.Digest},
				{http.MethodHead, "/v2/app/blobs/" + layer.Digest},
				{http.MethodGet, "/v2/_catalog"},
				{http.MethodGet, "/v2/app/tags/list"},
			} {
				if j > 1 && tired {
					break
				}
				var body []byte
				if q[0] == http.MethodPut {
					body = tree.Root.Bytes()
				}
				a := r.request(q[0], q[1], body, "Authorization", auth, "Content-Type", tree.Root.MediaType)
				told.Write(a.body)
				location := a.Header.Get("Location")
				if _, token, ok := strings.Cut(location, "/blobs/uploads/"); ok && strings.HasPrefix(location, "/v2/app/") {
					uploads++
					secrets["upload URL "+token[:8]] = token[10:]
					for _, method := range []string{http.MethodPatch, http.MethodPut, http.MethodGet} {
						told.Write(r.request(method, location+"?digest="+layer.Digest, []byte("\x1f\x8bnot what was promised"), "Authorization", auth).body)
					}
					told.Write(r.request(http.MethodPut, location[:len(location)-1]+"?digest="+layer.Digest, nil, "Authorization", auth).body)
				}
			}
		}
	}
	r.proxy.Settle()
	shown := map[string]string{"an answer": told.String()}
	// The stacks of the admin address's profiles, while a request with everything is under way.
	mood.Store(hanging)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		request(t, http.MethodPut, r.url()+"/v2/app/manifests/1?x=planted-query", tree.Root.Bytes(), "Authorization", good, "Content-Type", tree.Root.MediaType)
	}()
	receive(t, "request that hangs", hangs)
	for path, contains := range map[string]string{
		"/metrics": "sluice_requests_total", "/readyz": "", "/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=2": "putManifest", "/debug/pprof/goroutine?debug=1": "putManifest",
		"/debug/pprof/heap?debug=1": "heap profile", "/debug/pprof/allocs?debug=1": "heap profile", "/debug/pprof/cmdline": "",
	} {
		w := httptest.NewRecorder()
		r.proxy.Admin().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if shown[path] = w.Body.String(); !strings.Contains(shown[path], contains) {
			t.Errorf("%s is not what it should be: %d %.200s", path, w.Code, shown[path])
		}
	}
	close(goOn)
	receive(t, "end of what hung", ended)
	eventually(t, "a refused event", func() bool { return strings.Count(events(), `"events"`) > 1 })
	r.server.Close()
	_ = r.proxy.Close()
	shown["the log"], shown["an event"] = r.log.String(), events()
	if uploads == 0 || told.Len() == 0 || !strings.Contains(shown["the log"], "bytes_out") || !strings.Contains(shown["the log"], "event rejected") {
		t.Fatalf("%d uploads, %d bytes told, %d logged: the test is about nothing", uploads, told.Len(), len(shown["the log"]))
	}
	search(t, shown, secrets)
	return secrets
}
