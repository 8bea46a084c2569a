package proxy_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A planting is one way to run Sluice, with a secret wherever one can be.
type planting struct {
	name     string
	settings []setting
	signIn   func(http.Handler) http.Handler // what the registry wants of whoever comes
	// clients send these in turn, the first is right.
	authorizations []string
	secrets        map[string]string
}

const (
	robotPassword  = "planted-upstream-password"
	clientPassword = "planted-client-password"
	wrongPassword  = "planted-wrong-password"
)

// plantings: every access mode in which something secret travels, with every way to sign in at a registry.
func plantings(t *testing.T) []planting {
	t.Helper()
	robot := with(func(c *config.Config) {
		c.Upstreams[0].Credentials, c.Upstreams[0].Username, c.Upstreams[0].Password = config.CredentialsBasic, "robot", robotPassword
	})
	asRobot := func(next http.Handler) http.Handler { return proxytest.RequireBasic(next, "robot", robotPassword) }

	issuer := proxytest.NewIssuer(t, nil)
	idToken, forged := issuer.Token(map[string]any{"aud": "sluice", "sub": "alice"}), issuer.Token(map[string]any{"aud": "planted-audience", "sub": "alice"})
	oidc := planting{
		"oidc, registry with a password",
		[]setting{robot, with(func(c *config.Config) {
			c.Access.Mode = config.AccessOIDC
			c.Access.OIDC = []config.OIDCIssuer{{Issuer: issuer.URL, Audience: "sluice", Identity: "{sub}", Claims: map[string]string{"sub": "**"}}}
		})},
		asRobot,
		[]string{basic("oidc", idToken), "Bearer " + idToken, basic("oidc", forged), "Bearer " + forged, basic("alice", wrongPassword), "Bearer " + wrongPassword, ""},
		map[string]string{
			"ID token": idToken[len(idToken)-60:], "refused ID token": forged[len(forged)-60:], "its claims": strings.Split(forged, ".")[1],
		},
	}

	hash, err := bcrypt.GenerateFromPassword([]byte(clientPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := proxytest.File(t, "users", fmt.Appendf(nil, "alice:%s\n", hash))
	htpasswd := planting{
		"htpasswd, registry with a token service",
		[]setting{robot, with(func(c *config.Config) { c.Access.Mode, c.Access.Htpasswd = config.AccessHtpasswd, users })},
		tokenRegistry(t, "robot", robotPassword),
		[]string{basic("alice", clientPassword), basic("alice", wrongPassword), "Bearer " + wrongPassword, ""},
		map[string]string{"hash": string(hash)},
	}

	service := proxytest.NewTokenService(t, nil, func(string, string, string, string) bool { return true })
	keys := proxytest.File(t, "keys.json", service.JWKS())
	token := service.Token("alice", "repository:app:pull,push,delete", "registry:catalog:*")
	altered := token[:len(token)-20] + strings.Repeat("A", 20)
	bearer := planting{
		"token, registry with a password",
		[]setting{robot, with(func(c *config.Config) {
			c.Access.Mode = config.AccessToken
			c.Access.Token = config.TokenService{Realm: service.Realm, Service: service.Service, Issuer: service.Name, JWKS: keys}
		})},
		asRobot,
		[]string{"Bearer " + token, "Bearer " + altered, basic("alice", wrongPassword), ""},
		map[string]string{"token": token[len(token)-60:], "altered token": altered[len(altered)-60:], "its claims": strings.Split(token, ".")[1]},
	}

	passthrough := with(func(c *config.Config) {
		c.Access.Mode, c.Upstreams[0].Credentials = config.AccessPassthrough, config.CredentialsPassthrough
	})
	return []planting{
		oidc, htpasswd, bearer,
		{
			"passthrough to a registry with passwords",
			[]setting{passthrough},
			func(next http.Handler) http.Handler { return proxytest.RequireBasic(next, "alice", clientPassword) },
			[]string{basic("alice", clientPassword), basic("alice", wrongPassword), "Bearer " + wrongPassword, ""},
			nil,
		},
		{
			"passthrough to a registry with a token service",
			[]setting{passthrough},
			tokenRegistry(t, "alice", clientPassword),
			[]string{"Bearer planted-access-token", basic("alice", clientPassword), basic("alice", wrongPassword), "Bearer " + wrongPassword, ""},
			nil,
		},
	}
}

// tokenRegistry sends whoever comes to a token service, whose every other answer is broken, with the token in it.
func tokenRegistry(t *testing.T, user, password string) func(http.Handler) http.Handler {
	t.Helper()
	var asked atomic.Int64
	tokens := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, ok := r.BasicAuth()
		if r.Method == http.MethodPost && r.ParseForm() == nil {
			u, p, ok = r.PostForm.Get("username"), r.PostForm.Get("password"), true
		}
		const answer = `{"token":"planted-access-token","access_token":"planted-access-token","refresh_token":"planted-refresh-token","expires_in":1}`
		switch {
		case !ok || u != user || p != password:
			http.Error(w, fmt.Sprintf(`{"details":"%s is not the password: planted-token-error"}`, p), http.StatusUnauthorized)
		case asked.Add(1)%2 == 0:
			_, _ = w.Write([]byte(answer[:len(answer)-20]))
		default:
			_, _ = w.Write([]byte(answer))
		}
	}))
	t.Cleanup(tokens.Close)
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer planted-access-token" {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="tokens",scope="repository:app:pull,push"`, tokens.URL))
				http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}`, http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// everywhere is what is planted in every set-up.
func everywhere(sealKey string) map[string]string {
	encoded := func(user, password string) string {
		return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	}
	return map[string]string{
		"registry password": robotPassword, "encoded registry password": encoded("robot", robotPassword),
		"password": clientPassword, "encoded password": encoded("alice", clientPassword),
		"wrong password": wrongPassword, "encoded wrong password": encoded("alice", wrongPassword),
		"seal key": sealKey, "signature": "planted-signature", "AWS key": "AKIAPLANTED", "session": "planted-session", "session state": "planted-state",
		"query": "planted-query", "access token": "planted-access-token", "refresh token": "planted-refresh-token",
		"webhook's URL": "planted-hook-path", "webhook's header": "planted-hook-header",
	}
}
