package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A tenancy is one access mode in which each of two users has repositories of its own, and both share some.
type tenancy struct {
	name     string
	settings []setting
	upstream func(http.Handler) http.Handler // around the registry; nil: it lets everybody do everything
	// as is the header with which a user asks for this, the way a real client would: in mode token it has asked the
	// token service for it first.
	as func(user, method, path string) []string
}

func ownRepositories(c *config.Config) {
	for _, user := range []string{"alice", "mallory"} {
		c.Access.Permissions = append(c.Access.Permissions, config.Permission{Identity: user, Repositories: []string{user + "/**", "shared/**"}, Actions: []string{"pull", "push"}})
	}
}

func tenancies(t *testing.T) []tenancy {
	t.Helper()
	return []tenancy{htpasswdTenancy(t), tokenTenancy(t), oidcTenancy(t), mtlsTenancy(t), passthroughTenancy()}
}

// passthroughTenancy leaves everything to the registry.
func passthroughTenancy() tenancy {
	return tenancy{"passthrough", []setting{with(func(c *config.Config) {
		c.Access.Mode, c.Upstreams[0].Credentials = config.AccessPassthrough, config.CredentialsPassthrough
	})}, byTenant, func(user, _, _ string) []string { return []string{"Authorization", basic(user, "secret-of-"+user)} }}
}

func htpasswdTenancy(t *testing.T) tenancy {
	var users []byte
	for _, u := range []string{"alice", "mallory"} {
		h, err := bcrypt.GenerateFromPassword([]byte("secret-of-"+u), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		users = fmt.Appendf(users, "%s:%s\n", u, h)
	}
	file := proxytest.File(t, "users", users)
	return tenancy{"htpasswd", []setting{with(ownRepositories), with(func(c *config.Config) {
		c.Access.Mode, c.Access.Htpasswd = config.AccessHtpasswd, file
	})}, nil, func(user, _, _ string) []string { return []string{"Authorization", basic(user, "secret-of-"+user)} }}
}

// tokenTenancy leaves it to the token service alone who may do what where.
func tokenTenancy(t *testing.T) tenancy {
	service := proxytest.NewTokenService(t, nil, func(user, kind, name, _ string) bool {
		return kind == "repository" && (strings.HasPrefix(name, user+"/") || strings.HasPrefix(name, "shared/"))
	})
	keys := proxytest.File(t, "keys.json", service.JWKS())
	return tenancy{"token", []setting{with(func(c *config.Config) {
		c.Access.Mode = config.AccessToken
		c.Access.Token = config.TokenService{Realm: service.Realm, Service: service.Service, Issuer: service.Name, JWKS: keys}
	})}, nil, func(user, _, path string) []string {
		scope := "registry:catalog:*"
		if name := repositoryOf(path); name != "" {
			scope = "repository:" + name + ":pull,push,delete"
		}
		return []string{"Authorization", "Bearer " + service.Token(user, scope, "repository:"+user+"/app:pull,push,delete")}
	}}
}

func repositoryOf(path string) string {
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if name, _, ok := strings.Cut(strings.TrimPrefix(path, "/v2/"), kind); ok {
			return name
		}
	}
	return ""
}

func oidcTenancy(t *testing.T) tenancy {
	issuer := proxytest.NewIssuer(t, nil)
	return tenancy{"oidc", []setting{with(ownRepositories), with(func(c *config.Config) {
		c.Access.Mode = config.AccessOIDC
		c.Access.OIDC = []config.OIDCIssuer{{Issuer: issuer.URL, Audience: "sluice", Identity: "{sub}", Claims: map[string]string{"org": "acme"}}}
	})}, nil, func(user, method, _ string) []string {
		token := issuer.Token(map[string]any{"aud": "sluice", "sub": user, "org": "acme", "jti": method}) // as good as a new one each time
		return []string{"Authorization", basic("oidc", token)}
	}}
}

// mtlsTenancy puts the certificates where the TLS listener would (TestAClientCertificateDecides has a real one).
func mtlsTenancy(t *testing.T) tenancy {
	ca := proxytest.NewCA(t, "clients")
	certs := map[string]proxytest.Cert{"alice": ca.Client("alice"), "mallory": ca.Client("mallory")}
	file := proxytest.File(t, "ca.pem", ca.PEM)
	return tenancy{"mtls", []setting{
		with(ownRepositories), with(func(c *config.Config) { c.Access.Mode, c.TLS.ClientCA = config.AccessMTLS, file }),
		before(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if crt, ok := certs[r.Header.Get("Test-Certificate")]; ok {
					r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{crt.Leaf}}
				}
				next.ServeHTTP(w, r)
			})
		}),
	}, nil, func(user, _, _ string) []string { return []string{"Test-Certificate", user} }}
}

// signed makes a client send what the mode wants, for the pushers of proxytest.
type signed struct {
	tenancy
	user string
}

