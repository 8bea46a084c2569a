// Package access says who a request comes from and what they may do.
//
// With none everybody is "anonymous", unless a web page in a browser of this machine asks. With htpasswd a user proves a
// password by Basic authentication. With token the client brings a token of the operator's own token service, which also
// says what it may do (distribution's token authentication). With oidc it brings an ID token that a CI system or a
// cluster has given it, as the password of any user or as a bearer. With mtls its certificate says who it is. With
// passthrough Sluice proves nothing: the client's credentials go to upstream, which judges them on every request, and
// what Sluice answers by itself it answers only to credentials that upstream has accepted for the same repository. That
// is the caller's duty, and it goes by all that the client presented. In that mode an Identity only tells clients apart.
package access

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/bmatcuk/doublestar/v4"
)

// Mode is how clients are authenticated.
type Mode string

const (
	None        Mode = "none"
	Htpasswd    Mode = "htpasswd"
	Token       Mode = "token"
	OIDC        Mode = "oidc"
	MTLS        Mode = "mtls"
	Passthrough Mode = "passthrough"
)

// Action is what a request does to a repository. For permissions deleting is a Push; a token service grants it
// apart, as Delete.
type Action string

const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// Permission lets identities that match a glob do actions on repositories that match
// one of several globs. Push does not include Pull.
type Permission struct {
	Identity     string
	Repositories []string
	Actions      []Action
}

// Options configure New.
type Options struct {
	Mode        Mode   // "" is None
	Local       bool   // with None: only for requests that no web page can have sent
	Htpasswd    string // file, for Htpasswd
	Token       TokenOptions
	OIDC        []Issuer
	MTLS        MTLSOptions
	Permissions []Permission     // empty: everybody who is authenticated may do everything
	Logger      *slog.Logger     // nil: none
	Now         func() time.Time // nil: time.Now
}

// Identity is who a request comes from.
type Identity struct {
	// Name is for logs and permissions: the user name, the token's subject, what the
	// certificate says, "anonymous", or with Passthrough the name in the credentials,
	// which nobody has verified.
	Name string
	// Key is what an upload's URL is bound to: the same for one client while the
	// upload lasts, also when its token is renewed half-way. A hash, safe to store.
	// With Passthrough it is NOT proof of anything: it may come from the claims of a
	// token whose signature only upstream can check.
	Key string

	granted *grants // what a token of mode Token is for; nil in the other modes
}

const anonymous = "anonymous"

var (
	// ErrUnauthenticated means that the answer is 401 with Challenge. Any other error of Authenticate but ErrDenied
	// is trouble of Sluice's own (the htpasswd file cannot be read, an issuer's keys cannot be fetched).
	ErrUnauthenticated = errors.New("authentication required")

	// errCredentials is ErrUnauthenticated for who has sent some: the log tells them from who has none yet, as every
	// client at first.
	errCredentials = fmt.Errorf("%w: wrong user name or password", ErrUnauthenticated)

	// ErrDenied means that no other credentials over this connection would help: the answer is 403 with the error's text.
	ErrDenied = errors.New("denied")
)

// An authenticator is one mode.
type authenticator interface {
	authenticate(r *http.Request) (Identity, error)
	// challenge is the WWW-Authenticate of a 401 for somebody who wants this.
	challenge(wanted Scope, insufficient bool) []string
}

// Access is safe for concurrent use.
type Access struct {
	mode        authenticator
	permissions []Permission
}

