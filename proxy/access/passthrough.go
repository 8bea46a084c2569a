package access

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode"
)

// presented names the credentials of a request without judging them.
func presented(authorization string) Identity {
	if authorization == "" {
		return Identity{Name: anonymous, Key: anonymous}
	}
	id := Identity{Name: "unknown", Key: hash("authorization", authorization)}
	scheme, value, _ := strings.Cut(authorization, " ")
	value = strings.TrimSpace(value)
	// The key is that of the usual spelling: registries take others too, and each would be one more client, with all that
	// one may hold.
	switch strings.ToLower(scheme) {
	case "basic":
		if presented, err := base64.StdEncoding.DecodeString(value); err == nil {
			id.Key = hash("authorization", "Basic "+base64.StdEncoding.EncodeToString(presented))
			if username, _, ok := strings.Cut(string(presented), ":"); ok {
				id.Name = printable(username)
			}
		}
	case "bearer":
		id.Name, id.Key = "bearer", hash("authorization", "Bearer "+value)
		// A token lives some minutes, and a client may renew it in the middle of an
		// upload: the subject stays, the token does not.
		if c, ok := claims(value); ok {
			id.Name = printable(c.Subject)
			id.Key = hash("jwt", c.Issuer, c.Subject)
		}
	}
	return id
}

type tokenClaims struct {
	Issuer  string `json:"iss"`
	Subject string `json:"sub"`
}

// claims reads a JWT's claims without checking its signature, whose key only upstream
// and its token service have. ok only with a subject: one without is nobody.
func claims(token string) (tokenClaims, bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return tokenClaims{}, false
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return tokenClaims{}, false
	}
	var c tokenClaims
	if json.Unmarshal(payload, &c) != nil || c.Subject == "" {
		return tokenClaims{}, false
	}
	return c, true
}

// printable keeps an unverified name from breaking a line of a log or filling it.
func printable(name string) string {
	const most = 100
	clean := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, name)
	if runes := []rune(clean); len(runes) > most {
		clean = string(runes[:most]) + "..."
	}
	return clean
}
