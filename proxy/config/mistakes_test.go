package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// marker begins the lines of a .bad.yml file that say what is wrong with it. They
// stand at its end, so that line numbers are those of the YAML.
const marker = "# want: "

func TestGoodFilesAreAccepted(t *testing.T) {
	for _, file := range glob(t, "testdata/*.good.yml") {
		if _, err := Load(file); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// UPDATE_GOLDEN=1 rewrites the expectations; read the diff.
func TestBadFilesAreRefusedWithEveryMistake(t *testing.T) {
	for _, file := range glob(t, "testdata/*.bad.yml") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bad.yml"), func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text, _, _ := strings.Cut(string(b), marker)
			want := string(b)[len(text):]
			c, err := Parse(filepath.Base(file), []byte(text))
			if err == nil {
				t.Fatalf("accepted: %+v", c)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in the message: %v", err)
			}
			got := ""
			for line := range strings.Lines(err.Error()) {
				got += marker + strings.TrimRight(line, "\n") + "\n"
			}
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(file, []byte(text+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			// Each is one error of its own, for callers that show them otherwise.
			var all Mistakes
			if !errors.As(err, &all) || len(all) != strings.Count(got, marker) {
				t.Errorf("%d mistakes in %d lines", len(all), strings.Count(got, marker))
			}
		})
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

func TestMistakesInFlagsAndEnvironmentNameThem(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		overrides  []Override
		want       string
	}{
		{
			"a bad flag", "",
			[]Override{{"attestations", "drop", "--attestations"}},
			`--attestations: attestations: "drop" is not a value of this key; allowed: store, strip, forward`,
		},
		{
			"a mode in a variable without its settings", "",
			[]Override{{"access", "oidc", "SLUICE_ACCESS"}},
			`SLUICE_ACCESS: access.mode: oidc needs somebody who gives tokens; set access.oidc, such as [{issuer: https://token.actions.githubusercontent.com, audience: sluice, claims: {repository_owner: acme}}]`,
		},
		{
			"an address that needs an access mode", "access: {mode: none}\n",
			[]Override{{"listen", ":5000", "--listen"}},
			`f.yml:1: access.mode: with access mode none everybody who reaches listen (--listen) :5000 can push with Sluice's own credentials; listen on 127.0.0.1, choose another access.mode, or set access.insecure: true`,
		},
		{
			"a data folder beside another driver", "storage: {inmemory: {}}\n",
			[]Override{{"data", "d", "--data"}},
			`--data: storage: is the folder of the filesystem driver, but another one is configured: storage (line 1); leave one of the two out`,
		},
		{
			"a password for one of two upstreams", "upstreams: [{prefix: a, url: 'https://a'}, {url: 'https://b'}]\n",
			[]Override{{"upstream-password", "hunter2", "SLUICE_UPSTREAM_PASSWORD"}},
			`SLUICE_UPSTREAM_PASSWORD: upstreams: would have to be for one of 2 upstreams; set password of each in the file (password_file for passwords)`,
		},
		{
			"two passwords in the environment", "upstreams: [{url: 'https://a', username: u, password_file: p}]\n",
			[]Override{{"upstream-password", "hunter2", "SLUICE_UPSTREAM_PASSWORD"}, {"upstream-password-file", "q", "SLUICE_UPSTREAM_PASSWORD_FILE"}},
			`SLUICE_UPSTREAM_PASSWORD_FILE: upstreams[0].password_file: and SLUICE_UPSTREAM_PASSWORD are both set; keep one of them`,
		},
		{
			"an upstream with a password in its URL", "",
			[]Override{{"upstream", "https://u:hunter2@h", "--upstream"}},
			`--upstream: upstreams[0].url: holds a user or password, which would end up in logs; write https://host or http://host:port, or embedded, and set username and password_file (or SLUICE_UPSTREAM_USERNAME and _PASSWORD)`,
		},
		{
			"a password for the embedded registry", "",
			[]Override{{"upstream-password", "hunter2", "SLUICE_UPSTREAM_PASSWORD"}},
			`SLUICE_UPSTREAM_PASSWORD: upstreams[0].password: is for a registry behind the proxy, and upstreams[0].url (its default) is embedded; take it out, or name a registry`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("f.yml", []byte(tt.file), tt.overrides...)
			if err == nil {
				t.Fatal("accepted")
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestAPasswordVariableReplacesTheFilesPassword(t *testing.T) {
	c, err := Parse("f.yml", []byte("upstreams: [{url: 'https://a', username: u, password_file: /nowhere}]\n"),
		Override{"upstream-password", "hunter2", "SLUICE_UPSTREAM_PASSWORD"})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.Upstreams[0].ReadPassword(); p != "hunter2" || err != nil {
		t.Errorf("%q, %v", p, err)
	}
}

func TestAConfigurationMadeInGoIsCheckedToo(t *testing.T) {
	c := Default()
	c.TLS.Key = "key.pem"
	want := "configuration: tls.key: has no certificate; set tls.certificate too"
	if err := c.Validate(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestCheckFilesNamesThoseThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	empty, password := filepath.Join(dir, "empty"), filepath.Join(dir, "password")
	for name, text := range map[string]string{empty: "\n", password: "hunter2\r\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := Parse("f.yml", []byte("tls: {certificate: "+dir+", key: "+password+"}\n"+
		"upstreams:\n- {url: 'https://a', credentials: basic, password_file: "+dir+"/none}\n- {prefix: b, url: 'https://b', username: u}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"f.yml:1: tls.certificate: " + dir + " is a folder; name a file that this user can read",
		"f.yml:3: upstreams[0].password_file: open " + dir + "/none: no such file or directory; name a file that this user can read",
		"f.yml:3: upstreams[0].username: is missing for credentials: basic; set it, or SLUICE_UPSTREAM_USERNAME",
		`f.yml:4: upstreams[1].password_file: is missing for credentials: basic; set it, or SLUICE_UPSTREAM_PASSWORD or SLUICE_UPSTREAM_PASSWORD_FILE`,
	}
	if d := cmp.Diff(strings.Join(want, "\n"), c.CheckFiles().Error()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}

	u := Upstream{URL: "https://a", PasswordFile: password}
	if p, err := u.ReadPassword(); p != "hunter2" || err != nil {
		t.Errorf("password %q, %v", p, err)
	}
	u.PasswordFile = empty
	if _, err := u.ReadPassword(); err == nil {
		t.Error("an empty file was taken for a password")
	}
}
