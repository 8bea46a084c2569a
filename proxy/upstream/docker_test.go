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
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
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
		"that is missing":     {"", "docker-credential-test", ""},
		"that prints secrets": {`echo '{"Username":"u","Secret":"hunter2"}'; exit 3`, "exit status 3", "hunter2"},
		"that prints nothing": {`exit 0`, "EOF", ""},
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
