package upstream

import (
	"bytes"
	"io"
	"net/http"
	"time"
)

// doubtEvery bounds how often a token is doubted when ECR refuses a HEAD, whose answer has no body that
// could tell an expired token from a missing right. A right that is missing then costs one token in so
// much time.
const doubtEvery = time.Minute

// maxRefusal bounds what is read of an answer to find out why it is a refusal.
const maxRefusal = 8 << 10

// stale is true for an answer of ECR that says that the token is no longer good: 401; DENIED "Your
// authorization token has expired. Reauthenticate and try again." with 403; and 400 from ECR Public,
// without a challenge (containers-roadmap#2835).
func (r *Registry) stale(resp *http.Response, l lease) bool {
	if r.mode != ECR {
		return false
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return l.header != ""
	case http.StatusBadRequest, http.StatusForbidden:
		if silent(resp) {
			return r.auth.doubt(l, doubtEvery)
		}
		return SaysExpired(resp)
	}
	return false
}

// silent is true for a refusal that cannot say why.
func silent(resp *http.Response) bool {
	return resp.Request != nil && resp.Request.Method == http.MethodHead &&
		(resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusForbidden)
}

// SaysExpired reads the beginning of an answer's body, which can still be read afterwards.
func SaysExpired(resp *http.Response) bool {
	b, _ := readAhead(resp, maxRefusal)
	b = bytes.ToLower(b)
	for _, said := range []string{"authorization token has expired", "authorization token is invalid", "no basic auth credentials"} {
		if bytes.Contains(b, []byte(said)) {
			return true
		}
	}
	return false
}

// readAhead reads the beginning of an answer's body, which can still be read afterwards.
func readAhead(resp *http.Response, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, most))
	resp.Body = &resumed{Reader: io.MultiReader(bytes.NewReader(b), &failing{resp.Body, err}), rest: resp.Body}
	return b, err
}

// resumed is a body of which a part was read ahead.
type resumed struct {
	io.Reader
	rest io.ReadCloser
}

func (r *resumed) Close() error { return r.rest.Close() }

// Drain needs nothing of what was read ahead.
func (r *resumed) Drain(int64, time.Duration) { drain(r.rest) }

// failing goes on after what was read ahead, with its error if it had one.
type failing struct {
	r   io.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	return f.r.Read(p)
}
