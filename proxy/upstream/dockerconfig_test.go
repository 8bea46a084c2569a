package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
)

func host(f *fake) string { return strings.TrimPrefix(f.URL, "http://") }

// dockerConfig sets a Docker configuration for the test, and no other in reach.
func dockerConfig(t *testing.T, config string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("DOCKER_CONFIG", dir)
	if config == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// helper puts a credential helper named docker-credential-test on the PATH.
func helper(t *testing.T, script string) {
	t.Helper()
	helperNamed(t, "test", script)
}

func helperNamed(t *testing.T, name, script string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestDockerCredentials(t *testing.T) {
	entry := func(user, pass string) string {
		return base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))
	}
	for name, c := range map[string]struct {
		mode   Mode
		config string // %s is the host
		script string
		want   string // Authorization of the second request; "" = only one, which is 401
	}{
		"an entry":                                {Docker, `{"auths":{"%s":{"auth":"` + entry("d", "x") + `"}}}`, "", basicHeader("d", "x")},
		"an entry of another host is no entry":    {Docker, `{"auths":{"example.com":{"auth":"` + entry("d", "x") + `"}}}`, "", ""},
		"no entry is anonymous":                   {Docker, `{}`, "", ""},
		"no file is anonymous":                    {Docker, "", "", ""},
		"a username asks no Docker configuration": {Basic, `{"auths":{"%s":{"auth":"` + entry("d", "x") + `"}}}`, "", basicHeader("u", "p")},
		"a helper":                                {Docker, `{"credHelpers":{"%s":"test"}}`, `read h; echo "{\"Username\":\"h\",\"Secret\":\"$h\"}"`, "HELPER"},
		"a store that does not know the host":     {Docker, `{"credsStore":"test"}`, `echo "credentials not found in native keychain"; exit 1`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "basic"})
			want := strings.ReplaceAll(c.want, "HELPER", basicHeader("h", host(f)))
			f.allow = only(want)
			dockerConfig(t, strings.ReplaceAll(c.config, "%s", host(f)))
			helper(t, c.script)
			r, _ := open(t, Options{URL: f.URL, Credentials: c.mode, Username: "u", Password: password("p")})
			if c.want == "" {
				f.allow = only("never")
				do(t, r, 401, Request{})
				same(t, f.requests(), "GET  ")
				return
			}
			do(t, r, 200, Request{})
			same(t, f.requests(), "GET  ", "GET  "+want)
		})
	}
}

func TestAHelperIsAskedAgainAfterA401(t *testing.T) {
	f := newFake(t, &fake{scheme: "basic"})
	count := filepath.Join(t.TempDir(), "count")
	helper(t, `echo x >>`+count+`; n=$(wc -l <`+count+`); echo "{\"Username\":\"AWS\",\"Secret\":\"pass$n\"}"`)
	dockerConfig(t, fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, host(f)))
	f.allow = only(basicHeader("AWS", "pass1"))
	r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
	do(t, r, 200, Request{})
	do(t, r, 200, Request{})
	f.allow = only(basicHeader("AWS", "pass2")) // twelve hours later
	do(t, r, 200, Request{})
	if b, _ := os.ReadFile(count); len(b) != 4 {
		t.Errorf("the helper ran %d times, want 2", len(b)/2)
	}
}

func TestAFailingHelperIsAnErrorThatSaysSo(t *testing.T) {
	for name, c := range map[string]struct{ script, want, never string }{
		"with a message":      {`echo "session ended, log in again"; exit 1`, "session ended, log in again", ""},
		"that is missing":     {"", "docker-credential-test is not in the PATH", "err: exec"},
		"that says nothing":   {`exit 3`, "failed: exit status 3; fix it", "out:"},
		"that prints secrets": {`echo '{"Username":"u","Secret":"hunter2"}'; exit 3`, "exit status 3", "hunter2"},
		"that prints nothing": {`exit 0`, "something else than JSON", "EOF"},
		"that is no helper":   {`echo hunter2`, "something else than JSON", "hunter2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t, &fake{scheme: "basic", allow: only("never")})
			dockerConfig(t, fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, host(f)))
			if c.script != "" {
				helper(t, c.script)
			}
			r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
			_, err := r.Do(context.Background(), Request{})
			if !errors.Is(err, ErrCredentials) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), host(f)) {
				t.Errorf("error = %v; want ErrCredentials with %q", err, c.want)
			}
			if c.never != "" && strings.Contains(fmt.Sprint(err), c.never) {
				t.Errorf("error shows the secret: %v", err)
			}
		})
	}
}

func TestARegistryWithoutAuthenticationNeverStartsAHelper(t *testing.T) {
	f := newFake(t, &fake{})
	helper(t, "exit 1")
	dockerConfig(t, `{"credsStore":"test"}`)
	r, _ := open(t, Options{URL: f.URL, Credentials: Docker})
	do(t, r, 200, Request{})
}

// registry is an authn.Resource.
type registry string

func (r registry) String() string      { return string(r) }
func (r registry) RegistryStr() string { return string(r) }

