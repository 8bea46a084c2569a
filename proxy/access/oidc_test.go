package access

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

const audience = "sluice.example"

// github is what GitHub Actions writes into an ID token, shortened.
func github(change ...any) map[string]any {
	c := map[string]any{
		"aud": audience, "sub": "repo:acme/app:ref:refs/heads/main", "repository": "acme/app", "repository_owner": "acme",
		"ref": "refs/heads/main", "ref_protected": true, "run_id": 42, "groups": []string{"ci", "release"},
	}
	for i := 0; i+1 < len(change); i += 2 {
		if change[i+1] == nil {
			delete(c, change[i].(string))
			continue
		}
		c[change[i].(string)] = change[i+1]
	}
	return c
}

func acme(i *proxytest.Issuer) Issuer {
	return Issuer{Issuer: i.URL, Audience: audience, Identity: "repo:{repository}", Claims: map[string]string{"repository_owner": "acme", "ref": "refs/heads/*"}}
}

func TestAnIDTokenIsAPasswordOrABearer(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{acme(issuer)}})
	token := issuer.Token(github())
	var key string
	for _, authorization := range []string{"Bearer " + token, basicAuth("oidc", token), basicAuth("", token), basicAuth("any:thing"[:3], issuer.Token(github("run_id", 43)))} {
		id, err := a.Authenticate(request(authorization))
		if err != nil || id.Name != "repo:acme/app" || id.Key == "" || key != "" && id.Key != key {
			t.Errorf("%+v, %v", id, err)
		}
		key = id.Key
	}
	if n := issuer.Fetches(); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

func TestATokenForAnybodyElseIsRefused(t *testing.T) {
	issuer, stranger := proxytest.NewIssuer(t, nil), proxytest.NewIssuer(t, nil)
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{acme(issuer)}})
	good := strings.Split(issuer.Token(github()), ".")
	ago := func(d time.Duration) int64 { return time.Now().Add(-d).Unix() }
	for name, token := range map[string]string{
		"another audience":              issuer.Token(github("aud", "other")),
		"no audience":                   issuer.Token(github("aud", nil)),
		"another owner":                 issuer.Token(github("repository_owner", "evil")),
		"no owner":                      issuer.Token(github("repository_owner", nil)),
		"an owner that is no text":      issuer.Token(github("repository_owner", map[string]any{"a": "acme"})),
		"a glob does not cross slashes": issuer.Token(github("ref", "refs/heads/a/b")),
		"no claim for the identity":     issuer.Token(github("repository", nil)),
		"an empty identity":             issuer.Token(github("repository", "")),
		"an identity of two lines":      issuer.Token(github("repository", "acme/app\nx")),
		"one that steers a terminal":    issuer.Token(github("repository", "acme/app\u009b2J")),
		"one that looks like another":   issuer.Token(github("repository", "acme/a\u200bpp")),
		"over":                          issuer.Token(github("exp", ago(2*time.Minute))),
		"not yet":                       issuer.Token(github("nbf", ago(-10*time.Minute))),
		"another issuer":                stranger.Token(github()),
		"another issuer's key":          stranger.Token(github("iss", issuer.URL)),
		"altered":                       good[0] + "." + strings.Split(issuer.Token(github("repository", "acme/other")), ".")[1] + "." + good[2],
		"algorithm none":                "eyJhbGciOiJub25lIn0." + good[1] + ".",
		"no signature":                  good[0] + "." + good[1] + ".",
		"no token":                      "hunter2",
		"nothing":                       "",
		"huge":                          issuer.Token(github("x", strings.Repeat("x", maxToken))),
	} {
		if id, err := a.Authenticate(request(basicAuth("oidc", token))); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %+v, %v", name, id, err)
		} else if len(token) > 100 && (strings.Contains(err.Error(), token) || strings.Contains(err.Error(), good[1])) {
			t.Errorf("%s: the token is in the error", name)
		}
	}
	if _, err := a.Authenticate(request(basicAuth("oidc", issuer.Token(github("exp", ago(30*time.Second)))))); err != nil {
		t.Errorf("clocks that differ by half a minute: %v", err)
	}
}

// "*" asks for a claim that is there and can be compared: what cannot is not the empty text.
func TestAClaimThatIsNoTextMatchesNothing(t *testing.T) {
	for _, claim := range []any{nil, map[string]any{"a": "b"}, []any{}, []any{nil, map[string]any{}}, json.Number("1e999")} {
		for _, glob := range []string{"*", "**", "{,a}"} {
			if matches(claim, glob) {
				t.Errorf("%#v matches %q", claim, glob)
			}
		}
	}
	if !matches([]any{nil, "a"}, "*") || !matches("", "*") || !matches(true, "true") {
		t.Error("what is there does not match")
	}
}

