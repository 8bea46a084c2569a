//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

// Real clients sign in with an ID token as a password, and with what a token service gives them for one, push, and get no
// further than their permissions.
func TestClientsSignInWithTokens(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	service := proxytest.NewTokenService(t, map[string]string{"alice": "alice-secret"}, func(user, _, name, _ string) bool {
		return strings.HasPrefix(name, user+"/")
	})
	keys := filepath.Join(scratch(t), "keys.json")
	if err := os.WriteFile(keys, service.JWKS(), 0o600); err != nil {
		t.Fatal(err)
	}
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
	clean := proxytest.Synthetic(proxytest.SyntheticOptions{})
	for _, mode := range []struct {
		name, settings string
		login, bad     login
		leaveOut       string // a client that cannot
	}{
		{
			"oidc", fmt.Sprintf("access:\n  mode: oidc\n  oidc: [{issuer: %q, audience: sluice, claims: {org: acme}}]\n  permissions: [{identity: alice, repositories: [\"alice/**\"], actions: [pull, push]}]\n", issuer.URL),
			login{"oidc", issuer.Token(map[string]any{"aud": "sluice", "sub": "alice", "org": "acme"})},
			login{"oidc", issuer.Token(map[string]any{"aud": "sluice", "sub": "alice", "org": "evil"})},
			"",
		},
		// crane asks no token service at another private address than the registry's (go-containerregistry, transport/bearer.go).
		{
			"token", fmt.Sprintf("access:\n  mode: token\n  token: {realm: %q, service: %q, issuer: %q, jwks: %q}\n", service.Realm, service.Service, service.Name, keys),
			login{"alice", "alice-secret"},
			login{"alice", "wrong"},
			"crane",
		},
	} {
		t.Run(mode.name, func(t *testing.T) {
			w := newWorld(t, mode.settings)
			w.needSluice(t)
			for repository, source := range map[string]*proxytest.Tree{"source": tree, "reference": clean} {
				o := proxytest.Options{BaseURL: "http://" + w.direct, Repository: repository, Tags: []string{"1"}, Tree: source}
				if _, err := proxytest.BuildKit(t.Context(), o); err != nil {
					t.Fatal(err)
				}
			}
			from := w.direct + "/source:1"
			oras := []string{tool(t, "oras"), "cp", "--from-plain-http", "--to-plain-http", from}
			mustFail(t, append(oras, w.via+"/alice/app:1")...)
			bench.logIn(t, w.via, mode.bad)
			mustFail(t, append(oras, w.via+"/alice/app:1")...)
			bench.logIn(t, w.via, mode.login)
			mustFail(t, append(oras, w.via+"/bob/app:1")...)
			for i, c := range copiers() {
				if c.rewrites || mode.leaveOut != "" && strings.Contains(c.name, mode.leaveOut) || c.name == "imagetools create" {
					continue
				}
				t.Run(c.name, func(t *testing.T) {
					for _, need := range c.needs {
						tool(t, need)
					}
					repository := fmt.Sprintf("alice/app-%d", i)
					c.copy(t, from, w.via+"/"+repository+":1")
					w.sameTags(t, repository, "reference")
				})
			}
		})
	}
}