// New reads the files that the mode needs once, so that a bad one is an error at start.
func New(o Options) (*Access, error) {
	a := &Access{permissions: o.Permissions}
	for _, p := range o.Permissions {
		for _, g := range append([]string{p.Identity}, p.Repositories...) {
			if !doublestar.ValidatePattern(g) {
				return nil, fmt.Errorf("permission for %q: %q is not a glob", p.Identity, g)
			}
		}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var err error
	switch o.Mode {
	case "", None:
		a.mode = open{o.Local}
	case Passthrough:
		a.mode = passthrough{}
	case Htpasswd:
		a.mode, err = openPasswords(o.Htpasswd, o.Logger)
	case Token:
		a.mode, err = newTokens(o.Token, o.Logger, o.Now)
	case OIDC:
		a.mode, err = newIssuers(o.OIDC, o.Logger, o.Now)
	case MTLS:
		a.mode, err = newCertificates(o.MTLS, o.Logger, o.Now)
	default:
		return nil, fmt.Errorf("access mode %q is not known: use none, htpasswd, token, oidc, mtls or passthrough", o.Mode)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Authenticate finds out who a request comes from. With Passthrough it never fails.
func (a *Access) Authenticate(r *http.Request) (Identity, error) { return a.mode.authenticate(r) }

// Scope is what somebody wants to do. The zero value is nothing in particular, as in the API's version check.
type Scope struct {
	Repository string
	Action     Action
	Catalog    bool // list all repositories, instead
}

// Challenge is the WWW-Authenticate header of a 401. It is empty with Passthrough, where upstream's own goes to the
// client. insufficient tells that there was a good token, and that another one is wanted.
func (a *Access) Challenge(wanted Scope, insufficient bool) []string {
	return a.mode.challenge(wanted, insufficient)
}

// Allowed is true when permissions (if there are any) and the token (in mode Token) allow the action. The repository
// is the name the client used.
func (a *Access) Allowed(id Identity, repository string, action Action) bool {
	return a.permitted(id, repository, action) && id.granted.repository(repository, action)
}

// Limited is true for an identity that may not do everything everywhere.
func (a *Access) Limited(id Identity) bool { return len(a.permissions) > 0 || id.granted != nil }

// Insufficient is true when only the token stands in the way: the client may fetch one for more.
func (a *Access) Insufficient(id Identity, wanted Scope) bool {
	if wanted.Catalog {
		return !id.granted.catalog()
	}
	return a.permitted(id, wanted.Repository, wanted.Action) && !id.granted.repository(wanted.Repository, wanted.Action)
}

// Listed is true for a repository that the catalog shows. What a token grants there is the catalog as a whole.
func (a *Access) Listed(id Identity, repository string) bool {
	return id.granted.catalog() && a.permitted(id, repository, Pull)
}

// ListedWhole is true when permissions hide nothing of the catalog from an identity.
func (a *Access) ListedWhole(id Identity) bool {
	return len(a.permissions) == 0 || slices.ContainsFunc(a.permissions, func(p Permission) bool {
		return p.grants(id.Name, Pull) && slices.Contains(p.Repositories, "**")
	})
}

func (a *Access) permitted(id Identity, repository string, action Action) bool {
	if len(a.permissions) == 0 {
		return true
	}
	if action == Delete {
		action = Push
	}
	for _, p := range a.permissions {
		if p.allows(id.Name, repository, action) {
			return true
		}
	}
	return false
}

// grants says whether a permission is about an identity and an action.
func (p Permission) grants(name string, action Action) bool {
	// "*" means everybody, also those with a slash in their name.
	return (p.Identity == "*" || doublestar.MatchUnvalidated(p.Identity, name)) && slices.Contains(p.Actions, action)
}

func (p Permission) allows(name, repository string, action Action) bool {
	if !p.grants(name, action) {
		return false
	}
	for _, g := range p.Repositories {
		if doublestar.MatchUnvalidated(g, repository) {
			return true
		}
	}
	return false
}

// passthrough leaves it to upstream.
type passthrough struct{}

func (passthrough) authenticate(r *http.Request) (Identity, error) {
	return presented(r.Header.Get("Authorization")), nil
}
func (passthrough) challenge(Scope, bool) []string { return nil }

// basicChallenge asks for a user and a password. "sluice" and not the host: a client behind another name for the
// same proxy is in the same realm.
func basicChallenge() []string { return []string{`Basic realm="sluice"`} }

// hash separates its parts, so that ("ab", "c") and ("a", "bc") differ.
func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// canceled tells a request that went away from one that was refused.
func canceled(ctx context.Context) error {
	return fmt.Errorf("authentication: %w", context.Cause(ctx))
}
