//go:build e2e

package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

type login struct{ user, password string }

func (l login) basic() string {
	return base64.StdEncoding.EncodeToString([]byte(l.user + ":" + l.password))
}

func (b *workbench) login(host string) (login, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l, known := b.logins[host]
	return l, known
}

// logIn is `docker login`, for every client at once: all read Docker's configuration.
func (b *workbench) logIn(t testing.TB, host string, l login) {
	t.Helper()
	b.mu.Lock()
	b.logins[host] = l
	b.mu.Unlock()
	if err := b.saveLogins(); err != nil {
		t.Fatal(err)
	}
}

func (b *workbench) saveLogins() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	auths := map[string]map[string]string{}
	for host, l := range b.logins {
		auths[host] = map[string]string{"auth": l.basic()}
	}
	content, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.dir, "docker-config", "config.json"), content, 0o600)
}

func htpasswd(t testing.TB, logins ...login) string {
	t.Helper()
	path := filepath.Join(scratch(t), "htpasswd")
	var lines []byte
	for _, l := range logins {
		hash, err := bcrypt.GenerateFromPassword([]byte(l.password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		lines = fmt.Appendf(lines, "%s:%s\n", l.user, hash)
	}
	if err := os.WriteFile(path, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every client signs in, and none gets anywhere without.
func TestEveryClientPushesWithCredentials(t *testing.T) {
	alice, robot := login{"alice", "alice-secret"}, login{"robot", "robot-secret"}
	for _, c := range []struct {
		name  string
		world func(t testing.TB) *world
		// direct is who asks upstream itself for the reference.
		direct login
	}{
		{"the client's own, passed through", func(t testing.TB) *world {
			return newWorldWith(t, "auth: {htpasswd: {realm: upstream, path: "+htpasswd(t, alice)+"}}\n", "credentials: passthrough", "access: {mode: passthrough}")
		}, alice},
		{"users of Sluice's, and a robot upstream", func(t testing.TB) *world {
			return newWorldWith(t, "auth: {htpasswd: {realm: upstream, path: "+htpasswd(t, robot)+"}}\n", "credentials: basic\n    username: robot",
				"access: {mode: htpasswd, htpasswd: "+htpasswd(t, alice)+"}")
		}, robot},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, w := needImages(t), c.world(t)
			from, clean := m.attested["artifact"], m.clean["artifact"]
			crane := tool(t, "crane")
			mustFail(t, crane, "copy", "--insecure", from, w.via+"/nobody:1")
			mustFail(t, crane, "manifest", "--insecure", w.via+"/nobody:1")
			bench.logIn(t, w.via, login{"alice", "wrong"})
			mustFail(t, crane, "copy", "--insecure", from, w.via+"/nobody:1")
			bench.logIn(t, w.via, alice)
			bench.logIn(t, w.direct, c.direct)

			for i, p := range copiers() {
				t.Run(p.name, func(t *testing.T) {
					for _, need := range p.needs {
						tool(t, need)
					}
					repository := fmt.Sprintf("app-%d", i)
					p.copy(t, clean, w.direct+"/"+repository+"-reference:1")
					p.copy(t, from, w.via+"/"+repository+":1")
					w.same(t, repository, repository+"-reference")
				})
			}
			for _, form := range forms {
				t.Run("BuildKit "+form.name, func(t *testing.T) {
					k, dir, repository := needBuilder(t, form.builder), newApplication(t, 70), "built-"+form.name
					k.mustBuild(t, dir, bothPlatforms, push(w.via+"/"+repository+":1")...)
					k.mustBuild(t, dir, bothPlatforms, withoutAttestations(w.direct+"/"+repository+"-reference:1")...)
					w.same(t, repository, repository+"-reference")
				})
			}
			for name, get := range map[string]func() (*engine, error){"classic": bench.classic, "modern": bench.modern} {
				t.Run("Docker "+name, func(t *testing.T) {
					e, ref := shared(t, get), w.via+"/built-artifact:1"
					if !w.through() {
						t.Skip("SLUICE_E2E_DIRECT leaves Sluice out: no image was pushed through it that could be pulled")
					}
					e.run(t, "pull", ref)
					e.run(t, "tag", ref, w.via+"/docker-"+name+":1")
					e.run(t, "push", w.via+"/docker-"+name+":1")
					e.run(t, "image", "rm", "--force", ref, w.via+"/docker-"+name+":1")
					e.run(t, "pull", w.via+"/docker-"+name+":1")
				})
			}
		})
	}
}
