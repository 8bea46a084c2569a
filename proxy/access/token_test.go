package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/auth/token"

	"sluice/proxy/proxytest"
)

func newTokenService(t *testing.T) (*proxytest.TokenService, TokenOptions) {
	t.Helper()
	s := proxytest.NewTokenService(t, nil, func(string, string, string, string) bool { return true })
	return s, TokenOptions{Realm: s.Realm, Service: s.Service, Issuer: s.Name, JWKS: proxytest.File(t, "keys.json", s.JWKS())}
}

func TestATokenSaysWhoItIsAndWhatItMay(t *testing.T) {
	s, o := newTokenService(t)
	a := mustNew(t, Options{Mode: Token, Token: o, Permissions: []Permission{{Identity: "bob", Repositories: []string{"team/**"}, Actions: []Action{Pull, Push}}}})
	id, err := a.Authenticate(request("Bearer " + s.Token("bob", "repository:team/app:pull,push", "repository:other/app:pull", "repository:team/all:*")))
	if err != nil || id.Name != "bob" || id.Key == "" {
		t.Fatal(id, err)
	}
	for _, tt := range []struct {
		repository            string
		action                Action
		allowed, insufficient bool
	}{
		{"team/app", Pull, true, false},
		{"team/app", Push, true, false},
		{"team/app", Delete, false, true}, // the service grants it apart
		{"team/all", Delete, true, false},
		{"team/new", Pull, false, true},
		{"other/new", Pull, false, false}, // nor would one here
		{"other/app", Pull, false, false}, // no token would help: permissions are in the way
	} {
		if got := a.Allowed(id, tt.repository, tt.action); got != tt.allowed {
			t.Errorf("%s %s: allowed %t", tt.action, tt.repository, got)
		}
		if got := a.Insufficient(id, Scope{Repository: tt.repository, Action: tt.action}); got != tt.insufficient {
			t.Errorf("%s %s: insufficient %t", tt.action, tt.repository, got)
		}
	}
	if !a.Insufficient(id, Scope{Catalog: true}) || a.Listed(id, "team/app") {
		t.Error("lists the catalog without a token for it")
	}
	lists, err := a.Authenticate(request("bearer " + s.Token("bob", "registry:catalog:*")))
	if err != nil || a.Insufficient(lists, Scope{Catalog: true}) || !a.Listed(lists, "team/app") || a.Listed(lists, "other/app") {
		t.Errorf("the catalog: %v", err)
	}
	if lists.Key != id.Key {
		t.Error("another token of the same subject cuts off running uploads")
	}
	if nobody, err := a.Authenticate(request("Bearer " + s.Token(""))); err != nil || nobody.Name != "anonymous" {
		t.Errorf("who has not logged in at the service is %+v, %v", nobody, err)
	}
}

func TestATokenOfAnybodyElseIsRefused(t *testing.T) {
	s, o := newTokenService(t)
	a := mustNew(t, Options{Mode: Token, Token: o})
	stranger, _ := newTokenService(t)
	stranger.Service, stranger.Name = s.Service, s.Name
	good := s.Token("bob")
	parts := strings.Split(good, ".")
	s.Service = "another.registry"
	forAnother := s.Token("bob")
	s.Service, s.Name = o.Service, "another.issuer"
	byAnother := s.Token("bob")
	for name, authorization := range map[string]string{
		"none":                    "",
		"a password":              basicAuth("bob", good),
		"no token":                "Bearer ",
		"garbage":                 "Bearer x.y.z",
		"of another key":          "Bearer " + stranger.Token("bob"),
		"for another service":     "Bearer " + forAnother,
		"by another issuer":       "Bearer " + byAnother,
		"altered":                 "Bearer " + parts[0] + "." + strings.Split(s.Token("eve"), ".")[1] + "." + parts[2],
		"without a signature":     "Bearer " + parts[0] + "." + parts[1] + ".",
		"with the algorithm none": "Bearer eyJhbGciOiJub25lIn0." + parts[1] + ".",
	} {
		if id, err := a.Authenticate(request(authorization)); !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %+v, %v", name, id, err)
		} else if strings.Contains(err.Error(), parts[1]) {
			t.Errorf("%s: the token is in the error: %v", name, err)
		}
	}
	if _, err := a.Authenticate(request("Bearer " + good)); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

