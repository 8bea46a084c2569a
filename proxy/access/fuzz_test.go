package access

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

// FuzzAuthorization: nothing but a genuine token lets anybody in, in any mode that takes one, and no error holds what was
// presented.
func FuzzAuthorization(f *testing.F) {
	issuer := proxytest.NewIssuer(f, nil)
	keys := proxytest.File(f, "keys.json", issuer.JWKS())
	// All expired: a fuzzer that finds its way back to one of them has found nothing.
	expired := issuer.Token(map[string]any{"aud": "a", "sub": "bob", "exp": time.Now().Add(-time.Hour).Unix()})
	for _, s := range []string{
		"", "Basic", "Bearer", "Bearer " + expired, basicAuth("oidc", expired), "Basic %%%", "Bearer a.b.c", "bearer  x", "Bearer " + strings.Repeat("x.", 100),
		"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJib2IifQ.", basicAuth("", ""), "Negotiate x",
	} {
		f.Add(s)
	}
	var modes []*Access
	for _, o := range []Options{
		{Mode: Token, Token: TokenOptions{Realm: "https://r.example", Service: "a", Issuer: issuer.URL, JWKS: keys}},
		{Mode: OIDC, OIDC: []Issuer{{Issuer: issuer.URL, Audience: "a", JWKS: keys, Identity: "{sub}", Claims: map[string]string{"sub": "**"}}}},
	} {
		a, err := New(o)
		if err != nil {
			f.Fatal(err)
		}
		modes = append(modes, a)
	}
	f.Fuzz(func(t *testing.T, authorization string) {
		r := httptest.NewRequest("GET", "/v2/", nil)
		r.Header.Set("Authorization", authorization)
		for _, a := range modes {
			id, err := a.Authenticate(r)
			if !errors.Is(err, ErrUnauthenticated) {
				t.Fatalf("%q is %+v, %v", authorization, id, err)
			}
			if len(authorization) > 40 && strings.Contains(err.Error(), authorization[20:]) {
				t.Fatalf("%q is in the error %v", authorization, err)
			}
		}
		if id := presented(authorization); len(id.Name) > 512 || strings.ContainsAny(id.Name, "\n\r") {
			t.Fatalf("%q is called %q", authorization, id.Name)
		}
	})
}