func (s signed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if h := s.as(s.user, r.Method, r.URL.Path); len(h) == 2 {
		r.Header.Set(h[0], h[1])
	}
	return transport.RoundTrip(r)
}

// I9, for every mode in which there is more than one user: two tenants try every route on each other.
func TestNoTenantGetsAnythingOfAnotherInAnyMode(t *testing.T) {
	for _, mode := range tenancies(t) {
		t.Run(mode.name, func(t *testing.T) {
			var mu sync.Mutex
			var mounted []url.Values
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, Wrap: func(next http.Handler) http.Handler {
				if mode.upstream != nil {
					next = mode.upstream(next)
				}
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if q := r.URL.Query(); q.Has("mount") {
						mu.Lock()
						mounted = append(mounted, q)
						mu.Unlock()
					}
					next.ServeHTTP(w, r)
				})
			}})
			r := newRig(t, up, mode.settings...)
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
			for _, user := range []string{"alice", "mallory"} {
				own := tree
				if user == "mallory" {
					own = proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Seed: 99})
				}
				o := proxytest.Options{BaseURL: r.url(), Repository: user + "/app", Tags: []string{"1"}, Tree: own, Client: &http.Client{Transport: signed{mode, user}}}
				if _, err := proxytest.BuildKit(context.Background(), o); err != nil {
					t.Fatalf("%s at home: %v", user, err)
				}
			}
			r.proxy.Settle()
			as := func(user, method, path string, body []byte, header ...string) *answer {
				t.Helper()
				if user != "" {
					header = append(header, mode.as(user, method, path)...)
				}
				return r.request(method, path, body, header...)
			}
			post := as("alice", http.MethodPost, "/v2/alice/app/blobs/uploads/", nil).want(t, http.StatusAccepted)
			upload := post.Header.Get("Location")
			sent := map[string]*proxytest.Manifest{} // by a PUT that is right in itself: a wrong one is refused whoever sends it
			paths := []string{"/v2/alice/app/manifests/1", "/v2/alice/app/tags/list", "/v2/alice/app/blobs/uploads/", "/v2/alice/app/blobs/uploads", upload}
			for _, m := range tree.Manifests() {
				paths = append(paths, "/v2/alice/app/manifests/"+m.Digest, "/v2/alice/app/referrers/"+m.Digest)
			}
			for _, b := range tree.Blobs() {
				paths = append(paths, "/v2/alice/app/blobs/"+b.Digest)
			}
			for _, path := range paths {
				sent[path] = tree.Root
			}
			for _, m := range tree.Manifests() {
				sent["/v2/alice/app/manifests/"+m.Digest] = m
			}
			upstreamTag := func() string { // asked as alice, for the mode in which the registry decides
				a := r.direct(http.MethodHead, "/v2/alice/app/manifests/1", nil, append(mode.as("alice", http.MethodHead, "/v2/alice/app/manifests/1"), acceptAll...)...)
				return a.want(t, http.StatusOK).Header.Get("Docker-Content-Digest")
			}
			kept, tag := r.files("/", ""), upstreamTag()
			for _, path := range paths {
				for _, user := range []string{"mallory", ""} {
					for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
						var body []byte
						if method == http.MethodPut || method == http.MethodPatch || method == http.MethodPost {
							body = sent[path].Bytes()
						}
						a := as(user, method, path, body, append([]string{"Content-Type", sent[path].MediaType}, acceptAll...)...)
						if mode.upstream != nil && a.StatusCode == http.StatusOK && strings.Contains(path, "/referrers/") && strings.HasSuffix(string(a.body), `"manifests":[]}`) {
							continue // the registry says that nothing is there, which is an empty list, as for what never was
						}
						if a.StatusCode == http.StatusMovedPermanently && strings.HasSuffix(path, "/uploads") {
							continue // the router's word on the missing slash, which says nothing about anybody
						}
						if a.StatusCode != 401 && a.StatusCode != 403 && a.StatusCode != 404 && a.StatusCode != 405 {
							t.Errorf("%s %s as %q: %s %.200s", method, path, user, a.Status, a.body)
						}
						if v := a.Header.Get("Sluice-Forwarded-Digest") + a.Header.Get("Docker-Content-Digest") + strings.Join(a.Header.Values("Warning"), ""); v != "" {
							t.Errorf("%s %s tells %q %s", method, path, user, v)
						}
					}
				}
			}

			// A mount reads: not from where one may not. It becomes an upload, of one's own repository.
			for _, b := range tree.Blobs() {
				a := as("mallory", http.MethodPost, "/v2/mallory/app/blobs/uploads/?from=alice/app&mount="+b.Digest, nil)
				if a.StatusCode != http.StatusAccepted {
					t.Errorf("mallory mounts %s of alice: %s", b.Name, a.Status)
				}
			}
			// Nor from anywhere: with Sluice's rights the registry may find it at alice's.
			for _, b := range tree.Blobs() {
				as("mallory", http.MethodPost, "/v2/mallory/app/blobs/uploads/?mount="+b.Digest, nil).want(t, http.StatusAccepted)
			}
			mu.Lock()
			// With passthrough the registry is asked as mallory, and refuses.
			if mode.upstream == nil && slices.ContainsFunc(mounted, func(q url.Values) bool { return q.Get("from") == "alice/app" || q.Has("mount") && q.Get("from") == "" }) {
				t.Errorf("upstream is asked to mount what mallory may not read: %v", mounted)
			}
			mu.Unlock()

			// An upload's URL, in another's repository, in another repository of one's own, in another's hands.
			_, token, _ := strings.Cut(upload, "/blobs/uploads/")
			shared := as("alice", http.MethodPost, "/v2/shared/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
			_, sharedToken, _ := strings.Cut(shared, "/blobs/uploads/")
			statement := tree.Statements()[0]
			for _, moved := range []struct{ what, user, path string }{
				{"alice's, moved to mallory's repository", "mallory", "/v2/mallory/app/blobs/uploads/" + token},
				{"alice's, moved by herself", "alice", "/v2/alice/other/blobs/uploads/" + token},
				{"alice's in a repository that both may push to", "mallory", shared},
				{"the same, moved", "mallory", "/v2/mallory/app/blobs/uploads/" + sharedToken},
				{"altered", "alice", upload[:len(upload)-2] + "xx"},
			} {
				for _, method := range []string{http.MethodGet, http.MethodPatch, http.MethodDelete, http.MethodPut} {
					path := moved.path
					if method == http.MethodPut {
						path += "?digest=" + statement.Digest
					}
					var body []byte
					if method == http.MethodPut || method == http.MethodPatch {
						body = statement.Bytes()
					}
					as(moved.user, method, path, body).want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
				}
			}
			as("alice", http.MethodPut, upload+"?digest="+statement.Digest, statement.Bytes()).want(t, http.StatusCreated)

			if a := as("mallory", http.MethodGet, "/v2/_catalog", nil); strings.Contains(string(a.body), "alice") {
				t.Errorf("the catalog shows mallory %s", a.body)
			}
			if a := as("", http.MethodGet, "/v2/_catalog", nil); a.StatusCode != 401 && a.StatusCode != 403 {
				t.Errorf("the catalog without credentials: %s", a.Status)
			}
			if now := upstreamTag(); now != tag {
				t.Errorf("alice's tag is %s, was %s", now, tag)
			}
			for _, f := range kept {
				if !slices.Contains(r.files("/", ""), f) {
					t.Errorf("%s is gone from the storage", f)
				}
			}
			// Alice herself sees what she has pushed: the test is about something.
			for _, b := range tree.Statements() {
				as("alice", http.MethodGet, "/v2/alice/app/blobs/"+b.Digest, nil).want(t, http.StatusOK)
			}
			as("alice", http.MethodGet, "/v2/alice/app/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
			as("alice", http.MethodGet, "/v2/", nil).want(t, http.StatusOK)
		})
	}
}

