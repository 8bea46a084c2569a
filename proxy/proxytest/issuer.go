package proxytest

import (
	"crypto/ecdsa"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// An Issuer gives ID tokens, as GitHub Actions and Kubernetes do, and shows its keys where OpenID Connect Discovery
// says.
type Issuer struct {
	URL string

	t       testing.TB
	mu      sync.Mutex
	kid     int
	keys    map[string]*ecdsa.PrivateKey
	fetches int
	server  *httptest.Server
}

// NewIssuer serves over plain http on the loopback address until the test ends. wrap may be nil.
func NewIssuer(t testing.TB, wrap func(http.Handler) http.Handler) *Issuer {
	t.Helper()
	i := &Issuer{t: t, keys: map[string]*ecdsa.PrivateKey{}}
	i.Rotate()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		i.fetches++
		i.mu.Unlock()
		_, _ = w.Write(i.JWKS())
	})
	var h http.Handler = mux
	if wrap != nil {
		h = wrap(h)
	}
	i.server = httptest.NewServer(h)
	i.URL = i.server.URL
	t.Cleanup(i.server.Close)
	return i
}

// Rotate replaces the key; tokens of the old one are no longer good.
func (i *Issuer) Rotate() {
	key := newKey(i.t)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kid++
	i.keys = map[string]*ecdsa.PrivateKey{fmt.Sprint("key-", i.kid): key}
}

// Close takes the issuer off the network.
func (i *Issuer) Close() { i.server.Close() }

// Fetches is how often somebody has asked for the keys.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// JWKS is the public keys.
func (i *Issuer) JWKS() []byte {
	i.mu.Lock()
	defer i.mu.Unlock()
	var set jose.JSONWebKeySet
	for _, id := range slices.Sorted(maps.Keys(i.keys)) {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: &i.keys[id].PublicKey, KeyID: id, Use: "sig", Algorithm: "ES256"})
	}
	b, err := json.Marshal(set)
	if err != nil {
		i.t.Error(err)
	}
	return b
}

// Token signs claims; iss, iat and exp (an hour from now) are filled in unless they are there.
func (i *Issuer) Token(claims map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, key := range i.keys {
		return SignToken(i.t, key, id, i.URL, claims)
	}
	return ""
}

// SignToken makes a signed JWT.
func SignToken(t testing.TB, key *ecdsa.PrivateKey, id, issuer string, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": issuer, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	maps.Copy(all, claims)
	payload, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// A TokenService gives tokens to users, as distribution's "Token Authentication Specification" has it.
type TokenService struct {
	Realm, Service, Name string

	t   testing.TB
	key *ecdsa.PrivateKey
	may func(user, kind, name, action string) bool
}

// NewTokenService knows the users of passwords, who get of a scope what may allows.
func NewTokenService(t testing.TB, passwords map[string]string, may func(user, kind, name, action string) bool) *TokenService {
	t.Helper()
	s := &TokenService{Service: "sluice.test", Name: "tokens.test", t: t, key: newKey(t), may: may}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		scopes := r.URL.Query()["scope"]
		if r.Method == http.MethodPost && r.ParseForm() == nil { // OAuth2, as containerd prefers
			user, password, ok = r.PostForm.Get("username"), r.PostForm.Get("password"), true
			scopes = r.PostForm["scope"]
		}
		if want, known := passwords[user]; !ok || !known || want != password {
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"wrong user or password"}]}`, http.StatusUnauthorized)
			return
		}
		token := s.Token(user, scopes...)
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "access_token": token, "expires_in": 300})
	}))
	t.Cleanup(server.Close)
	s.Realm = server.URL + "/token"
	return s
}

// Token is for a user and what of the scopes the user may have.
func (s *TokenService) Token(user string, scopes ...string) string {
	s.t.Helper()
	access := []map[string]any{}
	for _, scope := range strings.Fields(strings.Join(scopes, " ")) {
		parts := strings.Split(scope, ":")
		if len(parts) != 3 {
			continue
		}
		var actions []string
		for _, a := range strings.Split(parts[2], ",") {
			if s.may(user, parts[0], parts[1], a) {
				actions = append(actions, a)
			}
		}
		access = append(access, map[string]any{"type": parts[0], "name": parts[1], "actions": actions})
	}
	return SignToken(s.t, s.key, "service-key", s.Name, map[string]any{"sub": user, "aud": s.Service, "access": access})
}

// JWKS is the service's public key.
func (s *TokenService) JWKS() []byte {
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &s.key.PublicKey, KeyID: "service-key", Use: "sig", Algorithm: "ES256"}}})
	if err != nil {
		s.t.Error(err)
	}
	return b
}
