package proxy_test

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// Secrets are planted wherever one can be, requests fail in many ways at the most talkative log level, and nothing of them is
// in the log, in what clients are told or in what the admin address shows. Headers that carry one on purpose (Location) are for its owner.
func TestNoSecretIsInTheLogOrInAnAnswer(t *testing.T) {
	var failing atomic.Int64
	hangs, goOn := make(chan struct{}, 1), make(chan struct{})
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		next = proxytest.RequireBasic(next, "robot", "planted-upstream-password")
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch failing.Load() {
			case 1:
				http.Error(w, `{"errors":[{"code":"UNKNOWN","message":"broken"}]}`, http.StatusInternalServerError)
			case 2:
				conn, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					conn.Close()
				}
			case 3:
				w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`, http.StatusUnauthorized)
			case 4:
				w.Header().Set("Location", "https://bucket.s3.amazonaws.com/x?X-Amz-Credential=AKIAPLANTED&X-Amz-Signature=planted-signature")
				w.WriteHeader(http.StatusTemporaryRedirect)
			case 5:
				w.Header().Set("Location", "https://evil.example/v2/app/blobs/uploads/planted-session?_state=planted-state")
				w.WriteHeader(http.StatusAccepted)
			case 6:
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
	}})
	issuer := proxytest.NewIssuer(t, nil)
	sealKey := strings.Repeat("5ea1", 16)
	r := newRig(t, up, with(func(c *config.Config) {
		c.Access.Mode = config.AccessOIDC
		c.Access.OIDC = []config.OIDCIssuer{{Issuer: issuer.URL, Audience: "sluice", Identity: "{sub}", Claims: map[string]string{"sub": "**"}}}
		c.Upstreams[0].Credentials, c.Upstreams[0].Username, c.Upstreams[0].Password = config.CredentialsBasic, "robot", "planted-upstream-password"
		c.SealKeys = []config.Secret{config.Secret(sealKey)}
		c.Pprof = true
	}))
	good, forged := issuer.Token(map[string]any{"aud": "sluice", "sub": "alice"}), issuer.Token(map[string]any{"aud": "planted-audience", "sub": "alice"})
	secrets := map[string]string{
		"upstream password": "planted-upstream-password", "seal key": sealKey, "signature": "planted-signature", "AWS key": "AKIAPLANTED", "session": "planted-session", "session state": "planted-state",
		"ID token": good[len(good)-60:], "refused ID token": forged[len(forged)-60:], "its claims": strings.Split(forged, ".")[1], "password": "planted-client-password",
		"encoded password": base64.StdEncoding.EncodeToString([]byte("alice:planted-client-password")), "query": "planted-query",
	}
	told := &strings.Builder{}
	uploads := 0
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	layer := tree.Blobs()[0]
	for kind := range int64(6) {
		failing.Store(kind)
		for i, auth := range []string{basic("oidc", good), "Bearer " + good, basic("oidc", forged), "Bearer " + forged, basic("alice", "planted-client-password"), "Bearer planted-client-password", ""} {
			if i > 0 && (kind == 1 || kind == 2) {
				break // these are tried again for seconds, whoever asks
			}
			for _, q := range [][2]string{
				{http.MethodGet, "/v2/?x=planted-query"},
				{http.MethodGet, "/v2/app/manifests/1?x=planted-query"},
				{http.MethodGet, "/v2/app/blobs/" + layer.Digest},
				{http.MethodHead, "/v2/app/blobs/" + layer.Digest},
				{http.MethodPut, "/v2/app/manifests/1"},
				{http.MethodGet, "/v2/_catalog"},
				{http.MethodGet, "/v2/app/tags/list"},
				{http.MethodPost, "/v2/app/blobs/uploads/"},
			} {
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
	if uploads == 0 || told.Len() == 0 || r.log.Len() == 0 {
		t.Fatalf("%d uploads, %d bytes told, %d logged: the test is about nothing", uploads, told.Len(), r.log.Len())
	}
	shown := map[string]string{"the log": r.log.String(), "an answer": told.String()}
	// The stacks of the admin address's profiles, while a request with everything is under way.
	failing.Store(6)
	hanging := make(chan struct{})
	go func() {
		defer close(hanging)
		request(t, http.MethodPut, r.url()+"/v2/app/manifests/1?x=planted-query", tree.Root.Bytes(), "Authorization", basic("oidc", good), "Content-Type", tree.Root.MediaType)
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
	receive(t, "end of what hung", hanging)
	for where, text := range shown {
		for what, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s is in %s: ...%s...", what, where, text[max(0, i-200):min(len(text), i+200)])
			}
		}
	}
}
