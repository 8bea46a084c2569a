// Package access says who a request comes from and what they may do.
//
// There are three modes. With none everybody is "anonymous". With htpasswd a user
// proves a password by Basic authentication. With passthrough Sluice proves nothing:
// the client's credentials go to upstream, which judges them on every request, and
// what Sluice answers by itself it answers only to credentials that upstream has
// accepted for the same repository. That is the caller's duty, and it goes by all that
// the client presented. In that mode an Identity only tells clients apart.
package access

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// Mode is how clients are authenticated.
type Mode string

const (
	None        Mode = "none"
	Htpasswd    Mode = "htpasswd"
	Passthrough Mode = "passthrough"
)

// Action is what a request does to a repository. Deleting is a Push.
type Action string

const (
	Pull Action = "pull"
	Push Action = "push"
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
	Mode        Mode         // "" is None
	Htpasswd    string       // file, for Htpasswd
	Permissions []Permission // empty: everybody who is authenticated may do everything
}

// Identity is who a request comes from.
type Identity struct {
	// Name is for logs and permissions: the user name, "anonymous", or with
	// Passthrough the name in the credentials, which nobody has verified.
	Name string
	// Key is what an upload's URL is bound to: the same for one client while the
	// upload lasts, also when its token is renewed half-way. A hash, safe to store.
	// With Passthrough it is NOT proof of anything: it may come from the claims of a
	// token whose signature only upstream can check.
	Key string
}

const anonymous = "anonymous"

// ErrUnauthenticated means that the answer is 401 with Challenge. Any other error of
// Authenticate is trouble of Sluice's own (the htpasswd file cannot be read).
var ErrUnauthenticated = errors.New("authentication required")

// Access is safe for concurrent use.
type Access struct {
	mode        Mode
	permissions []Permission
	passwords   *passwords // Htpasswd only
}

// New reads the htpasswd file once, so that a bad one is an error at start.
func New(o Options) (*Access, error) {
	a := &Access{mode: o.Mode, permissions: o.Permissions}
	for _, p := range o.Permissions {
		for _, g := range append([]string{p.Identity}, p.Repositories...) {
			if !doublestar.ValidatePattern(g) {
				return nil, fmt.Errorf("permission for %q: %q is not a glob", p.Identity, g)
			}
		}
	}
	switch o.Mode {
	case "", None:
		a.mode = None
	case Passthrough:
	case Htpasswd:
		passwords, err := openPasswords(o.Htpasswd)
		if err != nil {
			return nil, err
		}
		a.passwords = passwords
	default:
		return nil, fmt.Errorf("access mode %q is not known: use none, htpasswd or passthrough", o.Mode)
	}
	return a, nil
}

// Authenticate finds out who a request comes from. With Passthrough it never fails.
func (a *Access) Authenticate(r *http.Request) (Identity, error) {
	switch a.mode {
	case Htpasswd:
		return a.htpasswd(r)
	case Passthrough:
		return presented(r.Header.Get("Authorization")), nil
	}
	return Identity{Name: anonymous, Key: anonymous}, nil
}

// Challenge is the WWW-Authenticate header of a 401. It is empty with Passthrough,
// where upstream's own goes to the client.
func (a *Access) Challenge() []string {
	if a.mode != Htpasswd {
		return nil
	}
	// "sluice" and not the host: a client behind another name for the same proxy is in the same realm.
	return []string{`Basic realm="sluice"`}
}

// Allowed is true when there are no permissions, or one of them allows the action.
// The repository is the name the client used.
func (a *Access) Allowed(id Identity, repository string, action Action) bool {
	if len(a.permissions) == 0 {
		return true
	}
	for _, p := range a.permissions {
		if p.allows(id.Name, repository, action) {
			return true
		}
	}
	return false
}

func (p Permission) allows(name, repository string, action Action) bool {
	// "*" means everybody, also those with a slash in their name.
	if p.Identity != "*" && !doublestar.MatchUnvalidated(p.Identity, name) {
		return false
	}
	granted := false
	for _, a := range p.Actions {
		granted = granted || a == action
	}
	if !granted {
		return false
	}
	for _, g := range p.Repositories {
		if doublestar.MatchUnvalidated(g, repository) {
			return true
		}
	}
	return false
}

func (a *Access) htpasswd(r *http.Request) (Identity, error) {
	username, password, ok := r.BasicAuth()
	if !ok {
		return Identity{}, ErrUnauthenticated
	}
	if err := a.passwords.verify(r.Context(), username, password); err != nil {
		return Identity{}, err
	}
	// Only the name, so that a password may be changed while a push runs.
	return Identity{Name: username, Key: hash("user", username)}, nil
}

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

func basic(value string) (username string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return "", false
	}
	username, _, ok = strings.Cut(string(b), ":")
	return username, ok
}