func TestAnOldTokenIsRefused(t *testing.T) {
	ca := proxytest.NewIssuer(t, nil) // any signer
	a := mustNew(t, Options{Mode: Token, Token: TokenOptions{Realm: "https://r.example", Service: "s", Issuer: ca.URL, JWKS: proxytest.File(t, "keys.json", ca.JWKS())}})
	for age, good := range map[time.Duration]bool{30 * time.Second: true, 2 * time.Minute: false} {
		token := ca.Token(map[string]any{"sub": "bob", "aud": "s", "exp": time.Now().Add(-age).Unix()})
		if _, err := a.Authenticate(request("Bearer " + token)); (err == nil) != good {
			t.Errorf("over for %s: %v", age, err)
		}
	}
}

func TestATokenIsGoodWhenACertificateOfTheBundleHasItsKey(t *testing.T) {
	key, stranger := newKey(t), newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	other := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	bundle := append(other, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
	o := TokenOptions{Realm: "https://r.example", Service: "s", Issuer: "i", RootCertBundle: proxytest.File(t, "bundle.pem", bundle)}
	a := mustNew(t, Options{Mode: Token, Token: o})
	id := token.GetJWKThumbprint(key.Public())
	claims := map[string]any{"sub": "bob", "aud": "s", "access": []any{nil}}
	for name, tt := range map[string]struct {
		key  *ecdsa.PrivateKey
		id   string
		good bool
	}{
		"its key":                          {key, id, true},
		"another key":                      {stranger, token.GetJWKThumbprint(stranger.Public()), false},
		"another key that is called by it": {stranger, id, false},
		"no name":                          {key, "", false},
	} {
		who, err := a.Authenticate(request("Bearer " + proxytest.SignToken(t, tt.key, tt.id, "i", claims)))
		if err == nil && (a.Allowed(who, "team/app", Pull) || !a.Limited(who)) {
			t.Errorf("%s: what is granted to nobody is allowed", name)
		}
		if (err == nil) != tt.good || err != nil && !errors.Is(err, ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	o.RootCertBundle = proxytest.File(t, "bundle.pem", other)
	if _, err := New(Options{Mode: Token, Token: o}); err == nil {
		t.Error("a bundle without a certificate was taken")
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeysOfTheTokenServiceAreReadAgain(t *testing.T) {
	s, o := newTokenService(t)
	a := mustNew(t, Options{Mode: Token, Token: o})
	next, _ := newTokenService(t)
	next.Service, next.Name = s.Service, s.Name
	proxytest.Replace(t, o.JWKS, next.JWKS())
	if _, err := a.Authenticate(request("Bearer " + next.Token("bob"))); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := a.Authenticate(request("Bearer " + s.Token("bob"))); !errors.Is(err, ErrUnauthenticated) {
		t.Errorf("the old key: %v", err)
	}
}

func TestBadKeyFilesAreErrorsAtStart(t *testing.T) {
	_, o := newTokenService(t)
	for name, text := range map[string]string{
		"not JSON": "x", "no keys": `{"keys":[]}`, "a symmetric key": `{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}`,
		"an unknown kind alone": `{"keys":[{"kty":"lattice"}]}`, "for encryption": `{"keys":[` + strings.Replace(strings.TrimSuffix(strings.TrimPrefix(string(proxytest.NewIssuer(t, nil).JWKS()), `{"keys":[`), `]}`), `"sig"`, `"enc"`, 1) + `]}`,
	} {
		bad := o
		bad.JWKS = proxytest.File(t, "keys.json", []byte(text))
		if _, err := New(Options{Mode: Token, Token: bad}); err == nil || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: %v", name, err)
		}
		bundle := o
		bundle.JWKS, bundle.RootCertBundle = "", bad.JWKS
		if _, err := New(Options{Mode: Token, Token: bundle}); err == nil {
			t.Errorf("%s: taken for certificates", name)
		}
	}
}
