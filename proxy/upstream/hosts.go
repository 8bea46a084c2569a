package upstream

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// realms are token services on another host than their registry, which everybody knows. Any other
// is believed only when it is listed in Options.Hosts: whoever answers for the registry could
// otherwise have the password sent to a host of his own.
var realms = map[string]string{
	"registry-1.docker.io": "auth.docker.io",
	"index.docker.io":      "auth.docker.io",
	"registry.gitlab.com":  "gitlab.com",
	"ecr-public.aws.com":   "public.ecr.aws", // dual stack
}

// dockerHub are names for the registry that listens on registry-1.docker.io only.
var dockerHub = map[string]bool{"docker.io": true, "index.docker.io": true, "www.docker.io": true}

// parseURL is the base of all requests of a registry.
func parseURL(raw string) (*url.URL, error) {
	if !strings.Contains(raw, "://") {
		return nil, fmt.Errorf("upstream url %q: say http:// or https:// in front of the host", printable(raw))
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("upstream url is not a URL; write it like https://registry.example.com") // err holds the text, perhaps with a password
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("upstream url %s: scheme is %q; use http or https", u.Redacted(), u.Scheme)
	case u.User != nil:
		return nil, fmt.Errorf("upstream url of %s: has a user in it; use `credentials: basic` with `username` and a password from the environment or a file", u.Host)
	case u.Hostname() == "":
		return nil, fmt.Errorf("upstream url %s: has no host", u.Redacted())
	case u.Path != "" && u.Path != "/" && u.Path != "/v2" && u.Path != "/v2/":
		return nil, fmt.Errorf("upstream url %s: has a path; a registry's API is at /v2/ of its host, and names in it belong to the repository", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("upstream url of %s: has a query or a fragment", u.Host)
	}
	host := strings.ToLower(u.Host)
	if dockerHub[host] {
		host = "registry-1.docker.io"
	}
	return &url.URL{Scheme: u.Scheme, Host: host}, nil
}

// printable keeps what might be user:password@host out of an error.
func printable(raw string) string {
	if i := strings.LastIndexByte(raw, '@'); i >= 0 {
		return "<hidden>" + raw[i:]
	}
	return raw
}

// port of a URL, the scheme's own when none is written.
func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	if u.Scheme == "https" {
		return "443"
	}
	return "80"
}

func sameHost(a, b *url.URL) bool { return sameName(a.Hostname(), b.Hostname()) }

// sameName compares two hosts as DNS does: only ASCII letters have a case (RFC 4343), where Unicode folds a long s into an s.
func sameName(a, b string) bool {
	return a == b || strings.EqualFold(a, b) && isASCII(a) && isASCII(b)
}

func isASCII(s string) bool { return strings.IndexFunc(s, func(c rune) bool { return c >= 0x80 }) < 0 }

// origin is true for a URL that is the registry itself. A registry behind a TLS terminator that does
// not know about it names itself http://host/: that is the registry too, and is asked over https.
func (r *Registry) origin(u *url.URL) bool {
	if !sameHost(u, r.base) {
		return false
	}
	return port(u) == port(r.base) || u.Port() == "" && port(r.base) == "443"
}

// listed is true for a host that the operator named: "host" for any port, or "host:port".
func (r *Registry) listed(u *url.URL) bool {
	for _, h := range r.hosts {
		if sameName(h, u.Hostname()) || sameName(h, net.JoinHostPort(u.Hostname(), port(u))) || sameName(h, u.Host) {
			return true
		}
	}
	return false
}

func loopback(u *url.URL) bool {
	if sameName(u.Hostname(), "localhost") {
		return true
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}

// realm is the token service that a challenge names, if it may be used.
func (r *Registry) realm(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, errorf(ErrHost, nil, "upstream %s: names a token service that is not an http or https URL; this registry cannot be used with credentials", r.base.Host)
	}
	if !sameHost(u, r.base) && !sameName(realms[r.base.Hostname()], u.Hostname()) && !r.listed(u) {
		return nil, errorf(ErrHost, nil, "upstream %s: names %s as its token service, which is another host; if that is right, add %s to the upstream's `hosts`", r.base.Host, u.Host, u.Host)
	}
	if r.base.Scheme == "https" && u.Scheme != "https" && !loopback(u) {
		return nil, errorf(ErrHost, nil, "upstream %s: names a token service at http://%s: credentials are not sent over plain http for an https registry; have the registry's token realm corrected", r.base.Host, u.Host)
	}
	return u, nil
}

// session resolves the URL of an upload session and checks its host. A session on the registry's
// own host is always asked with the registry's scheme and port.
func (r *Registry) session(base *url.URL, raw string) (u *url.URL, own bool, err error) {
	ref, err := url.Parse(raw)
	if err != nil || raw == "" {
		return nil, false, errorf(ErrHost, nil, "upstream %s: gave an upload Location that is not a URL", r.base.Host)
	}
	u = ref
	if ref.Scheme == "" || ref.Opaque != "" || strings.Contains(ref.Path, "/.") || ref.Path == "" {
		u = base.ResolveReference(ref)
	}
	u.Fragment, u.RawFragment = "", ""
	switch {
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		return nil, false, errorf(ErrHost, nil, "upstream %s: gave an upload Location that is not an http or https URL", r.base.Host)
	case r.origin(u):
		u.Scheme, u.Host = r.base.Scheme, r.base.Host
		return u, true, nil
	case !r.listed(u):
		return nil, false, errorf(ErrHost, nil, "upstream %s: wants the upload sent to %s, which is another host; if that is right, add %s to the upstream's `hosts`", r.base.Host, u.Host, u.Host)
	case r.base.Scheme == "https" && u.Scheme != "https":
		return nil, false, errorf(ErrHost, nil, "upstream %s: wants the upload sent to http://%s: plain http is not used for an https registry", r.base.Host, u.Host)
	}
	return u, false, nil
}

// Location is the absolute URL of the upload session that resp opened or moved. Another host than
// the registry's must be listed in Options.Hosts.
func (r *Registry) Location(resp *http.Response) (string, error) {
	raw := resp.Header.Get("Location")
	if raw == "" {
		return "", errorf(ErrHost, nil, "upstream %s: answered an upload request without a Location", r.base.Host)
	}
	base := r.base
	if resp.Request != nil && resp.Request.URL != nil {
		base = resp.Request.URL
	}
	u, _, err := r.session(base, raw)
	if err != nil {
		return "", err
	}
	return u.String(), nil
}

// checkHost refuses what would never match in Options.Hosts.
func checkHost(h string) error {
	u, err := url.Parse("https://" + h)
	if err != nil || u.Host != h || u.Hostname() == "" {
		return fmt.Errorf("upstream hosts: %q is no host; write it like auth.example.com or auth.example.com:5001", printable(h))
	}
	return nil
}