func TestATokenIsNotRememberedBeyondItsEnd(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	now := time.Now()
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{acme(issuer)}, Now: func() time.Time { return now }})
	end := now.Add(recheck / 5).Truncate(time.Second)
	token := issuer.Token(github("exp", end.Unix()))
	for _, after := range []time.Duration{-time.Second, skew - time.Second, skew + time.Second} {
		now = end.Add(after)
		if _, err := a.Authenticate(request("Bearer " + token)); (err == nil) != (after < skew) {
			t.Errorf("%s after its end: %v", after, err)
		}
	}
}

func TestTheFirstEntryThatATokenSatisfiesDecides(t *testing.T) {
	issuer, cluster := proxytest.NewIssuer(t, nil), proxytest.NewIssuer(t, nil)
	release := acme(issuer)
	release.Claims, release.Identity = map[string]string{"ref": "refs/tags/**", "ref_protected": "true", "run_id": "42", "groups": "rel*"}, "release:{repository}"
	pods := Issuer{Issuer: cluster.URL, Audience: audience, Identity: "{sub}", Claims: map[string]string{"sub": "system:serviceaccount:ci:*"}}
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{release, acme(issuer), pods}})
	for want, token := range map[string]string{
		"release:acme/app":                 issuer.Token(github("ref", "refs/tags/v1/a")),
		"repo:acme/app":                    issuer.Token(github()),
		"system:serviceaccount:ci:builder": cluster.Token(map[string]any{"aud": []string{"x", audience}, "sub": "system:serviceaccount:ci:builder"}),
		"":                                 cluster.Token(map[string]any{"aud": audience, "sub": "system:serviceaccount:default:builder"}),
	} {
		if id, err := a.Authenticate(request(basicAuth("oidc", token))); id.Name != want {
			t.Errorf("%+v (%v), want %q", id, err, want)
		}
	}
}

func TestKeysRotateAndAreNotFetchedForEveryForgery(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{acme(issuer), acme(issuer)}, Now: func() time.Time { return time.Unix(0, now.Load()) }})
	in := func(want bool, token string) {
		t.Helper()
		if _, err := a.Authenticate(request("Bearer " + token)); (err == nil) != want {
			t.Errorf("let in %t, want %t: %v", err == nil, want, err)
		}
	}
	old := issuer.Token(github())
	in(true, old)
	issuer.Rotate()
	rotated := issuer.Token(github())
	in(false, rotated) // the keys were fetched a moment ago
	now.Add(int64(keysPause))
	in(true, rotated)
	in(true, old) // from memory, for some minutes
	asked := issuer.Fetches()
	now.Add(int64(keysPause))
	in(true, issuer.Token(github("i", 1)))
	if issuer.Fetches() != asked {
		t.Error("keys that are fresh were fetched for a token of one of them")
	}
	now.Add(int64(recheck))
	in(false, old)
	forger := proxytest.NewIssuer(t, nil)
	before := issuer.Fetches()
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { in(false, forger.Token(github("iss", issuer.URL, "i", i))) })
	}
	all.Wait()
	if n := issuer.Fetches() - before; n > 1 {
		t.Errorf("50 forged tokens made %d requests to the issuer", n)
	}
	issuer.Close()
	now.Add(int64(2 * keysFresh))
	late := issuer.Token(github("exp", time.Unix(0, now.Load()).Add(48*time.Hour).Unix()))
	in(true, late)
	now.Add(int64(keysStale))
	if _, err := a.Authenticate(request("Bearer " + late)); err == nil || errors.Is(err, ErrUnauthenticated) {
		t.Errorf("with keys a day old: %v", err)
	}
}

func TestAnIssuerThatMisbehavesIsTroubleAndNobodyGetsIn(t *testing.T) {
	for name, wrap := range map[string]func(http.Handler) http.Handler{
		"down": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
		},
		"endless": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, endless{}) })
		},
		"garbage": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") })
		},
		"another issuer's document": func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				io.WriteString(w, `{"issuer":"https://evil.example","jwks_uri":"https://evil.example/keys"}`)
			})
		},
		"keys with an error": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/keys") {
					w.WriteHeader(http.StatusInternalServerError)
				}
				next.ServeHTTP(w, r)
			})
		},
		"a redirect": func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasPrefix(r.URL.Path, "/moved") {
					http.StripPrefix("/moved", next).ServeHTTP(w, r)
					return
				}
				http.Redirect(w, r, "/moved"+r.URL.Path, http.StatusFound)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			issuer := proxytest.NewIssuer(t, wrap)
			a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{acme(issuer)}})
			if id, err := a.Authenticate(request("Bearer " + issuer.Token(github()))); err == nil || errors.Is(err, ErrUnauthenticated) {
				t.Errorf("%+v, %v", id, err)
			}
		})
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestKeysMayBeAFileOrAnAddress(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	file := acme(issuer)
	file.JWKS = proxytest.File(t, "keys.json", issuer.JWKS())
	address := acme(issuer)
	address.JWKS = issuer.URL + "/keys"
	for name, i := range map[string]Issuer{"address": address, "file": file} {
		a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{i}})
		if _, err := a.Authenticate(request("Bearer " + issuer.Token(github()))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := issuer.Fetches(); n != 1 {
		t.Errorf("%d fetches", n)
	}
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{file}})
	issuer.Rotate()
	proxytest.Replace(t, file.JWKS, issuer.JWKS())
	if _, err := a.Authenticate(request("Bearer " + issuer.Token(github()))); err != nil {
		t.Errorf("a replaced file: %v", err)
	}
}

