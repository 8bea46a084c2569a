package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/coreos/go-oidc/v3/oidc"
)

// An Issuer of ID tokens, and whom of those it knows it is trusted for.
type Issuer struct {
	Issuer   string // the `iss` claim, and where its discovery document is
	Audience string // must be among those of `aud`
	CA       string // file, PEM: authorities of the issuer's own certificate, besides the system's
	JWKS     string // file or URL of its keys, "" for what its discovery document names
	// Identity is the client's name: text with {claim}.
	Identity string
	// Claims are globs that must match. An issuer such as GitHub's gives tokens to everybody, so at least one.
	Claims map[string]string
}

const (
	maxToken = 16 << 10 // of an ID token; GitHub's have some 2 KiB
	// skew is how much an issuer's clock may differ. After a token's end go-oidc allows nothing, and before its
	// beginning five minutes; this moves both.
	skew = time.Minute
)

// issuers checks ID tokens. A token is the password of any user, since every client can send one (docker login), or a
// bearer. That it may be replayed until it ends is the nature of such a token; uploads are bound to the identity in it,
// so that a renewed one continues them.
type issuers struct {
	all []*issuer
	log *slog.Logger
	now func() time.Time

	mu       sync.Mutex
	verified map[[sha256.Size]byte]verifiedToken
}

type verifiedToken struct {
	id    Identity
	until time.Time
}

type issuer struct {
	Issuer
	keys     *keySet
	verifier *oidc.IDTokenVerifier
}

// recheck bounds how long a token is taken for good without its issuer's keys: a key may be withdrawn.
const recheck = 5 * time.Minute

func newIssuers(configured []Issuer, log *slog.Logger, now func() time.Time) (*issuers, error) {
	if len(configured) == 0 {
		return nil, errors.New("oidc needs an issuer")
	}
	s := &issuers{log: log, now: now, verified: map[[sha256.Size]byte]verifiedToken{}}
	keys := map[source]*keySet{}
	for _, c := range configured {
		if c.Issuer == "" || c.Audience == "" || len(c.Claims) == 0 {
			return nil, fmt.Errorf("oidc issuer %q needs issuer, audience and claims", c.Issuer)
		}
		if _, err := templateClaims(c.Identity); err != nil {
			return nil, err
		}
		for claim, glob := range c.Claims {
			if !doublestar.ValidatePattern(glob) {
				return nil, fmt.Errorf("oidc issuer %s: %q for claim %s is not a glob", c.Issuer, glob, claim)
			}
		}
		i := &issuer{Issuer: c}
		from := source{c.Issuer, c.CA, c.JWKS}
		if i.keys = keys[from]; i.keys == nil {
			var err error
			if i.keys, err = newKeySet(from, log, now); err != nil {
				return nil, fmt.Errorf("oidc issuer %s: %w", c.Issuer, err)
			}
			keys[from] = i.keys
		}
		i.verifier = oidc.NewVerifier(c.Issuer, i.keys, &oidc.Config{
			ClientID: c.Audience, SupportedSigningAlgs: idTokenAlgorithms(), Now: func() time.Time { return now().Add(-skew) },
		})
		s.all = append(s.all, i)
	}
	return s, nil
}

func idTokenAlgorithms() []string {
	return []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA}
}

func (s *issuers) challenge(Scope, bool) []string { return basicChallenge() }

func (s *issuers) authenticate(r *http.Request) (Identity, error) {
	raw, ok := bearer(r.Header.Get("Authorization"))
	if !ok {
		_, raw, ok = r.BasicAuth()
	}
	if !ok || raw == "" || len(raw) > maxToken {
		return Identity{}, ErrUnauthenticated
	}
	key := sha256.Sum256([]byte(raw))
	if id, ok := s.remembered(key); ok {
		return id, nil
	}
	id, expiry, err := s.check(r.Context(), raw)
	if err != nil {
		return Identity{}, err
	}
	s.remember(key, id, expiry)
	return id, nil
}

func (s *issuers) remembered(key [sha256.Size]byte) (Identity, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.verified[key]
	return v.id, ok && s.now().Before(v.until)
}

func (s *issuers) remember(key [sha256.Size]byte, id Identity, expiry time.Time) {
	until := s.now().Add(recheck)
	if end := expiry.Add(skew); end.Before(until) {
		until = end
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.verified) >= maxVerified {
		clear(s.verified)
	}
	s.verified[key] = verifiedToken{id, until}
}