// Per identity: pull or push.
func TestPermissionsDecidePerActionInEveryMode(t *testing.T) {
	for _, mode := range tenancies(t) {
		switch mode.name {
		case "token":
			continue // the token says so: TestATokenSaysWhoItIsAndWhatItMay
		case "passthrough":
			continue // the registry says so: TestATenantSeesNothingOfAnother
		}
		t.Run(mode.name, func(t *testing.T) {
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), append(slices.Clone(mode.settings), with(func(c *config.Config) {
				c.Access.Permissions = []config.Permission{
					{Identity: "al*", Repositories: []string{"**"}, Actions: []string{"pull", "push"}},
					{Identity: "*", Repositories: []string{"public/**"}, Actions: []string{"pull"}},
				}
			}))...)
			r2 := func(user, method, path string) int {
				return r.request(method, path, nil, mode.as(user, method, path)...).StatusCode
			}
			for _, tt := range []struct {
				user, method, path string
				want               int
			}{
				{"alice", http.MethodPost, "/v2/public/app/blobs/uploads/", 202},
				{"mallory", http.MethodPost, "/v2/public/app/blobs/uploads/", 403},
				{"mallory", http.MethodGet, "/v2/public/app/manifests/1", 404},
				{"mallory", http.MethodDelete, "/v2/public/app/manifests/1", 403},
				{"mallory", http.MethodGet, "/v2/private/app/manifests/1", 403},
				{"alice", http.MethodGet, "/v2/private/app/manifests/1", 404},
			} {
				if got := r2(tt.user, tt.method, tt.path); got != tt.want {
					t.Errorf("%s %s %s: %d, want %d", tt.user, tt.method, tt.path, got, tt.want)
				}
			}
		})
	}
}
