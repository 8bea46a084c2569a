package config

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/filters"
)

func TestTheAnnotatedFileEqualsTheDefaults(t *testing.T) {
	c, err := Load("../../config.yml")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Default(), c, cmpopts.IgnoreUnexported(Config{})); d != "" {
		t.Errorf("config.yml differs from Default (-default +file):\n%s", d)
	}
}

func TestTheAnnotatedFileNamesEveryKey(t *testing.T) {
	b, err := os.ReadFile("../../config.yml")
	if err != nil {
		t.Fatal(err)
	}
	c := Default()
	d := &decoder{source: source{keys: map[string]place{}}}
	d.document(c, b)
	for _, key := range allKeys() {
		if _, ok := d.source.keys[key]; !ok {
			t.Errorf("config.yml does not name %s", key)
		}
	}
}

func TestTheDefaultsAreValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestAnEmptyFileMeansTheDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n"} {
		c, err := Parse("config.yml", []byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if d := cmp.Diff(Default(), c, cmpopts.IgnoreUnexported(Config{})); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
}

func TestTheFirstRuleThatMatchesDecides(t *testing.T) {
	c, err := Parse("config.yml", []byte(`
view: original
rules:
  - repositories: ["lambda/**", "functions-*"]
    attestations: strip
    view: upstream
  - repositories: [team/*]
    unwrap: never
  - repositories: ["team/**"]
    signed_originals: warn
`))
	if err != nil {
		t.Fatal(err)
	}
	def := RuleSettings{filters.Store, filters.UnwrapAuto, ViewOriginal, SignedRefuse, filters.MediaTypesKeep, CacheIndexAuto, DefaultRule}
	with := func(name string, change func(*RuleSettings)) RuleSettings {
		s := def
		s.Name = name
		change(&s)
		return s
	}
	lambda := with("lambda/**,functions-*", func(s *RuleSettings) { s.Attestations, s.View = filters.Strip, ViewUpstream })
	for repository, want := range map[string]RuleSettings{
		"app":         def,
		"lambda/a":    lambda,
		"lambda/a/b":  lambda,
		"lambda":      lambda, // a trailing /** matches the folder itself
		"lambda-x/a":  def,
		"functions-1": lambda,
		"team/app":    with("team/*", func(s *RuleSettings) { s.Unwrap = filters.UnwrapNever }),
		"team/app/db": with("team/**", func(s *RuleSettings) { s.SignedOriginals = SignedWarn }),
		"Team/app":    def,
		"other/team/": def,
	} {
		if d := cmp.Diff(want, c.Rule(repository)); d != "" {
			t.Errorf("%s (-want +got):\n%s", repository, d)
		}
	}
}

func TestTheCacheIndexIsConvertedForECRUnlessTheSettingSaysOtherwise(t *testing.T) {
	for setting, want := range map[filters.CacheIndex][2]filters.CacheIndex{ // elsewhere, ECR
		CacheIndexAuto:             {filters.CacheIndexKeep, filters.CacheIndexManifest},
		filters.CacheIndexKeep:     {filters.CacheIndexKeep, filters.CacheIndexKeep},
		filters.CacheIndexManifest: {filters.CacheIndexManifest, filters.CacheIndexManifest},
	} {
		c := Default()
		c.CacheIndex = setting
		got := [2]filters.CacheIndex{c.Rule("app").Policy(false).CacheIndex, c.Rule("app").Policy(true).CacheIndex}
		if got != want || c.Rule("app").Policy(true).Validate() != nil {
			t.Errorf("%s: %v, want %v", setting, got, want)
		}
	}
}

func TestTheLongestPrefixOfWholeComponentsIsRemoved(t *testing.T) {
	c, err := Parse("config.yml", []byte(`
upstreams:
  - {prefix: team, url: "https://a.example"}
  - {prefix: team/ci, url: "https://b.example"}
  - {url: "https://c.example"}
`))
	if err != nil {
		t.Fatal(err)
	}
	for repository, want := range map[string]string{
		"team/app":      "https://a.example app",
		"team/ci/app":   "https://b.example app",
		"team/ci":       "https://a.example ci",
		"team/cis/app":  "https://a.example cis/app",
		"team":          "https://c.example team",
		"teams/app":     "https://c.example teams/app",
		"x/team/ci/app": "https://c.example x/team/ci/app",
	} {
		u, name, ok := c.Upstream(repository)
		if got := fmt.Sprint(u.URL, " ", name); !ok || got != want {
			t.Errorf("%s goes to %s, want %s", repository, got, want)
		}
	}
	if _, _, ok := c.Upstream(""); ok {
		t.Error("the empty name found an upstream")
	}
	c.Upstreams = c.Upstreams[:2]
	if u, name, ok := c.Upstream("other/app"); ok {
		t.Errorf("other/app went to %s %s, want none", u.URL, name)
	}
}