// check goes through the entries for the token's issuer; the first that it satisfies says who it is. The reason why
// none does is for the log only: it may hold claims of a token that nobody has verified.
func (s *issuers) check(ctx context.Context, raw string) (Identity, time.Time, error) {
	claimed, ok := issuerOf(raw)
	if !ok {
		return Identity{}, time.Time{}, fmt.Errorf("%w: the password is not an ID token", ErrUnauthenticated)
	}
	refused := fmt.Errorf("%w: the token's issuer %q is not one of access.oidc", ErrUnauthenticated, printable(claimed))
	for _, i := range s.all {
		if i.Issuer.Issuer != claimed {
			continue
		}
		id, expiry, err := i.check(ctx, raw)
		switch {
		case err == nil:
			return id, expiry, nil
		case ctx.Err() != nil:
			return Identity{}, time.Time{}, canceled(ctx)
		case errors.Is(err, errKeys): // not the client's fault
			return Identity{}, time.Time{}, err
		}
		refused = fmt.Errorf("%w: %w", ErrUnauthenticated, err)
	}
	return Identity{}, time.Time{}, refused
}

func (i *issuer) check(ctx context.Context, raw string) (Identity, time.Time, error) {
	token, err := i.verifier.Verify(ctx, raw)
	if err != nil {
		if errors.Is(err, errKeys) {
			return Identity{}, time.Time{}, err
		}
		if kerr := i.keys.trouble(); kerr != nil { // go-oidc does not wrap what a key set says
			return Identity{}, time.Time{}, kerr
		}
		return Identity{}, time.Time{}, fmt.Errorf("token of %s: %s", i.Issuer.Issuer, printable(err.Error()))
	}
	claims, err := claimsOf(token)
	if err != nil {
		return Identity{}, time.Time{}, fmt.Errorf("token of %s: its claims cannot be read", i.Issuer.Issuer)
	}
	for name, glob := range i.Claims {
		if !matches(claims[name], glob) {
			return Identity{}, time.Time{}, fmt.Errorf("token of %s for %q: its claim %s does not match %q", i.Issuer.Issuer, printable(token.Subject), name, glob)
		}
	}
	name, err := expand(i.Identity, claims)
	if err != nil {
		return Identity{}, time.Time{}, fmt.Errorf("token of %s for %q: %w", i.Issuer.Issuer, printable(token.Subject), err)
	}
	return Identity{Name: name, Key: hash("oidc", i.Issuer.Issuer, name)}, token.Expiry, nil
}

// issuerOf reads the issuer out of a token that nobody has verified, to know whose keys to verify it with.
func issuerOf(raw string) (string, bool) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return "", false
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", false
	}
	var c tokenClaims
	if json.Unmarshal(payload, &c) != nil || c.Issuer == "" {
		return "", false
	}
	return c.Issuer, true
}

// claimsOf keeps numbers as they are written: as a float64 an id beyond 2^53 would be its neighbour too.
func claimsOf(token *oidc.IDToken) (claims map[string]any, err error) {
	var raw json.RawMessage
	if err := token.Claims(&raw); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return claims, d.Decode(&claims)
}

// matches compares a claim with a glob; of a list (groups) one element must match.
func matches(claim any, glob string) bool {
	if list, ok := claim.([]any); ok {
		for _, c := range list {
			if text, ok := claimText(c); ok && doublestar.MatchUnvalidated(glob, text) {
				return true
			}
		}
		return false
	}
	text, ok := claimText(claim)
	return ok && doublestar.MatchUnvalidated(glob, text)
}

func claimText(claim any) (string, bool) {
	switch c := claim.(type) {
	case string:
		return c, true
	case bool:
		return strconv.FormatBool(c), true
	case json.Number:
		if !strings.ContainsAny(c.String(), ".eE") {
			return c.String(), true
		}
		f, err := c.Float64()
		return strconv.FormatFloat(f, 'f', -1, 64), err == nil
	}
	return "", false
}

var placeholder = regexp.MustCompile(`\{([^{}]+)\}`)

// templateClaims are the claims that an identity template names. One that names none would make everybody one client.
func templateClaims(template string) ([]string, error) {
	var names []string
	for _, m := range placeholder.FindAllStringSubmatch(template, -1) {
		names = append(names, m[1])
	}
	if rest := placeholder.ReplaceAllString(template, ""); len(names) == 0 || strings.ContainsAny(rest, "{}") {
		return nil, fmt.Errorf("identity %q names no claim of the token: write {sub}, or text such as repo:{repository}", template)
	}
	return names, nil
}

// expand fills the template. A claim that is missing is an error and not "": two clients must not become one.
func expand(template string, claims map[string]any) (string, error) {
	var err error
	name := placeholder.ReplaceAllStringFunc(template, func(p string) string {
		claim := p[1 : len(p)-1]
		text, ok := claimText(claims[claim])
		if !ok || text == "" {
			err = fmt.Errorf("it has no claim %s, which access.oidc[].identity needs", claim)
		}
		return text
	})
	if err == nil && (strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) || len(name) > 512) {
		err = errors.New("its identity has characters that cannot be printed, or more than 512 bytes")
	}
	return name, err
}
