package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

func (v *validator) tokenService() {
	t := v.Access.Token
	if v.Access.Mode != AccessToken {
		if t != (TokenService{}) {
			v.add("access.token", "is not used with %s: %s; set access.mode: token, or take it out", v.source.where("access.mode"), v.Access.Mode)
		}
		return
	}
	if v.webAddress("access.token.realm", t.Realm, "the address where clients fetch tokens, such as https://auth.example.com/token") && strings.ContainsAny(t.Realm, "\"\\") {
		v.add("access.token.realm", "holds a quote or a backslash, which cannot stand in a challenge; write them as %%22 and %%5C")
	}
	for _, s := range []struct{ key, value, what string }{
		{"service", t.Service, "the name of this registry at the token service, which is the audience of its tokens"},
		{"issuer", t.Issuer, "what the token service writes into its tokens as iss"},
	} {
		if s.value == "" {
			v.add("access.token."+s.key, "is missing for access.mode: token; write %s", s.what)
		}
	}
	if t.RootCertBundle == "" && t.JWKS == "" {
		v.add("access.token", "has no keys to check tokens with; set rootcertbundle (certificates) or jwks (a JSON Web Key Set), files of the token service")
	}
}

var placeholder = regexp.MustCompile(`\{([^{}]+)\}`)

func (v *validator) issuers() {
	if v.Access.Mode != AccessOIDC {
		if len(v.Access.OIDC) > 0 {
			v.add("access.oidc", "is not used with %s: %s; set access.mode: oidc, or take it out", v.source.where("access.mode"), v.Access.Mode)
		}
		return
	}
	if len(v.Access.OIDC) == 0 {
		v.add("access.mode", "oidc needs somebody who gives tokens; set access.oidc, such as [{issuer: https://token.actions.githubusercontent.com, audience: sluice, claims: {repository_owner: acme}}]")
	}
	for i, o := range v.Access.OIDC {
		at := fmt.Sprintf("access.oidc[%d]", i)
		if v.webAddress(at+".issuer", o.Issuer, "the iss of its tokens, such as https://token.actions.githubusercontent.com") {
			v.overTLS(at+".issuer", o.Issuer, o.JWKS != "")
		}
		if o.Audience == "" {
			v.add(at+".audience", "is missing; name what tokens for Sluice are asked for with, such as sluice.example.com: without it a token for any other service would do")
		}
		if len(o.Claims) == 0 {
			v.add(at+".claims", "is missing; say whose tokens count, such as {repository_owner: acme}: an issuer such as GitHub gives tokens to everybody ({sub: \"**\"} trusts all of them)")
		}
		for _, name := range sortedKeys(o.Claims) {
			if o.Claims[name] == "" {
				v.add(at+".claims."+name, "is empty, which no token has; write a glob")
			} else {
				v.glob(at+".claims."+name, o.Claims[name], false)
			}
		}
		if rest := placeholder.ReplaceAllString(o.Identity, ""); rest == o.Identity || strings.ContainsAny(rest, "{}") {
			v.add(at+".identity", "%q names no claim of the token, so that all clients would be one; write {sub}, or text such as repo:{repository}", o.Identity)
		}
		if strings.Contains(o.JWKS, "://") && v.webAddress(at+".jwks", o.JWKS, "a file, or the address of a JSON Web Key Set") {
			v.overTLS(at+".jwks", o.JWKS, false)
		}
		if o.CA != "" && o.JWKS != "" && !strings.Contains(o.JWKS, "://") {
			v.add(at+".ca", "is for fetching keys, and %s is a file; take one of them out", v.source.where(at+".jwks"))
		}
		if j := slices.IndexFunc(v.Access.OIDC, func(other OIDCIssuer) bool { return same(o, other) }); j < i {
			v.add(at, "is the same as access.oidc[%d]; take one of them out", j)
		}
	}
}

func same(a, b OIDCIssuer) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// webAddress never repeats an address that may hold a password.
func (v *validator) webAddress(key, raw, what string) bool {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		v.add(key, "is missing; write %s", what)
	case strings.Contains(raw, "@"):
		v.add(key, "holds a user or password; write %s", what)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Fragment != "" || !goodPort(u.Port()):
		v.add(key, "%q is not an address; write %s", raw, what)
	default:
		return true
	}
	return false
}

// overTLS refuses keys that anybody on the way could replace by their own.
func (v *validator) overTLS(key, raw string, notFetched bool) {
	if u, err := url.Parse(raw); err == nil && u.Scheme == "http" && !notFetched && !loopback(u.Hostname()) {
		v.add(key, "is plain http, so that whoever is in between could let themselves in; write an https address, or name a file with jwks")
	}
}

func (v *validator) clientCertificates() {
	enum(v, "access.mtls.identity", v.Access.MTLS.Identity, []CertificateIdentity{IdentityCommonName, IdentityDNS, IdentityURI})
	if v.Access.Mode == AccessMTLS && v.TLS.ClientCA == "" {
		v.add("access.mode", "mtls takes identities from client certificates; set tls.client_ca to the authorities that sign them")
	}
	if _, set := v.source.keys["access.mtls.identity"]; set && v.Access.Mode != AccessMTLS && v.Access.MTLS.Identity != IdentityCommonName {
		v.add("access.mtls.identity", "is not used with %s: %s; set access.mode: mtls, or take it out", v.source.where("access.mode"), v.Access.Mode)
	}
}
