package config

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/awslabs/amazon-ecr-credential-helper/ecr-login/api"
)

// prefixGrammar is the distribution spec's for repository names.
var prefixGrammar = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)

func (v *validator) upstreams() {
	if len(v.Upstreams) == 0 {
		v.add("upstreams", "is empty; name at least one registry, or take the key out for the embedded one")
	}
	prefixes, embedded := map[string]int{}, -1
	for i, u := range v.Upstreams {
		at := fmt.Sprintf("upstreams[%d]", i)
		if u.Prefix != "" && !prefixGrammar.MatchString(u.Prefix) {
			v.add(at+".prefix", "%q cannot begin a repository's name; write lower-case path components without a slash at either end, such as team or team/ci", u.Prefix)
		}
		if j, twice := prefixes[u.Prefix]; twice {
			v.add(at+".prefix", "%q is also the prefix of upstreams[%d] (line %d); give each upstream its own",
				u.Prefix, j, v.source.at(fmt.Sprintf("upstreams[%d]", j)).line)
		} else {
			prefixes[u.Prefix] = i
		}
		if u.URL == Embedded {
			if embedded >= 0 {
				v.add(at+".url", "the embedded registry is one registry, and upstreams[%d] names it already; give it one prefix", embedded)
			}
			embedded = i
		} else {
			v.upstreamURL(at+".url", u.URL)
		}
		v.oneRegistryForPassthrough(i)
		v.credentials(at, u)
		enum(v, at+".redirects", u.Redirects, []Redirects{RedirectsPass, RedirectsFollow})
		for j, h := range u.Hosts {
			v.upstreamHost(fmt.Sprintf("%s.hosts[%d]", at, j), h)
		}
		if u.URL == Embedded {
			v.embeddedNeedsNothing(at, u)
		}
		if u.CA != "" && strings.HasPrefix(u.URL, "http://") {
			v.add(at+".ca", "is for https, and %s is plain http; change one of them", v.source.where(at+".url"))
		}
		v.createRepositories(at, u)
		v.rates(at, u)
	}
}

// upstreamURL never repeats a URL with a password in it.
func (v *validator) upstreamURL(key, raw string) {
	const form = "write https://host or http://host:port, or embedded"
	if raw == "" {
		v.add(key, "is missing; %s", form)
		return
	}
	u, err := url.Parse(raw)
	switch {
	case strings.Contains(raw, "@"):
		v.add(key, "holds a user or password, which would end up in logs; %s, and set username and password_file (or SLUICE_UPSTREAM_USERNAME and _PASSWORD)", form)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Hostname() == "":
		v.add(key, "%q is not the address of a registry; %s", raw, form)
	case !goodPort(u.Port()):
		v.add(key, "%q has no port between 1 and 65535; %s", raw, form)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		shown, _, _ := strings.Cut(raw, "?") // a query may be a token
		v.add(key, "%q has more than a host; a registry's API is at the root of its host, so %s (repositories keep their full names)", shown, form)
	case v.isListen(u):
		v.add(key, "%q is Sluice itself (%s); every request would come back to it. Name the registry behind it", raw, v.source.where("listen"))
	}
}

func goodPort(port string) bool {
	n, err := strconv.Atoi(port)
	return port == "" || err == nil && n > 0 && n < 65536
}

// isListen sees the loops that can be seen without asking DNS.
func (v *validator) isListen(u *url.URL) bool {
	host, port, err := net.SplitHostPort(v.Listen)
	if err != nil {
		return false
	}
	if port != portOf(u) {
		return false
	}
	name := u.Hostname()
	return host == name || loopback(name) && everywhere(host) || (name == "localhost" || host == "localhost") && loopback(name) && loopback(host)
}

// oneRegistryForPassthrough refuses several registries behind passthrough. A client has one set
// of credentials for Sluice's host, and whichever registry (or token realm of it) challenges the
// client gets them: nothing tells the client which of them it is talking to. Two prefixes may
// lead to the same registry.
func (v *validator) oneRegistryForPassthrough(i int) {
	if v.Access.Mode != AccessPassthrough || registryOf(v.Upstreams[i].URL) == "" {
		return
	}
	for j, other := range v.Upstreams[:i] {
		if first := registryOf(other.URL); first == "" || first == registryOf(v.Upstreams[i].URL) {
			continue
		}
		v.add(fmt.Sprintf("upstreams[%d].url", i), "is another registry than %s, and with %s: passthrough both get the one password that a client has for Sluice's host: "+
			"whoever runs one could use it at the other; run a Sluice for each registry, or choose access.mode: htpasswd",
			v.source.where(fmt.Sprintf("upstreams[%d].url", j)), v.source.where("access.mode"))
		return
	}
}

// registryOf is a URL's scheme, host and port, to compare; "" for the embedded registry and for
// what is no URL.
func registryOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), portOf(u))
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

