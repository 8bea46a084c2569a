package ecrsim

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// token is the password of user AWS. ECR's is opaque; this one says what it stands for, under a code that any other double
// of this package can check, so that the registry of another region recognises it as none of its own.
type token struct {
	AccessKey string `json:"accessKey"`
	Account   string `json:"account"`
	Region    string `json:"region"`
	Number    int64  `json:"number"`
	Expires   int64  `json:"expires"` // milliseconds since 1970
	Padding   string `json:"padding"` // ECR's are some 2,000 characters long; whoever has a limit should notice
}

const (
	tokenUser    = "AWS"
	tokenKey     = "a double keeps no secrets"
	tokenPadding = 1200
)

func (s *Simulator) issueToken(p Principal) (password string, expires time.Time) {
	life := s.switches.Load().TokenLife
	if life <= 0 {
		life = 12 * time.Hour
	}
	expires = s.now().Add(life)
	b, _ := json.Marshal(token{
		AccessKey: p.AccessKey, Account: s.account, Region: s.region, Number: s.issued.Add(1),
		Expires: expires.UnixMilli(), Padding: strings.Repeat("x", tokenPadding),
	})
	return base64.StdEncoding.EncodeToString(append(code(b), b...)), expires
}

func code(b []byte) []byte {
	h := hmac.New(sha256.New, []byte(tokenKey))
	h.Write(b)
	return h.Sum(nil)
}

func readToken(password string) (token, bool) {
	b, err := base64.StdEncoding.DecodeString(password)
	if err != nil || len(b) < sha256.Size || !hmac.Equal(b[:sha256.Size], code(b[sha256.Size:])) {
		return token{}, false
	}
	var t token
	return t, json.Unmarshal(b[sha256.Size:], &t) == nil
}

// signedIn is the principal whose token the request carries. The registry has no token service: Bearer is no credential.
func (s *Simulator) signedIn(r *http.Request, sw *Switches) (Principal, *failure) {
	user, password, _ := r.BasicAuth()
	t, ok := readToken(password)
	if !ok || user != tokenUser {
		return Principal{}, notAuthorized()
	}
	p, known := s.principals[t.AccessKey]
	switch {
	case t.Account == s.account && t.Region != s.region:
		if sw.ForeignToken == http.StatusUnauthorized {
			return Principal{}, notAuthorized()
		}
		return Principal{}, tokenForeign()
	case t.Account != s.account || !known:
		return Principal{}, notAuthorized()
	case t.Number <= s.expired.Load() || !s.now().Before(time.UnixMilli(t.Expires)):
		return Principal{}, tokenExpired().with(sw.ExpiredToken)
	}
	return p, nil
}

func (p Principal) allows(action string) bool { return p.Allow == nil || listed(p.Allow, action) }

// listed looks for an action among patterns as IAM writes them: "ecr:PutImage", "ecr:Batch*", "*". The prefix may be left out.
func listed(patterns []string, action string) bool {
	for _, p := range patterns {
		p = strings.TrimPrefix(p, "ecr:")
		if prefix, any := strings.CutSuffix(p, "*"); any && strings.HasPrefix(action, prefix) || p == action {
			return true
		}
	}
	return false
}

// Password is a new token of a principal, as GetAuthorizationToken gives it: for tests that are not about signing in.
func (s *Simulator) Password(accessKey string) (user, password string) {
	password, _ = s.issueToken(s.principals[accessKey])
	return tokenUser, password
}
