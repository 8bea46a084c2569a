package proxy_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// ecrDoor lets in whoever has the current password, in the words of Amazon ECR.
type ecrDoor struct {
	current atomic.Int64 // number of the password
	expired atomic.Int64 // answers that said so
}

func (d *ecrDoor) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		switch {
		case !ok || user != "AWS":
			w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
			w.Header().Set("Www-Authenticate", `Basic realm="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"`)
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, "Not Authorized\n")
		case password != fmt.Sprint("p", d.current.Load()):
			d.expired.Add(1)
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// tokens is AWS's GetAuthorizationToken for the door; each call makes the next password the current one.
func (d *ecrDoor) tokens(t *testing.T) (calls *atomic.Int64) {
	calls = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{
			"authorizationToken": base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:p%d", d.current.Load())),
			"expiresAt":          float64(time.Now().Add(12 * time.Hour).Unix()),
		}}})
	}))
	t.Cleanup(s.Close)
	none := filepath.Join(t.TempDir(), "none")
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2", "AWS_SESSION_TOKEN": "", "AWS_REGION": "eu-west-1", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL_ECR": s.URL,
	} {
		t.Setenv(k, v)
	}
	return calls
}

func ecrCredentials(c *config.Config) { c.Upstreams[0].Credentials = config.CredentialsECR }

func TestAPushWithCredentialsECRUsesOneTokenAndSurvivesItsEnd(t *testing.T) {
	d := &ecrDoor{}
	d.current.Store(1)
	calls := d.tokens(t)
	var puts atomic.Int64
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		next = d.wrap(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/") && puts.Add(1) == 2 {
				d.current.Add(1) // the token ends in the middle of the push
			}
			next.ServeHTTP(w, r)
		})
	}})
	r := newRig(t, up, with(ecrCredentials))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0], SBOM: true})
	r.push(proxytest.BuildKit, "app", "1", tree)
	if calls.Load() != 2 || d.expired.Load() == 0 {
		t.Errorf("%d tokens, %d refusals; want a second token after the first ended", calls.Load(), d.expired.Load())
	}
}

// The client did `aws ecr get-login-password | docker login localhost:5000`. BuildKit and containerd never ask
// /v2/: their first request is a HEAD, which must come back with ECR's challenge.
func TestPassthroughToECRCarriesTheChallengeAndTheClientsToken(t *testing.T) {
	d := &ecrDoor{}
	d.current.Store(1)
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: d.wrap})
	r := newRig(t, up, with(func(c *config.Config) {
		c.Access.Mode = config.AccessPassthrough
		c.Upstreams[0].Credentials = config.CredentialsPassthrough
	}))
	const challenge = `Basic realm="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"`
	for _, q := range []struct{ method, path string }{
		{"GET", "/v2/"},
		{"HEAD", "/v2/app/blobs/sha256:" + strings.Repeat("a", 64)},
		{"HEAD", "/v2/app/manifests/1"},
		{"POST", "/v2/app/blobs/uploads/"},
	} {
		a := r.request(q.method, q.path, nil).want(t, http.StatusUnauthorized)
		if got := a.Header.Get("Www-Authenticate"); got != challenge {
			t.Errorf("%s %s: challenge %q", q.method, q.path, got)
		}
		if q.method != "HEAD" && string(a.body) != "Not Authorized\n" {
			t.Errorf("%s %s: body %q", q.method, q.path, a.body)
		}
	}
	for _, c := range proxytest.Clients() {
		if c.Name == "imagetools" {
			continue // reads its source from a registry
		}
		t.Run(c.Name, func(t *testing.T) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0], SBOM: true})
			o := proxytest.Options{BaseURL: r.url(), Repository: c.Name, Tags: []string{"1"}, Tree: tree, Authorization: basic("AWS", "p1")}
			if _, err := c.Push(context.Background(), o); err != nil {
				t.Fatal(err)
			}
		})
	}
	t.Run("an expired token is the client's own to renew", func(t *testing.T) {
		a := r.request("GET", "/v2/app/manifests/1", nil, "Authorization", basic("AWS", "p0")).want(t, http.StatusForbidden, "DENIED")
		if !strings.Contains(string(a.body), "Reauthenticate and try again") {
			t.Errorf("body %s", a.body)
		}
	})
}

func TestATokenThatECRKeepsRefusingIsNotTheClientsLogin(t *testing.T) {
	d := &ecrDoor{}
	d.tokens(t)
	var once sync.Once
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			once.Do(func() { d.current.Store(5) })
			r.Header.Set("Authorization", basic("AWS", "old"))
			d.wrap(next).ServeHTTP(w, r)
		})
	}})
	r := newRig(t, up, with(ecrCredentials))
	a := r.request("GET", "/v2/app/manifests/1", nil).want(t, http.StatusForbidden, "DENIED")
	if !strings.Contains(string(a.body), "not your own login") {
		t.Errorf("body %s", a.body)
	}
}
