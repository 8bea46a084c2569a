package upstream

import (
	"net/http"
	"strings"
	"testing"
)

func TestChallenges(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"bearer":                  {[]string{`Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"`}, "bearer https://a/token s repository:x:pull,push"},
		"tokens and spaces":       {[]string{`bearer  realm = "https://a" , service=s`}, "bearer https://a s "},
		"two in one line":         {[]string{`Basic realm="a, b=c", Bearer realm="https://a",service="x \"q\" \\"`}, `bearer https://a x "q" \ `},
		"two lines":               {[]string{`Basic realm="x"`, `Bearer realm="https://a"`}, "bearer https://a  "},
		"bearer without realm":    {[]string{`Bearer`, `Basic realm="x"`}, "basic x  "},
		"basic alone":             {[]string{`Basic`}, "basic   "},
		"negotiate and basic":     {[]string{`Negotiate, Basic realm=x`}, "basic x  "},
		"names in any case":       {[]string{`BEARER Realm="https://a",SERVICE="s"`}, "bearer https://a s "},
		"one that does not close": {[]string{`Bearer realm="https://a`}, "bearer https://a  "},
		"a parameter first":       {[]string{`realm="x"`}, "none"},
		"quotes":                  {[]string{`"""`}, "none"},
		"nothing":                 {nil, "none"},
		"another scheme":          {[]string{`Digest realm="x", nonce="y"`}, "none"},
	} {
		got := "none"
		if ch, ok := pick(challenges(http.Header{"Www-Authenticate": c.lines})); ok {
			got = strings.Join([]string{ch.scheme, ch.params["realm"], ch.params["service"], ch.params["scope"]}, " ")
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
