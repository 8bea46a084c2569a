//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

// A tokenMode is a way to sign in with tokens.
type tokenMode struct {
	name     string
	settings string
	login    login // alice, who may push below alice/
	bad      login
}

// tokenModes starts an issuer of ID tokens and a token service.
func tokenModes(t *testing.T) []tokenMode {
	t.Helper()
	issuer := proxytest.NewIssuer(t, nil)
	service := proxytest.NewTokenService(t, map[string]string{"alice": "alice-secret"}, func(user, _, name, _ string) bool {
		return strings.HasPrefix(name, user+"/")
	})
	keys := filepath.Join(scratch(t), "keys.json")
	if err := os.WriteFile(keys, service.JWKS(), 0o600); err != nil {
		t.Fatal(err)
	}
	return []tokenMode{
		{
			"oidc",
			fmt.Sprintf("access:\n  mode: oidc\n  oidc: [{issuer: %q, audience: sluice, claims: {org: acme}}]\n  permissions: [{identity: alice, repositories: [\"alice/**\"], actions: [pull, push]}]\n", issuer.URL),
			login{"oidc", issuer.Token(map[string]any{"aud": "sluice", "sub": "alice", "org": "acme"})},
			login{"oidc", issuer.Token(map[string]any{"aud": "sluice", "sub": "alice", "org": "evil"})},
		},
		{
			"token",
			fmt.Sprintf("access:\n  mode: token\n  token: {realm: %q, service: %q, issuer: %q, jwks: %q}\n", service.Realm, service.Service, service.Name, keys),
			login{"alice", "alice-secret"},
			login{"alice", "wrong"},
		},
	}
}

var pushedLine = regexp.MustCompile(`(?m)^.* msg=pushed .*$`)

// pushedBy asserts that the log, whichever process wrote it, has one push of a tag to a repository, and who made it.
func (s *sluice) pushedBy(t testing.TB, repository, identity string) {
	t.Helper()
	var lines []string
	for _, r := range s.replicas {
		b, err := os.ReadFile(r.proc.log)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range pushedLine.FindAllString(string(b), -1) {
			if strings.Contains(line, " repository="+repository+" ") {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) != 1 || !strings.Contains(lines[0]+" ", " identity="+identity+" ") {
		t.Errorf("the log has not one push to %s by %s, but %q", repository, identity, lines)
	}
}

// What clients make of a refusal, in their last line.
const (
	saysNobody  = `(?i)no basic auth credentials|unauthorized|wrong user or password`
	saysWrong   = `(?i)unauthorized|wrong user or password`
	saysNotHere = `(?i)denied|403|insufficient_scope`
)

// saysWhy asserts that what a client shows of a refusal ends with what is wrong.
func saysWhy(t testing.TB, shown, why string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(shown), "\n")
	if last := lines[len(lines)-1]; !regexp.MustCompile(why).MatchString(last) {
		t.Errorf("the client does not say %s in the end, but: %s", why, last)
	}
}

// A dockerUser is Docker's client with a configuration of its own, in which `docker login` keeps what it was told.
type dockerUser struct {
	*engine
	env []string
}

func (e *engine) user(t testing.TB) *dockerUser {
	t.Helper()
	return &dockerUser{e, []string{"DOCKER_CONFIG=" + scratch(t)}}
}

func (u *dockerUser) try(args ...string) (string, error) {
	return tryRunIn("", u.env, append([]string{u.docker, "--host", u.host}, args...)...)
}

func (u *dockerUser) must(t testing.TB, args ...string) {
	t.Helper()
	if _, err := u.try(args...); err != nil {
		t.Fatal(err)
	}
}

func (u *dockerUser) refused(t testing.TB, args ...string) string {
	t.Helper()
	_, err := u.try(args...)
	if err == nil {
		t.Fatalf("docker %s succeeded; it must be refused", strings.Join(args, " "))
	}
	return err.Error()
}

// imports makes an image with one file.
func (u *dockerUser) imports(t testing.TB, ref string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	content := strings.Repeat(ref, 1000)
	if err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(scratch(t), "root.tar")
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	u.must(t, "import", file, ref)
	t.Cleanup(func() { _, _ = u.try("image", "rm", "--force", ref) })
}

var engines = map[string]func() (*engine, error){
	"classic": func() (*engine, error) { return bench.classic() }, "modern": func() (*engine, error) { return bench.modern() },
}

// `docker login` and `docker push`, as people type it.
func TestDockerLogsInWithTokensAndPushes(t *testing.T) {
	for _, mode := range tokenModes(t) {
		for name, get := range engines {
			t.Run(mode.name+" "+name, func(t *testing.T) {
				w := newWorld(t, mode.settings)
				w.needSluice(t)
				u := shared(t, get).user(t)
				for _, repository := range []string{"alice/app", "bob/app"} {
					u.imports(t, w.via+"/"+repository+":1")
				}
				saysWhy(t, u.refused(t, "push", w.via+"/alice/app:1"), saysNobody)
				saysWhy(t, u.refused(t, "login", "-u", mode.bad.user, "-p", mode.bad.password, w.via), saysWrong)
				u.must(t, "login", "-u", mode.login.user, "-p", mode.login.password, w.via)
				u.must(t, "push", w.via+"/alice/app:1")
				w.sluice.pushedBy(t, "alice/app", "alice")
				saysWhy(t, u.refused(t, "push", w.via+"/bob/app:1"), saysNotHere)
				if got := w.upstream.tags(t, "bob/app"); len(got) > 0 {
					t.Errorf("upstream has tags %v of another's repository", got)
				}
				u.must(t, "image", "rm", "--force", w.via+"/alice/app:1")
				u.must(t, "pull", w.via+"/alice/app:1")
			})
		}
	}
}

// `docker buildx build --push` with what `docker login` has left.
func TestBuildKitPushesWithTokens(t *testing.T) {
	for _, mode := range tokenModes(t) {
		for _, form := range forms {
			t.Run(mode.name+" "+form.name, func(t *testing.T) {
				w := newWorld(t, mode.settings)
				w.needSluice(t)
				k, dir := needBuilder(t, form.builder), newApplication(t, 71)
				refused := func(ref string) string {
					_, err := k.build(dir, bothPlatforms, push(ref)...)
					if err == nil {
						t.Fatalf("a push to %s succeeded; it must be refused", ref)
					}
					return err.Error()
				}
				saysWhy(t, refused(w.via+"/alice/app:1"), saysNobody)
				bench.logIn(t, w.via, mode.bad)
				saysWhy(t, refused(w.via+"/alice/app:1"), saysWrong)
				bench.logIn(t, w.via, mode.login)
				k.mustBuild(t, dir, bothPlatforms, push(w.via+"/alice/app:1")...)
				w.sluice.pushedBy(t, "alice/app", "alice")
				k.mustBuild(t, dir, bothPlatforms, withoutAttestations(w.direct+"/reference:1")...)
				w.same(t, "alice/app", "reference")
				saysWhy(t, refused(w.via+"/bob/app:1"), saysNotHere)
			})
		}
	}
}