// RFC 7517: both `kid` and `use` may be missing.
func TestKeysNeedNeitherANameNorAUse(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(issuer.JWKS(), &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		delete(k, "kid")
		delete(k, "use")
	}
	bare, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	i := acme(issuer)
	i.JWKS = proxytest.File(t, "keys.json", bare)
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{i}})
	if _, err := a.Authenticate(request("Bearer " + issuer.Token(github()))); err != nil {
		t.Error(err)
	}
	if _, err := a.Authenticate(request("Bearer " + proxytest.NewIssuer(t, nil).Token(github("iss", issuer.URL)))); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("another key: %v", err)
	}
}

func TestAnIssuerNeedsAnAudienceAndClaims(t *testing.T) {
	whole := Issuer{Issuer: "https://i.example", Audience: "a", Identity: "{sub}", Claims: map[string]string{"sub": "*"}}
	for name, change := range map[string]func(*Issuer){
		"issuer": func(i *Issuer) { i.Issuer = "" }, "audience": func(i *Issuer) { i.Audience = "" }, "claims": func(i *Issuer) { i.Claims = nil },
		"glob": func(i *Issuer) { i.Claims = map[string]string{"sub": "["} },
	} {
		i := whole
		change(&i)
		if _, err := New(Options{Mode: OIDC, OIDC: []Issuer{i}}); err == nil {
			t.Errorf("without a good %s it was accepted", name)
		}
	}
	if _, err := New(Options{Mode: OIDC}); err == nil {
		t.Error("without an issuer it was accepted")
	}
}

func TestATokenOfANewKeyIsGoodAtOnceWhenKeysMayBeFetched(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	now := time.Now()
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{acme(issuer)}, Now: func() time.Time { return now }})
	for range 2 {
		if _, err := a.Authenticate(request("Bearer " + issuer.Token(github()))); err != nil {
			t.Fatal(err)
		}
		issuer.Rotate()
		now = now.Add(keysPause)
	}
}

// Whoever stands on the way to the second could let everybody in.
func TestKeysOfAnIssuerOverTLSAreNotFetchedWithout(t *testing.T) {
	keys := proxytest.NewIssuer(t, nil)
	issuer := httptest.NewUnstartedServer(nil)
	issuer.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, issuer.URL, keys.URL+"/keys")
	})
	issuer.StartTLS()
	defer issuer.Close()
	entry := acme(keys)
	entry.Issuer = issuer.URL
	entry.CA = proxytest.File(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issuer.Certificate().Raw}))
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{entry}})
	if _, err := a.Authenticate(request("Bearer " + keys.Token(github("iss", issuer.URL)))); err == nil || !strings.Contains(err.Error(), "over https") {
		t.Errorf("got %v", err)
	}
	if keys.Fetches() != 0 {
		t.Error("they were fetched")
	}
}

func TestTokensRememberedAreBounded(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	s, err := newIssuers([]Issuer{acme(issuer)}, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxVerified + 1 {
		s.remember([32]byte{byte(i), byte(i >> 8)}, Identity{}, time.Now().Add(time.Hour))
	}
	if n := len(s.verified); n > maxVerified {
		t.Errorf("%d remembered", n)
	}
}

func TestATemplateMustNameAClaim(t *testing.T) {
	for template, good := range map[string]bool{"{sub}": true, "repo:{repository}/{ref}": true, "everybody": false, "": false, "{sub": false, "{}": false, "{sub}}": false} {
		i := Issuer{Issuer: "https://i.example", Audience: "a", Identity: template, Claims: map[string]string{"sub": "*"}}
		if _, err := New(Options{Mode: OIDC, OIDC: []Issuer{i}}); (err == nil) != good {
			t.Errorf("%q: %v", template, err)
		}
	}
	if got, err := expand("{a}-{b}-{c}", map[string]any{"a": "x", "b": json.Number("7.0"), "c": false}); got != "x-7-false" || err != nil {
		t.Error(fmt.Sprint(got, err))
	}
}

// Numbers beyond 2^53 are not all float64s: neighbours would be one client.
func TestANumberInATokenIsThatNumber(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	mine := acme(issuer)
	mine.Claims, mine.Identity = map[string]string{"project": "9007199254740993"}, "project:{project}"
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{mine}})
	if id, err := a.Authenticate(request("Bearer " + issuer.Token(github("project", int64(9007199254740993))))); err != nil || id.Name != "project:9007199254740993" {
		t.Errorf("%+v, %v", id, err)
	}
	if id, err := a.Authenticate(request("Bearer " + issuer.Token(github("project", int64(9007199254740992))))); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("the one before is %+v, %v", id, err)
	}
}
