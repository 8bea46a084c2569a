package h1

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// A Body is one that is in memory. Any other http.RoundTripper can send it as well.
type Body struct {
	r     bytes.Reader
	bytes []byte
	lent  bool
}

// Lent says that the body was left to another http.RoundTripper, which may read it for longer than the request takes.
func (b *Body) Lent() bool { return b.lent }

// NewBody is a request's body; b is not to be changed as long as that is under way.
func NewBody(b []byte) *Body {
	body := &Body{bytes: b}
	body.r.Reset(b)
	return body
}

func (b *Body) Read(p []byte) (int, error) { return b.r.Read(p) }

// Close does nothing.
func (b *Body) Close() error { return nil }

var _ io.ReadCloser = (*Body)(nil)

// ErrBadRequest says that a request cannot be written. Nothing of it was sent.
var ErrBadRequest = errors.New("request has a name or value that no HTTP header may hold")

// appendRequest writes a request as it goes over the wire, with its body.
func appendRequest(b []byte, req *http.Request, body []byte) ([]byte, error) {
	if !isToken(req.Method) {
		return b, ErrBadRequest
	}
	b = append(b, req.Method...)
	b = append(b, ' ')
	at := len(b)
	b = appendTarget(b, req)
	for _, c := range b[at:] {
		if c <= ' ' || c == 0x7f {
			return b, ErrBadRequest
		}
	}
	host := req.Host
	if host == "" {
		host = req.URL.Host
	}
	host = withoutZone(host)
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c >= 0x7f || c == '/' || c == '@' {
			return b, ErrBadRequest
		}
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\n"...)
	for name, values := range req.Header {
		if ours(name) {
			continue
		}
		if !isToken(name) {
			return b, ErrBadRequest
		}
		for _, v := range values {
			if v = strings.Trim(v, " \t"); !visible(v) {
				return b, ErrBadRequest
			}
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, v...)
			b = append(b, "\r\n"...)
		}
	}
	if len(body) > 0 || mayHaveBody(req.Method) {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, "\r\n"...)
	return append(b, body...), nil
}

// withoutZone is a host as others know it: which interface an IPv6 address is behind means nothing to them (RFC 6874).
func withoutZone(host string) string {
	if !strings.HasPrefix(host, "[") {
		return host
	}
	end := strings.LastIndexByte(host, ']')
	if zone := strings.IndexByte(host, '%'); zone >= 0 && zone < end {
		return host[:zone] + host[end:]
	}
	return host
}

// ours are headers that say how this client sends, and that nobody else has a say in.
func ours(name string) bool {
	switch name {
	case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection":
		return true
	}
	return false
}

func appendTarget(b []byte, req *http.Request) []byte {
	u := req.URL
	path := u.Path
	if u.RawPath != "" || !plain(path) {
		path = u.EscapedPath()
	}
	if path == "" {
		path = "/"
	}
	b = append(b, path...)
	if u.ForceQuery || u.RawQuery != "" {
		b = append(b, '?')
		b = append(b, u.RawQuery...)
	}
	return b
}

// plain is a path that needs no escaping: url.URL.EscapedPath would allocate to find that out.
func plain(path string) bool {
	for i := range len(path) {
		c := path[i]
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte("/:-._~=", c) < 0 {
			return false
		}
	}
	return true
}

// mayHaveBody: these say that theirs is empty, since some servers answer 411 otherwise, as net/http does.
func mayHaveBody(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

// repeatable requests do nothing twice when they are sent twice, and have the same answer. The second DELETE finds nothing, and
// whoever repeats it has to know that there was a first.
func repeatable(req *http.Request, body []byte) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodOptions:
		return true
	}
	return req.Method == http.MethodPost && len(body) == 0
}