func (v *validator) upstreamHost(key, host string) {
	name, port := host, ""
	if h, p, err := net.SplitHostPort(host); err == nil {
		name, port = h, p
	}
	if name == "" || !goodPort(port) || strings.ContainsAny(name, "/@*? ") || strings.Contains(host, "://") {
		shown := strconv.Quote(host)
		if strings.Contains(host, "@") {
			shown = "this" // it may hold a password
		}
		v.add(key, "%s is not a host; write its name as it appears in URLs, such as auth.example.com or auth.example.com:8443, without scheme or path", shown)
	}
}

func (v *validator) credentials(at string, u Upstream) {
	key := at + ".credentials"
	modes := []Credentials{CredentialsAuto, CredentialsDocker, CredentialsBasic, CredentialsPassthrough, CredentialsAnonymous, CredentialsECR}
	if !enum(v, key, u.Credentials, modes) {
		return
	}
	mode, accessMode := u.Credentials, v.source.where("access.mode")
	switch through := v.Access.Mode == AccessPassthrough; {
	case through && u.URL == Embedded:
		v.add("access.mode", "passthrough leaves it to upstream to check who somebody is, and the embedded registry (%s) lets everybody in; choose access.mode: htpasswd",
			v.source.where(at+".url"))
	case through && mode != CredentialsPassthrough && mode != CredentialsAuto:
		v.add(key, "%s would let every client act with Sluice's own rights, because %s: passthrough checks nobody; set credentials: passthrough, or another access.mode", mode, accessMode)
	case mode == CredentialsPassthrough && v.Access.Mode == AccessHtpasswd:
		v.add(key, "passthrough would send the passwords of %s: htpasswd to upstream; set access.mode: passthrough, or give this upstream credentials of its own", accessMode)
	case mode == CredentialsPassthrough && (v.Access.Mode == AccessToken || v.Access.Mode == AccessOIDC):
		v.add(key, "passthrough would send the tokens of %s: %s to upstream; set access.mode: passthrough, or give this upstream credentials of its own", accessMode, v.Access.Mode)
	case mode == CredentialsPassthrough && v.Access.Mode == AccessMTLS:
		v.add(key, "passthrough needs access.mode: passthrough, and %s is mtls, whose certificates end at Sluice; give this upstream credentials of its own", accessMode)
	case mode == CredentialsPassthrough && v.Access.Mode == AccessNone:
		v.add(key, "passthrough needs access.mode: passthrough, and %s is none: clients would share what only some of them may read", accessMode)
	}
	if u.URL == Embedded {
		return // embeddedNeedsNothing says it better
	}
	own := mode == CredentialsBasic || mode == CredentialsAuto && v.Access.Mode != AccessPassthrough
	for _, s := range []struct {
		key string
		set bool
	}{{"username", u.Username != ""}, {"password_file", u.PasswordFile != ""}, {"password", u.Password != ""}} {
		if s.set && !own {
			v.add(at+"."+s.key, "is not used with credentials: %s; set credentials: basic, or take it out", v.CredentialsOf(u))
		}
	}
	hasPassword := u.PasswordFile != "" || u.Password != ""
	if own && hasPassword && u.Username == "" && mode == CredentialsAuto {
		v.add(at+".username", "is missing beside a password; set it, or SLUICE_UPSTREAM_USERNAME")
	}
	if u.PasswordFile != "" && u.Password != "" {
		v.add(at+".password_file", "and SLUICE_UPSTREAM_PASSWORD are both set; keep one of them")
	}
	if strings.Contains(u.Username, ":") {
		v.add(at+".username", "holds a colon, which ends a user name in Basic authentication (RFC 7617); take it out")
	}
}

func (v *validator) embeddedNeedsNothing(at string, u Upstream) {
	for _, s := range []struct {
		key string
		set bool
	}{
		{"username", u.Username != ""},
		{"password_file", u.PasswordFile != ""},
		{"password", u.Password != ""},
		{"ca", u.CA != ""},
		{"hosts", len(u.Hosts) > 0},
		{"credentials", slices.Contains([]Credentials{CredentialsDocker, CredentialsBasic, CredentialsECR}, u.Credentials)},
	} {
		if s.set {
			v.add(at+"."+s.key, "is for a registry behind the proxy, and %s is embedded; take it out, or name a registry", v.source.where(at+".url"))
		}
	}
}

// CredentialsOf is what `auto` means for an upstream: the client's own with access
// passthrough, basic when there is a user name, nothing for the embedded registry,
// AWS's own for Amazon ECR, and otherwise the Docker configuration.
func (c *Config) CredentialsOf(u Upstream) Credentials {
	switch {
	case u.Credentials != CredentialsAuto:
		return u.Credentials
	case u.URL == Embedded:
		return CredentialsAnonymous
	case c.Access.Mode == AccessPassthrough:
		return CredentialsPassthrough
	case u.Username != "":
		return CredentialsBasic
	case amazonECR(u.URL):
		return CredentialsECR
	}
	return CredentialsDocker
}

func amazonECR(raw string) bool {
	u, err := url.Parse(raw)
	if err != nil {
		return false
	}
	_, err = api.ExtractRegistry(strings.ToLower(u.Hostname()))
	return err == nil
}
