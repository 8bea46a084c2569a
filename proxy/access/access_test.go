package access

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func request(authorization string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	return r
}

func basicAuth(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func jwt(claims, signature string) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + enc.EncodeToString([]byte(claims)) + "." + signature
}

func mustNew(t *testing.T, o Options) *Access {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestModeNoneIsAnonymousWhateverIsPresented(t *testing.T) {
	a := mustNew(t, Options{})
	for _, authorization := range []string{"", basicAuth("bob", "x"), "Bearer y"} {
		id, err := a.Authenticate(request(authorization))
		if err != nil || id != (Identity{Name: "anonymous", Key: "anonymous"}) {
			t.Errorf("%q: %+v, %v", authorization, id, err)
		}
	}
}

func TestAnUnknownModeIsRefused(t *testing.T) {
	if _, err := New(Options{Mode: "kerberos"}); err == nil {
		t.Error("accepted")
	}
	if _, err := New(Options{Permissions: []Permission{{Identity: "["}}}); err == nil {
		t.Error("accepted a broken glob")
	}
}

func TestEachModeChallengesInItsWay(t *testing.T) {
	push := Scope{Repository: "team/app", Action: Push}
	service := &tokens{o: TokenOptions{Realm: "https://auth.example/token", Service: "sluice"}}
	for _, tt := range []struct {
		name         string
		mode         authenticator
		wanted       Scope
		insufficient bool
		want         string
	}{
		{"none", open{}, push, false, ""},
		{"passthrough", passthrough{}, push, false, ""},
		{"htpasswd", &passwords{}, push, false, `Basic realm="sluice"`},
		{"oidc", &issuers{}, push, false, `Basic realm="sluice"`},
		{"mtls", &certificates{}, push, false, ""},
		{"token, the version check", service, Scope{}, false, `Bearer realm="https://auth.example/token",service="sluice"`},
		{"token, a push", service, push, false, `Bearer realm="https://auth.example/token",service="sluice",scope="repository:team/app:pull,push"`},
		{"token, a pull", service, Scope{Repository: "a", Action: Pull}, false, `Bearer realm="https://auth.example/token",service="sluice",scope="repository:a:pull"`},
		{"token, the catalog", service, Scope{Catalog: true}, false, `Bearer realm="https://auth.example/token",service="sluice",scope="registry:catalog:*"`},
		{
			"token, more than the token is for", service,
			Scope{Repository: "a", Action: Delete},
			true,
			`Bearer realm="https://auth.example/token",service="sluice",scope="repository:a:delete",error="insufficient_scope"`,
		},
	} {
		if got := strings.Join((&Access{mode: tt.mode}).Challenge(tt.wanted, tt.insufficient), "; "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestPassedThroughCredentialsTellClientsApart(t *testing.T) {
	a := mustNew(t, Options{Mode: Passthrough})
	identity := func(authorization string) Identity {
		id, err := a.Authenticate(request(authorization))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	base := `{"iss":"auth.example","sub":"bob","exp":%d}`
	token1, token2 := "Bearer "+jwt(fmt.Sprintf(base, 1), "s1"), "Bearer "+jwt(fmt.Sprintf(base, 2), "s2")
	for _, tt := range []struct {
		name    string
		a, b    string
		sameKey bool
		label   string
	}{
		{"the same user and password", basicAuth("bob", "x"), basicAuth("bob", "x"), true, "bob"},
		{"the scheme in other case, and more space", basicAuth("bob", "x"), strings.Replace(basicAuth("bob", "x"), "Basic ", "bASIC  ", 1), true, "bob"},
		{"other bits where base64 has none", "Basic Ym9iOng=", "Basic Ym9iOnh=", true, "bob"},
		{"an opaque token in other spelling", "Bearer abc", "bearer  abc ", true, "bearer"},
		{"another password", basicAuth("bob", "x"), basicAuth("bob", "y"), false, "bob"},
		{"a colon elsewhere", basicAuth("bob", "x:y"), basicAuth("bob:x", "y"), true, "bob"}, // the same bytes
		{"a renewed token continues the upload", token1, token2, true, "bob"},
		{"the scheme in other case", token1, strings.Replace(token1, "Bearer", "bearer", 1), true, "bob"},
		{"another issuer", token1, "Bearer " + jwt(`{"iss":"evil.example","sub":"bob"}`, "s"), false, "bob"},
		{"another subject", token1, "Bearer " + jwt(`{"iss":"auth.example","sub":"eve"}`, "s"), false, "bob"},
		{"a token without subject is only itself", "Bearer " + jwt(`{"iss":"auth.example"}`, "1"), "Bearer " + jwt(`{"iss":"auth.example"}`, "2"), false, "bearer"},
		{"opaque tokens", "Bearer abc", "Bearer abd", false, "bearer"},
		{"not a JWT after all", "Bearer a.%%.c", "Bearer a.e30.c", false, "bearer"},
		{"nothing and something", "", "Bearer abc", false, "anonymous"},
		{"nothing", "", "", true, "anonymous"},
		{"a scheme nobody knows", "Digest x", "Digest y", false, "unknown"},
		{"not base64", "Basic %", "Basic %%", false, "unknown"},
		{"issuer and subject do not run into each other", "Bearer " + jwt(`{"iss":"ab","sub":"c"}`, "s"), "Bearer " + jwt(`{"iss":"a","sub":"bc"}`, "s"), false, "c"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, y := identity(tt.a), identity(tt.b)
			if (x.Key == y.Key) != tt.sameKey {
				t.Errorf("same key is %v", !tt.sameKey)
			}
			if x.Name != tt.label {
				t.Errorf("name %q, want %q", x.Name, tt.label)
			}
			for _, secret := range []string{"s1", base64.StdEncoding.EncodeToString([]byte("bob:x"))} {
				if strings.Contains(fmt.Sprintf("%+v", x), secret) {
					t.Errorf("%s is in %+v", secret, x)
				}
			}
		})
	}
}

func TestAnUnverifiedNameCannotForgeLogLines(t *testing.T) {
	a := mustNew(t, Options{Mode: Passthrough})
	id, _ := a.Authenticate(request(basicAuth("bob\nlevel=INFO msg=\x1b[2J"+strings.Repeat("x", 500), "p")))
	if strings.ContainsAny(id.Name, "\n\x1b") || len(id.Name) > 110 {
		t.Errorf("%q", id.Name)
	}
}

func TestPermissions(t *testing.T) {
	ci := []Permission{
		{Identity: "ci-*", Repositories: []string{"team/**", "tools/*"}, Actions: []Action{Pull, Push}},
		{Identity: "*", Repositories: []string{"**"}, Actions: []Action{Pull}},
		{Identity: "{ann,bob}", Repositories: []string{"team/app"}, Actions: []Action{Push}},
	}
	for _, tt := range []struct {
		name        string
		permissions []Permission
		who, repo   string
		action      Action
		want        bool
	}{
		{"no permissions allow everything", nil, "eve", "any/thing", Push, true},
		{"a glob of both", ci, "ci-1", "team/a/b", Push, true},
		{"a star does not cross a slash", ci, "ci-1", "tools/a/b", Push, false},
		{"another repository", ci, "ci-1", "other", Push, false},
		{"another identity", ci, "ci", "team/a", Push, false},
		{"everybody may pull", ci, "eve", "other/x", Pull, true},
		{"everybody includes names with a slash", ci, "org/eve", "other/x", Pull, true},
		{"one of two names", ci, "bob", "team/app", Push, true},
		{"push does not include pull", ci[2:], "bob", "team/app", Pull, false},
		{"a permission without actions allows nothing", []Permission{{Identity: "*", Repositories: []string{"**"}}}, "eve", "x", Pull, false},
		{"a permission without repositories allows nothing", []Permission{{Identity: "*", Actions: []Action{Pull}}}, "eve", "x", Pull, false},
		{"deleting is a push", ci, "ci-1", "team/a", Delete, true},
		{"an action nobody knows", ci, "ci-1", "team/a", "admin", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := mustNew(t, Options{Permissions: tt.permissions})
			if got := a.Allowed(Identity{Name: tt.who}, tt.repo, tt.action); got != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// Where nothing is hidden the upstream's own pages are passed on, and nobody looks at them any more.
func TestTheCatalogIsListedWholeOnlyToWhoMayPullEverything(t *testing.T) {
	everything, pull := []string{"**"}, []Action{Pull}
	for name, tt := range map[string]struct {
		permissions []Permission
		want        bool
	}{
		"no permissions":               {nil, true},
		"all repositories":             {[]Permission{{"x", everything, pull}, {"bob", everything, pull}}, true},
		"all repositories of somebody": {[]Permission{{"ann", everything, pull}}, false},
		"some repositories":            {[]Permission{{"*", []string{"team/**"}, pull}}, false},
		"all, for pushes":              {[]Permission{{"*", everything, []Action{Push}}}, false},
		"in parts":                     {[]Permission{{"bob", []string{"team/**"}, pull}, {"ann", everything, pull}, {"bob", everything, []Action{Push}}}, false},
	} {
		if got := mustNew(t, Options{Permissions: tt.permissions}).ListedWhole(Identity{Name: "bob"}); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestACanceledRequestIsNotARefusal(t *testing.T) {
	p := &passwords{slots: make(chan struct{}), running: map[[32]byte]chan struct{}{}, verified: map[[32]byte]struct{}{}}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := p.compare(ctx, comparison{done: make(chan struct{}), known: true, stored: nobody, password: "x"})
	if errors.Is(err, ErrUnauthenticated) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
