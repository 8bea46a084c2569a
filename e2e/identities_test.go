//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

// Real clients sign in with an ID token as a password, and with what a token service gives them for one, push, and get no
// further than their permissions.
func TestClientsSignInWithTokens(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
	clean := proxytest.Synthetic(proxytest.SyntheticOptions{})
	// crane asks no token service at another private address than the registry's (go-containerregistry, transport/bearer.go).
	leaveOut := map[string]string{"token": "crane"}
	for _, mode := range tokenModes(t) {
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
				if without := leaveOut[mode.name]; c.rewrites || without != "" && strings.Contains(c.name, without) || c.name == "imagetools create" {
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
