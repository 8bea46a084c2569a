package upstream

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

const (
	// maxUnsaid is how much of a refusal is looked at.
	maxUnsaid = 64 << 10
	// leastSecret is the length from which on a secret is looked for: "test" as a password is in too much that is said.
	leastSecret = 8
)

// unsay takes out of a refusal what was sent to prove who asks. Some registries, and what stands in front of them, repeat
// it when they do not take it, and a refusal is shown to clients and logged, whose secret it is not. As many characters stay
// as there were, since the length has been announced. It is read when somebody reads it.
func unsay(resp *http.Response, authorization string) {
	if resp == nil || resp.StatusCode < 400 || authorization == "" || resp.Body == nil || resp.Body == http.NoBody {
		return
	}
	resp.Body = &unsaid{resumed: resumed{rest: resp.Body}, secrets: secretsOf(authorization)}
}

// secretsOf are the forms in which an Authorization header may be repeated.
func secretsOf(authorization string) [][]byte {
	scheme, value, _ := strings.Cut(authorization, " ")
	value = strings.TrimSpace(value)
	all := []string{value}
	if strings.EqualFold(scheme, "basic") {
		if b, err := base64.StdEncoding.DecodeString(value); err == nil {
			_, password, _ := strings.Cut(string(b), ":")
			all = append(all, password)
		}
	}
	var secrets [][]byte
	for _, s := range all {
		if len(s) < leastSecret {
			continue
		}
		for _, spelt := range [][]byte{[]byte(s), inJSON(s, true), inJSON(s, false)} {
			if !slices.ContainsFunc(secrets, func(known []byte) bool { return bytes.Equal(known, spelt) }) {
				secrets = append(secrets, spelt)
			}
		}
	}
	return secrets
}

// inJSON is a text as it stands in a JSON string, which refusals are.
func inJSON(s string, html bool) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(html)
	if e.Encode(s) != nil { // cannot happen: a string
		return []byte(s)
	}
	quoted := bytes.TrimSpace(b.Bytes())
	return quoted[1 : len(quoted)-1]
}

// unsaid is the body of a refusal.
type unsaid struct {
	resumed
	secrets [][]byte
}

func (u *unsaid) Read(p []byte) (int, error) {
	if u.Reader == nil {
		behind := http.Response{Body: u.rest}
		b, _ := readAhead(&behind, maxUnsaid)
		for _, secret := range u.secrets {
			copy(b, bytes.ReplaceAll(b, secret, bytes.Repeat([]byte("*"), len(secret))))
		}
		u.Reader = behind.Body
	}
	return u.Reader.Read(p)
}
