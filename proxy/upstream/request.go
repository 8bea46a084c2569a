package upstream

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Request is what is asked of a registry.
type Request struct {
	Method     string
	Repository string     // upstream's name of it; "" for /v2/ and /v2/_catalog
	Path       string     // below /v2/<repository>/; or Location set
	Query      url.Values // added to a Location's own
	Location   string     // a session URL as upstream gave it, absolute or relative: used instead of Path

	Header        http.Header // copied, without hop-by-hop headers and Authorization
	Authorization string      // the client's: sent as it is with Passthrough, else unused

	// Body is streamed: read once, never again after its first byte, and announced with Expect: 100-continue.
	// It may be read until the response's body is closed. One that is known to be at most 32 KiB long is read first instead, which
	// saves the round trip of asking.
	Body          io.Reader
	ContentLength int64  // of Body; -1 unknown
	Replay        []byte // instead of Body: small, may be sent more than once

	Push   bool   // needs pull and push; else pull
	Mount  string // another repository, of which a token must allow pull
	Follow bool   // follow redirects of a GET or HEAD whatever Options.Redirects says: Sluice wants the bytes itself
}

// small is the length up to which a streamed body is read before it is sent. An upload of a few KiB
// would otherwise take two round trips.
const small = 32 << 10

// plan is a Request that was checked and can be sent several times.
type plan struct {
	method string
	url    *url.URL
	own    bool // the URL is on the registry's own host, which may see credentials
	header http.Header
	client string // Authorization of Passthrough
	scopes []string
	follow bool

	stream io.Reader // not replayed
	length int64
	replay []byte // in memory

	sent   bool // header has been given to the transport, which reads it until the attempt ends
	repeat bool // idempotent: repeated on connection errors and transient answers
	post   bool // opens a session at most: repeated when no answer came
	repo   string

	actions [2]action // what it counts as upstream
}

func (r *Registry) plan(q Request) (*plan, error) {
	p := &plan{method: q.Method, repo: q.Repository}
	if p.method == "" {
		p.method = http.MethodGet
	}
	if err := p.locate(r, q); err != nil {
		return nil, err
	}
	p.header = outgoing(q.Header)
	if r.Passthrough() {
		if p.own {
			p.client = q.Authorization
		}
	} else {
		p.scopes = scopes(q)
	}
	reads := p.method == http.MethodGet || p.method == http.MethodHead
	p.follow = reads && (q.Follow || r.follow && q.Location == "" && strings.HasPrefix(q.Path, "blobs/"))
	switch {
	case q.Replay != nil:
		p.replay = q.Replay
	case q.Body != nil && q.Body != http.NoBody && q.ContentLength != 0:
		if err := p.take(r, q); err != nil {
			return nil, err
		}
	}
	switch p.method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		p.repeat = p.stream == nil
	case http.MethodPost:
		p.post = p.stream == nil && len(p.replay) == 0
	}
	if p.own {
		p.actions = actionsOf(p.method, p.url.Path, p.stream != nil || len(p.replay) > 0)
	}
	return p, nil
}

// locate builds the URL. A session's query is kept byte for byte: it is signed by whoever made it.
func (p *plan) locate(r *Registry, q Request) error {
	if q.Location != "" {
		u, own, err := r.session(r.base, q.Location)
		if err != nil {
			return err
		}
		if len(q.Query) > 0 {
			if u.RawQuery != "" {
				u.RawQuery += "&"
			}
			u.RawQuery += q.Query.Encode()
		}
		p.url, p.own = u, own
		return nil
	}
	path := "/v2/" + q.Path
	if q.Repository != "" {
		path = "/v2/" + q.Repository + "/" + q.Path
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." || part == "." {
			return fmt.Errorf("upstream %s: path %q leaves its repository", r.base.Host, path)
		}
	}
	p.url = &url.URL{Scheme: r.base.Scheme, Host: r.base.Host, Path: path, RawQuery: q.Query.Encode()}
	p.own = true
	return nil
}

// take decides how a body travels.
func (p *plan) take(r *Registry, q Request) error {
	if q.ContentLength < 0 || q.ContentLength > small {
		p.stream, p.length = q.Body, q.ContentLength
		return nil
	}
	b := make([]byte, q.ContentLength)
	if _, err := io.ReadFull(q.Body, b); err != nil {
		return errorf(ErrBody, err, "request body for repository %s on its way to upstream %s ended early: %s", q.Repository, r.base.Host, brief(err))
	}
	p.replay = b
	return nil
}

// hopByHop headers belong to one connection (RFC 9110 section 7.6.1); the others are set here.
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Authorization": true, "Cookie": true, "Expect": true, "Host": true, "Content-Length": true,
}

// ownAgent is shared by all requests; nothing changes a header's values in place.
var ownAgent = []string{userAgent}

func outgoing(h http.Header) http.Header {
	out := make(http.Header, len(h)+3)
	var named []string
	for _, v := range h["Connection"] {
		for _, n := range strings.Split(v, ",") {
			named = append(named, http.CanonicalHeaderKey(strings.TrimSpace(n)))
		}
	}
	for k, v := range h {
		if !hopByHop[k] {
			out[k] = v[:len(v):len(v)]
		}
	}
	for _, n := range named {
		delete(out, n)
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = ownAgent
	}
	return out
}