func TestAutomaticCredentialsFollowTheAccessMode(t *testing.T) {
	for _, tt := range []struct {
		name   string
		access AccessMode
		u      Upstream
		want   Credentials
	}{
		{"the embedded registry needs none", AccessNone, Upstream{URL: Embedded, Credentials: CredentialsAuto}, CredentialsAnonymous},
		{"a user name means basic", AccessHtpasswd, Upstream{URL: "https://r", Credentials: CredentialsAuto, Username: "u"}, CredentialsBasic},
		{"nothing at all means the Docker configuration", AccessNone, Upstream{URL: "https://r", Credentials: CredentialsAuto}, CredentialsDocker},
		{"Amazon ECR means what AWS gives", AccessHtpasswd, Upstream{URL: "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com", Credentials: CredentialsAuto}, CredentialsECR},
		{"and in China", AccessNone, Upstream{URL: "https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn:443/", Credentials: CredentialsAuto}, CredentialsECR},
		{"and with FIPS over dual stack", AccessNone, Upstream{URL: "https://123456789012.dkr-ecr-fips.us-east-1.on.aws", Credentials: CredentialsAuto}, CredentialsECR},
		{"and ECR Public", AccessNone, Upstream{URL: "https://PUBLIC.ecr.aws", Credentials: CredentialsAuto}, CredentialsECR},
		{"ECR with a user name means basic", AccessNone, Upstream{URL: "https://public.ecr.aws", Credentials: CredentialsAuto, Username: "AWS"}, CredentialsBasic},
		{"ECR with access passthrough means the client's own", AccessPassthrough, Upstream{URL: "https://public.ecr.aws", Credentials: CredentialsAuto}, CredentialsPassthrough},
		{"access passthrough means the client's own", AccessPassthrough, Upstream{URL: "https://r", Credentials: CredentialsAuto}, CredentialsPassthrough},
		{"what is set stays", AccessNone, Upstream{URL: "https://r", Credentials: CredentialsAnonymous}, CredentialsAnonymous},
	} {
		c := Default()
		c.Access.Mode = tt.access
		if got := c.CredentialsOf(tt.u); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestFlagsWinOverEnvironmentOverFile(t *testing.T) {
	env := map[string]string{"SLUICE_LISTEN": "127.0.0.1:2", "SLUICE_ADMIN": "127.0.0.1:3", "SLUICE_ATTESTATIONS": "", "SLUICE_PORT": "tcp://10.0.0.1:5000"}
	overrides := Environment(func(k string) (string, bool) { v, ok := env[k]; return v, ok })
	overrides = append(overrides, Override{"admin", "127.0.0.1:4", "--admin"})
	c, err := Parse("config.yml", []byte("listen: 127.0.0.1:1\nadmin: 127.0.0.1:1\nattestations: strip\nretention: 3d\n"), overrides...)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(c.Listen, " ", c.Admin, " ", c.Attestations, " ", c.Retention, " ", time.Duration(c.ShutdownTimeout))
	if want := "127.0.0.1:2 127.0.0.1:4 strip 3d 30s"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAnotherUpstreamGetsNoneOfTheFilesCredentials(t *testing.T) {
	file := []byte("upstreams: [{prefix: a, url: 'https://a.example', username: u, password_file: /p, ca: /ca}, {url: 'https://b.example'}]\n")
	c, err := Parse("config.yml", file, Override{"upstream-username", "bob", "SLUICE_UPSTREAM_USERNAME"}, Override{"upstream", "https://c.example", "--upstream"})
	if err != nil {
		t.Fatal(err)
	}
	want := []Upstream{{URL: "https://c.example", Credentials: CredentialsAuto, Redirects: RedirectsPass, Username: "bob"}}
	if d := cmp.Diff(want, c.Upstreams); d != "" {
		t.Error(d)
	}
}
