package config

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
)

// CheckFiles is the rest of what can be known before the proxy starts: the files
// that the configuration names can be read, and credentials: basic is complete (its
// user name and password may come from the environment, which check-config does not
// have).
func (c *Config) CheckFiles() error {
	var found Mistakes
	add := func(key, format string, args ...any) {
		found = append(found, c.source.mistake(key, fmt.Sprintf(format, args...)))
	}
	file := func(key, path string) {
		if path == "" {
			return
		}
		f, err := os.Open(path)
		if err == nil {
			var info os.FileInfo
			if info, err = f.Stat(); err == nil && info.IsDir() {
				err = fmt.Errorf("%s is a folder", path)
			}
			f.Close()
		}
		if err != nil {
			add(key, "%v; name a file that this user can read", err)
		}
	}
	authorities := func(key, path string) {
		if b, err := os.ReadFile(path); err != nil {
			file(key, path)
		} else if !x509.NewCertPool().AppendCertsFromPEM(b) {
			add(key, "%s holds no PEM certificate; name a file with -----BEGIN CERTIFICATE-----", path)
		}
	}
	file("tls.certificate", c.TLS.Certificate)
	file("tls.key", c.TLS.Key)
	authorities("tls.client_ca", c.TLS.ClientCA)
	file("access.htpasswd", c.Access.Htpasswd)
	file("access.token.rootcertbundle", c.Access.Token.RootCertBundle)
	file("access.token.jwks", c.Access.Token.JWKS)
	for i, o := range c.Access.OIDC {
		at := fmt.Sprintf("access.oidc[%d]", i)
		authorities(at+".ca", o.CA)
		if !strings.Contains(o.JWKS, "://") {
			file(at+".jwks", o.JWKS)
		}
	}
	for i, u := range c.Upstreams {
		at := fmt.Sprintf("upstreams[%d]", i)
		authorities(at+".ca", u.CA)
		file(at+".password_file", u.PasswordFile)
		for _, p := range u.CreateRepositories.policies() {
			if p.file == "" {
				continue
			}
			if text, err := p.read(); err != nil {
				add(at+".create_repositories."+p.key+"_file", "%v; name a file with a policy that this user can read", err)
			} else if err := p.check(text); err != nil {
				add(at+".create_repositories."+p.key+"_file", "%s %v", p.file, err)
			}
		}
		if c.CredentialsOf(u) != CredentialsBasic {
			continue
		}
		if u.Username == "" {
			add(at+".username", "is missing for credentials: basic; set it, or SLUICE_UPSTREAM_USERNAME")
		}
		if cmp.Or(u.PasswordFile, u.Password.Reveal()) == "" {
			add(at+".password_file", "is missing for credentials: basic; set it, or SLUICE_UPSTREAM_PASSWORD or SLUICE_UPSTREAM_PASSWORD_FILE")
		}
	}
	return found.err()
}
