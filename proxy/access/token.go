package access

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/go-jose/go-jose/v4"

	"sluice/proxy/internal/reread"
)

// TokenOptions are for mode Token; the names are those of distribution's auth.token.
type TokenOptions struct {
	Realm, Service, Issuer string
	RootCertBundle         string // file, PEM: who has signed a token's certificate
	JWKS                   string // file: keys of the token service
}

// tokens checks the tokens of a token service (distribution, "Token Authentication Specification") with
// distribution's own library. The controller of that library is not used: it says yes or no to one request, and has no
// answer to "what else may this token", which mounts and the catalog ask; and it reads its keys once.
type tokens struct {
	o    TokenOptions
	now  func() time.Time
	keys *reread.Files[signers]
}

type signers struct {
	roots   *x509.CertPool
	trusted map[string]crypto.PublicKey // by key id
}

// Only algorithms with a public key: nobody who can read the configured files can make a token.
func tokenAlgorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

func newTokens(o TokenOptions, log *slog.Logger, now func() time.Time) (*tokens, error) {
	var files []string
	for _, f := range []string{o.RootCertBundle, o.JWKS} {
		if f != "" {
			files = append(files, f)
		}
	}
	if o.Realm == "" || o.Service == "" || o.Issuer == "" || len(files) == 0 {
		return nil, errors.New("token authentication needs realm, service, issuer, and rootcertbundle or jwks")
	}
	keys, err := reread.Open(log, func(contents [][]byte) (signers, error) {
		s := signers{roots: x509.NewCertPool(), trusted: map[string]crypto.PublicKey{}}
		if o.RootCertBundle != "" {
			if err := s.addBundle(contents[0]); err != nil {
				return s, fmt.Errorf("token.rootcertbundle %s: %w", o.RootCertBundle, err)
			}
		}
		if o.JWKS != "" {
			if err := s.addKeys(contents[len(contents)-1]); err != nil {
				return s, fmt.Errorf("token.jwks %s: %w", o.JWKS, err)
			}
		}
		return s, nil
	}, files...)
	if err != nil {
		return nil, err
	}
	return &tokens{o: o, now: now, keys: keys}, nil
}

func (s *signers) addBundle(content []byte) error {
	n := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		s.roots.AddCert(c)
		if id := token.GetJWKThumbprint(c.PublicKey); id != "" {
			s.trusted[id] = c.PublicKey
		}
		n++
	}
	if n == 0 {
		return errors.New("holds no PEM certificate")
	}
	return nil
}

func (s *signers) addKeys(content []byte) error {
	keys, err := parseKeySet(content)
	if err != nil {
		return err
	}
	for _, k := range keys {
		s.trusted[k.KeyID] = k.Key
	}
	return nil
}

// parseKeySet reads a JWKS (RFC 7517). A key of a kind that is not known here is left out, as section 5 asks; a
// private or a symmetric one is refused, since it has no business in such a file.
func parseKeySet(content []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, errors.New("is not a JSON Web Key Set")
	}
	var keys []jose.JSONWebKey
	for i, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil {
			continue
		}
		if !k.IsPublic() {
			return nil, fmt.Errorf("key %d is not a public key", i+1)
		}
		if k.Use == "" || k.Use == "sig" {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("holds no key for signatures")
	}
	return keys, nil
}

func (t *tokens) authenticate(r *http.Request) (Identity, error) {
	raw, ok := bearer(r.Header.Get("Authorization"))
	if !ok {
		return Identity{}, ErrUnauthenticated
	}
	parsed, err := token.NewToken(raw, tokenAlgorithms())
	if err != nil {
		return Identity{}, fmt.Errorf("%w: not a token", ErrUnauthenticated)
	}
	claims, err := t.claims(parsed)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	name := printable(claims.Subject)
	if name == "" { // what token services give to who has not logged in
		name = anonymous
	}
	return Identity{Name: name, Key: hash("token", claims.Issuer, claims.Subject), granted: &grants{claims.Access}}, nil
}

// claims are what the library's Verify checks, step by step: that one logs to a logger of its own, and knows no clock
// but the machine's.
func (t *tokens) claims(parsed *token.Token) (*token.ClaimSet, error) {
	keys := t.keys.Get()
	key, err := parsed.VerifySigningKey(token.VerifyOptions{Roots: keys.roots, TrustedKeys: keys.trusted})
	if err != nil {
		return nil, errors.New("the token names no key of the token service")
	}
	claims := &token.ClaimSet{}
	if err := parsed.JWT.Claims(key, claims); err != nil {
		return nil, errors.New("the token is not signed by the key that it names")
	}
	now := t.now()
	switch {
	case claims.Issuer != t.o.Issuer:
		return nil, fmt.Errorf("the token is by %q, and access.token.issuer is %q", printable(claims.Issuer), t.o.Issuer)
	case !slices.Contains(claims.Audience, t.o.Service):
		return nil, fmt.Errorf("the token is for another service than access.token.service %q", t.o.Service)
	case now.After(time.Unix(claims.Expiration, 0).Add(token.Leeway)):
		return nil, errors.New("the token is over")
	case now.Before(time.Unix(claims.NotBefore, 0).Add(-token.Leeway)):
		return nil, errors.New("the token is not good yet")
	}
	return claims, nil
}

// challenge asks for what the request needs. For a push that is pull too, as distribution asks: clients look first at
// what is there.
func (t *tokens) challenge(wanted Scope, insufficient bool) []string {
	c := fmt.Sprintf("Bearer realm=%q,service=%q", t.o.Realm, t.o.Service)
	switch {
	case wanted.Catalog:
		c += `,scope="registry:catalog:*"`
	case wanted.Repository != "":
		actions := string(wanted.Action)
		if wanted.Action == Push {
			actions = "pull,push"
		}
		c += fmt.Sprintf(`,scope="repository:%s:%s"`, wanted.Repository, actions)
	}
	if insufficient {
		c += `,error="insufficient_scope"`
	}
	return []string{c}
}

// grants is what a token is for. Of nil everything is granted: the other modes have permissions only.
type grants struct{ access []*token.ResourceActions }

func (g *grants) repository(name string, action Action) bool {
	return g.has("repository", name, string(action))
}

func (g *grants) catalog() bool { return g.has("registry", "catalog", "*") }

func (g *grants) has(kind, name, action string) bool {
	if g == nil {
		return true
	}
	for _, a := range g.access {
		if a != nil && a.Type == kind && a.Name == name && (slices.Contains(a.Actions, action) || slices.Contains(a.Actions, "*")) {
			return true
		}
	}
	return false
}

// bearer takes the token out of an Authorization header.
func bearer(authorization string) (string, bool) {
	scheme, value, ok := strings.Cut(authorization, " ")
	value = strings.TrimSpace(value)
	return value, ok && value != "" && strings.EqualFold(scheme, "bearer")
}
