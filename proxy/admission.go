package proxy

import (
	"errors"
	"net/http"

	"sluice/proxy/access"
	"sluice/proxy/observe"
)

// newAccess is who may use the proxy, out of the configuration.
func (p *Proxy) newAccess() (*access.Access, error) {
	c := p.cfg.Access
	o := access.Options{
		// Without insecure only loopback is listened on.
		Mode: access.Mode(c.Mode), Local: !c.Insecure, Htpasswd: c.Htpasswd, Token: access.TokenOptions(c.Token),
		MTLS: access.MTLSOptions{ClientCA: p.cfg.TLS.ClientCA, Identity: string(c.MTLS.Identity)}, Logger: p.log, Now: p.now,
	}
	for _, i := range c.OIDC {
		o.OIDC = append(o.OIDC, access.Issuer{Issuer: i.Issuer, Audience: i.Audience, CA: i.CA, JWKS: i.JWKS, Identity: i.Identity, Claims: i.Claims})
	}
	for _, perm := range c.Permissions {
		granted := access.Permission{Identity: perm.Identity, Repositories: perm.Repositories}
		for _, a := range perm.Actions {
			granted.Actions = append(granted.Actions, access.Action(a))
		}
		o.Permissions = append(o.Permissions, granted)
	}
	return access.New(o)
}

// admit is who asks, if they may have what they want.
func (p *Proxy) admit(r *http.Request, wanted access.Scope) (access.Identity, *Failure) {
	id, err := p.access.Authenticate(r)
	switch {
	case err == nil:
	case errors.Is(err, access.ErrUnauthenticated):
		p.observe.Refused(observe.Unauthenticated)
		f := refuse(http.StatusUnauthorized, codeUnauthorized, "authentication required for this registry: log in; if you have, the log of sluice says why that was not enough").because(err)
		f.Header = http.Header{"Www-Authenticate": p.access.Challenge(wanted, false)}
		p.log.Info("not authenticated", "method", r.Method, "remote", r.RemoteAddr, "repository", wanted.Repository, "reason", err)
		return id, f
	case errors.Is(err, access.ErrDenied):
		p.observe.Refused(observe.Denied)
		p.log.Info("denied", "method", r.Method, "remote", r.RemoteAddr, "repository", wanted.Repository, "reason", err)
		return id, refuse(http.StatusForbidden, codeDenied, "%v", err)
	default:
		p.observe.Refused(observe.Unavailable)
		p.log.Error("clients cannot be authenticated", "reason", err)
		return id, transient(err, "sluice cannot check credentials now, see its log")
	}
	switch {
	case wanted == (access.Scope{}):
	case p.access.Insufficient(id, wanted):
		p.observe.Refused(observe.Unauthenticated)
		f := refuse(http.StatusUnauthorized, codeUnauthorized, "the token of %s is not for this: ask the token service for one that is", id.Name)
		p.log.Debug("token is for something else", "method", r.Method, "remote", r.RemoteAddr, "identity", id.Name, "repository", wanted.Repository)
		f.Header = http.Header{"Www-Authenticate": p.access.Challenge(wanted, true)}
		return id, f
	case !wanted.Catalog && !p.access.Allowed(id, wanted.Repository, wanted.Action):
		p.observe.Refused(observe.Denied)
		f := refuse(http.StatusForbidden, codeDenied, "%s may not %s repository %s: see access.permissions", id.Name, permission(wanted.Action), wanted.Repository)
		p.log.Info("denied", "method", r.Method, "remote", r.RemoteAddr, "repository", wanted.Repository, "reason", f.Message)
		return id, f
	}
	return id, nil
}

// permission is the word for an action in access.permissions.
func permission(a access.Action) string {
	if a == access.Delete {
		a = access.Push
	}
	return string(a)
}
