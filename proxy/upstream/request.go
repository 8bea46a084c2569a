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

	Header        http.Header // given over: hop-by-hop headers and Authorization are taken out of it, and its values stay as they are
	Authorization string      // the client's: sent as it is with Passthrough, else unused

	// Body is streamed: read once, never again after its first byte, and announced with Expect: 100-continue.
	// It may be read until the response's body is closed. One that is known to be at most 32 KiB long is read first instead, which
	// saves the round trip of asking.
	Body          io.Reader
	ContentLength int64  // of Body; -1 unknown
	Replay        []byte // instead of Body: small, may be sent more than once

	// Read takes in the body of a 200 before Do returns. An error says that it broke off: then it counts as an answer that did not come,
	// and what may be repeated is asked for again.
	Read func(*http.Response) error

	Push   bool   // needs pull and push; else pull
	Mount  string // another repository, of which a token must allow pull
	Follow bool   // follow redirects of a GET or HEAD whatever Options.Redirects says: Sluice wants the bytes itself
}

// small is the length up to which a streamed body is read before it is sent. An upload of a few KiB
// would otherwise take two round trips.
const small = 32 << 10

// plan is a Request that was checked and can be sent several times. Every request to a registry has one, so the order of its
// fields leaves no gaps.
type plan struct {
	q      Request
	url    *url.URL
	at     url.URL // what url points to at first: one piece with the plan
	header http.Header

	stream io.Reader // not replayed
	length int64
	replay []byte  // in memory
	taken  *[]byte // of which replay is a part: to be given back; nil: replay is the caller's

	actions [2]action // what it counts as upstream

	own    bool // the URL is on the registry's own host, which may see credentials
	follow bool
	lent   bool // replay may be read for longer than the request takes
	sent   bool // header has been given to the transport, which reads it until the attempt ends
	repeat bool // idempotent: repeated on connection errors and transient answers
	post   bool // opens a session at most: repeated when no answer came
	ends   bool // ends an upload: the registry may have much to do before it answers
}

func (r *Registry) plan(q Request) (*plan, error) {
	p := &plan{q: q}
	if p.q.Method == "" {
		p.q.Method = http.MethodGet
	}
	if err := p.locate(r, q); err != nil {
		return nil, err
	}
	p.header = outgoing(q.Header)
	if !r.Passthrough() || !p.own {
		p.q.Authorization = ""
	}
	reads := p.q.Method == http.MethodGet || p.q.Method == http.MethodHead
	p.follow = reads && (q.Follow || r.follow && q.Location == "" && strings.HasPrefix(q.Path, "blobs/"))
	switch {
	case q.Replay != nil:
		p.replay = q.Replay
	case q.Body != nil && q.Body != http.NoBody && q.ContentLength != 0:
		if err := p.take(r, q); err != nil {
			return nil, err
		}
	}
	switch p.q.Method {
	case http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete:
		p.repeat = p.stream == nil
		p.ends = p.q.Method == http.MethodPut && q.Location != ""
	case http.MethodPost:
		p.post = p.stream == nil && len(p.replay) == 0
	}
	if p.own {
		p.actions = actionsOf(p.q.Method, p.url.Path, p.stream != nil || len(p.replay) > 0)
	}
	return p, nil
}

// read takes in an answer that somebody wants whole. One that breaks off is none.
func (p *plan) read(resp *http.Response, err error) (*http.Response, error) {
	if err == nil && p.q.Read != nil && resp.StatusCode == http.StatusOK {
		if err := p.q.Read(resp); err != nil {
			_ = resp.Body.Close()
			return nil, fmt.Errorf("its answer broke off: %w", err)
		}
	}
	return resp, err
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
			u.RawQuery += encoded(q.Query)
		}
		p.url, p.own = u, own
		return nil
	}
	path := "/v2/" + q.Repository + "/" + q.Path
	if q.Repository == "" {
		path = "/v2/" + q.Path
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." || part == "." {
			return fmt.Errorf("upstream %s: path %q leaves its repository", r.base.Host, path)
		}
	}
	p.at = url.URL{Scheme: r.base.Scheme, Host: r.base.Host, Path: path, RawQuery: encoded(q.Query)}
	p.url, p.own = &p.at, true
	return nil
}

// encoded is q.Encode, at less cost for a query with one value.
func encoded(q url.Values) string {
	if len(q) == 1 {
		for k, v := range q {
			if len(v) == 1 {
				return url.QueryEscape(k) + "=" + url.QueryEscape(v[0])
			}
		}
	}
	return q.Encode()
}

// take decides how a body travels.
func (p *plan) take(r *Registry, q Request) error {
	if q.ContentLength < 0 || q.ContentLength > small {
		p.stream, p.length = q.Body, q.ContentLength
		return nil
	}
	p.taken = sizes[0].take() // of the size small
	b := (*p.taken)[:q.ContentLength]
	if _, err := io.ReadFull(q.Body, b); err != nil {
		p.done()
		return errorf(ErrBody, err, "request body for repository %s on its way to upstream %s ended early: %s", q.Repository, r.base.Host, brief(err))
	}
	p.replay = b
	return nil
}

// done gives back what was taken, unless somebody may still read it.
func (p *plan) done() {
	if p.taken != nil && !p.lent {
		sizes[0].give(p.taken)
	}
	p.taken, p.replay = nil, nil
}

// hopByHop headers belong to one connection (RFC 9110 section 7.6.1); the others are set here.
var hopByHop = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true, "Trailer": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Authorization": true, "Cookie": true, "Expect": true, "Host": true, "Content-Length": true,
}

// ownAgent is shared by all requests; nothing changes a header's values in place.
var ownAgent = []string{userAgent}

// outgoing takes out what does not go up, and is h.
func outgoing(h http.Header) http.Header {
	if h == nil {
		return http.Header{"User-Agent": ownAgent}
	}
	for _, v := range h["Connection"] {
		for n := range strings.SplitSeq(v, ",") {
			delete(h, http.CanonicalHeaderKey(strings.TrimSpace(n)))
		}
	}
	for k := range h {
		if hopByHop[k] {
			delete(h, k)
		}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = ownAgent
	}
	return h
}