// What crane and ko find, and with them the other commands of Sluice, is found here.
func TestTheDockerConfigurationIsFoundAsGoContainerregistryFindsIt(t *testing.T) {
	accounts := func(user string) string {
		return fmt.Sprintf(`{"auths":{"example.com":{"auth":%q},"https://old.example.com/v1/":{"auth":%[1]q},"token.example.com":{"identitytoken":"i"},"bearer.example.com":{"registrytoken":"b"},"https://index.docker.io/v1/":{"auth":%[1]q}}}`,
			base64.StdEncoding.EncodeToString([]byte(user+":x")))
	}
	for name, c := range map[string]struct {
		files map[string]string // below the test's folder
		env   map[string]string // values that begin with / are below it
	}{
		"nothing":                              {},
		"Docker's":                             {map[string]string{"docker/config.json": accounts("docker")}, map[string]string{"DOCKER_CONFIG": "/docker"}},
		"a folder without a file":              {map[string]string{"docker/other.json": "{}", "run/containers/auth.json": accounts("run")}, map[string]string{"DOCKER_CONFIG": "/docker", "XDG_RUNTIME_DIR": "/run"}},
		"one of the user's, and a folder":      {map[string]string{"home/.docker/config.json": "{}", "run/containers/auth.json": accounts("run")}, map[string]string{"DOCKER_CONFIG": "/none", "XDG_RUNTIME_DIR": "/run"}},
		"podman's of this session":             {map[string]string{"run/containers/auth.json": accounts("run"), "settings/containers/auth.json": accounts("settings")}, map[string]string{"XDG_RUNTIME_DIR": "/run", "XDG_CONFIG_HOME": "/settings"}},
		"podman's of the user's settings":      {map[string]string{"settings/containers/auth.json": accounts("settings"), "home/.config/containers/auth.json": accounts("home")}, map[string]string{"XDG_RUNTIME_DIR": "/run", "XDG_CONFIG_HOME": "/settings"}},
		"podman's of the user":                 {map[string]string{"home/.config/containers/auth.json": accounts("home")}, nil},
		"a named file":                         {map[string]string{"named": accounts("named"), "run/containers/auth.json": accounts("run")}, map[string]string{"REGISTRY_AUTH_FILE": "/named", "XDG_RUNTIME_DIR": "/run"}},
		"a named file that is not there":       {map[string]string{"run/containers/auth.json": accounts("run")}, map[string]string{"REGISTRY_AUTH_FILE": "/named", "XDG_RUNTIME_DIR": "/run"}},
		"a file that is none":                  {map[string]string{"docker/config.json": "no"}, map[string]string{"DOCKER_CONFIG": "/docker"}},
		"an account in the environment":        {map[string]string{"docker/config.json": accounts("docker")}, map[string]string{"DOCKER_CONFIG": "/docker", "DOCKER_AUTH_CONFIG": accountOf("env")}},
		"one in the environment and a store":   {map[string]string{"docker/config.json": `{"credsStore":"test"}`}, map[string]string{"DOCKER_CONFIG": "/docker", "DOCKER_AUTH_CONFIG": accountOf("env")}},
		"a store":                              {map[string]string{"docker/config.json": strings.Replace(accounts("stale"), "{", `{"credsStore":"test",`, 1)}, map[string]string{"DOCKER_CONFIG": "/docker"}},
		"a helper, and a store for all others": {map[string]string{"docker/config.json": `{"credsStore":"none","credHelpers":{"example.com":"test","https://index.docker.io/v1/":"test"}}`}, map[string]string{"DOCKER_CONFIG": "/docker"}},
	} {
		t.Run(name, func(t *testing.T) {
			dockerConfig(t, "")
			dir := t.TempDir()
			t.Setenv("HOME", filepath.Join(dir, "home"))
			for k, v := range c.env {
				if strings.HasPrefix(v, "/") {
					v = filepath.Join(dir, v)
				}
				t.Setenv(k, v)
			}
			for path, content := range c.files {
				path = filepath.Join(dir, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			helper(t, `read h; case $h in old*) echo "credentials not found in native keychain"; exit 1;; token*) h='<token>'; esac; echo "{\"Username\":\"$h\",\"Secret\":\"s\"}"`)
			for _, host := range []string{"example.com", "old.example.com", "token.example.com", "bearer.example.com", "index.docker.io", "other.example.com"} {
				got, err := newDockerSource(host).credential(t.Context())
				want, wantErr := fromKeychain(host)
				if (err != nil) != (wantErr != nil) || got != want {
					t.Errorf("%s: %+v, %v; want %+v, %v", host, got, err, want, wantErr)
				}
			}
		})
	}
}

func accountOf(user string) string {
	return fmt.Sprintf(`{"auths":{"example.com":{"auth":%q}}}`, base64.StdEncoding.EncodeToString([]byte(user+":x")))
}

func fromKeychain(host string) (credential, error) {
	a, err := authn.DefaultKeychain.Resolve(registry(host))
	if err != nil {
		return credential{}, err
	}
	cfg, err := a.Authorization()
	if err != nil {
		return credential{}, err
	}
	return credential{username: cfg.Username, password: cfg.Password, identity: cfg.IdentityToken, bearer: cfg.RegistryToken}, nil
}
