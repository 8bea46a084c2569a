package upstream

import (
	"net/http"
	"strings"
)

// challenge is one of WWW-Authenticate (RFC 9110 section 11.6.1), scheme and parameter names in lower case.
type challenge struct {
	scheme string
	params map[string]string
}

// challenges reads all of a response. A header line may hold several, and a comma separates both
// challenges and parameters: a word that no "=" follows begins a new one.
func challenges(h http.Header) []challenge {
	var out []challenge
	for _, line := range h.Values("WWW-Authenticate") {
		s := line
		for {
			s = strings.TrimLeft(s, " \t,")
			word, rest := token68(s)
			if word == "" {
				break
			}
			after := strings.TrimLeft(rest, " \t")
			if strings.HasPrefix(after, "=") && len(out) > 0 {
				var value string
				value, s = parameter(strings.TrimLeft(after[1:], " \t"))
				out[len(out)-1].params[strings.ToLower(word)] = value
				continue
			}
			out = append(out, challenge{scheme: strings.ToLower(word), params: map[string]string{}})
			s = rest
		}
	}
	return out
}

// token68 takes the characters that schemes and parameter names are made of.
func token68(s string) (word, rest string) {
	i := strings.IndexFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == ',' || c == '=' || c == '"' })
	switch {
	case i < 0:
		return s, ""
	case i == 0: // a stray quote, or what is no text at all: no more can be understood
		return "", ""
	}
	return s[:i], s[i:]
}

// parameter takes a quoted string or a token.
func parameter(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		if i := strings.IndexAny(s, " \t,"); i >= 0 {
			return s[:i], s[i:]
		}
		return s, ""
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:]
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String(), "" // not closed
}

// pick prefers Bearer, whose tokens are worth less to a thief than a password.
func pick(all []challenge) (challenge, bool) {
	for _, scheme := range []string{"bearer", "basic"} {
		for _, c := range all {
			if c.scheme == scheme && (scheme == "basic" || c.params["realm"] != "") {
				return c, true
			}
		}
	}
	return challenge{}, false
}
