package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sluice/proxy/upstream"
)

// maxErrorBody bounds what is read of an upstream answer that is not a document or a layer.
const maxErrorBody = 64 << 10

// own are headers that speak of the connection, of the upstream host, or that Sluice answers itself.
var own = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Connection": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Alt-Svc": true, "Strict-Transport-Security": true,
	"Set-Cookie": true, "Location": true, "Link": true, "Docker-Upload-Uuid": true, "Date": true, "Server": true,
	"Www-Authenticate": true, "Docker-Distribution-Api-Version": true,
}

// copyHeader takes over what upstream says about a document, and not what it says for this connection only (RFC 9110 section
// 7.6.1).
func copyHeader(to, from http.Header) {
	var hop []string
	for _, v := range from["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			hop = append(hop, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	for k, v := range from {
		if !own[k] && !slices.Contains(hop, k) {
			to[k] = v
		}
	}
}

// discard lets the connection to upstream be used again.
func discard(resp *http.Response) { upstream.Discard(resp) }

func (k *keptAnswer) response() *http.Response {
	return &http.Response{
		StatusCode: k.status, Status: fmt.Sprintf("%d %s", k.status, http.StatusText(k.status)),
		Header: k.header.Clone(), Body: io.NopCloser(bytes.NewReader(k.body)), ContentLength: int64(len(k.body)), Request: k.req,
	}
}

// passResponse gives the client upstream's answer: status, headers that concern it, body.
func (ex *exchange) passResponse(resp *http.Response) {
	defer discard(resp)
	if f := ex.refusedCredentials(resp); f != nil {
		ex.log.Error("upstream refused sluice", "upstream", ex.up.Host(), "status", resp.StatusCode, "reason", f.Message)
		writeFailure(ex.w, f)
		return
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.StatusCode != http.StatusNotModified &&
		ex.r.Method != http.MethodGet && ex.r.Method != http.MethodHead {
		// A client that follows it would go around Sluice, with its index as it is (I2).
		f := refuse(http.StatusBadGateway, codeUnavailable, "upstream redirects writes to %s: set upstreams[].url of sluice to it", redirectHost(resp))
		ex.log.Error("upstream redirects a write", "reason", f.Message)
		writeFailure(ex.w, f)
		return
	}
	if resp.Request != nil && resp.Request.Method == http.MethodHead && ex.r.Method != http.MethodHead && resp.StatusCode >= 300 {
		writeFailure(ex.w, ex.refusedHead(resp))
		return
	}
	h := ex.w.Header()
	copyHeader(h, resp.Header)
	if ex.up.Passthrough() {
		// The challenge is upstream's: the client answers it with credentials of its own.
		for _, c := range resp.Header.Values("WWW-Authenticate") {
			h.Add("WWW-Authenticate", c)
		}
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		if l, err := resolveLocation(resp); err == nil {
			h.Set("Location", l)
		}
	}
	if resp.ContentLength >= 0 && h.Get("Content-Length") == "" && ex.r.Method != http.MethodHead {
		ex.say("Content-Length", decimal(resp.ContentLength))
	}
	ex.answers = true
	ex.w.WriteHeader(resp.StatusCode)
	if ex.r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(ex.w, resp.Body); err != nil {
		ex.log.Info("answer cut", "method", ex.r.Method, "status", resp.StatusCode, "reason", err)
		panic(http.ErrAbortHandler) // the client must not take a part for the whole
	}
}

// refusedHead is upstream's refusal of a HEAD of Sluice's own, for a client that asked for something else: it waits for the
// body that the Content-Length promises, and upstream sent none.
func (ex *exchange) refusedHead(resp *http.Response) *Failure {
	status, code := resp.StatusCode, "UNKNOWN"
	switch {
	case status == http.StatusUnauthorized:
		code = codeUnauthorized
	case status == http.StatusForbidden:
		code = codeDenied
	case status == http.StatusTooManyRequests:
		code = codeTooManyRequests
	case status == http.StatusMethodNotAllowed:
		code = codeUnsupported
	case status < 400: // it leads to something else than the client asked for
		status, code = http.StatusBadGateway, codeUnavailable
	case status >= 500:
		code = codeUnavailable
	}
	f := refuse(status, code, "upstream answered %s to HEAD, by which sluice looked into %s for this request", resp.Status, ex.about())
	f.Header = http.Header{}
	for k, v := range resp.Header {
		about := k == "Www-Authenticate" && ex.up.Passthrough() || k == "Retry-After" || strings.Contains(strings.ToLower(k), "ratelimit")
		if about {
			f.Header[k] = v
		}
	}
	return f
}

// refusedCredentials is the answer when upstream refuses Sluice's own credentials. Passing a 401 on
// would make the client ask its user to log in again, which cannot help.
func (ex *exchange) refusedCredentials(resp *http.Response) *Failure {
	if ex.up.Passthrough() {
		return nil
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
	case http.StatusBadRequest, http.StatusForbidden:
		if !ex.onECR() || !upstream.SaysExpired(resp) {
			return nil
		}
	default:
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	said := "it did not say why"
	if text := strings.TrimSpace(string(body)); text != "" {
		said = "it said: " + clip(text)
	}
	if resp.Request != nil && resp.Request.Header.Get("Authorization") == "" {
		return refuse(http.StatusForbidden, codeDenied,
			"upstream %s wants a login for %s, and sluice has none for it: set upstreams[].credentials of sluice, your own login cannot help (%s)",
			ex.up.Host(), ex.about(), said)
	}
	return refuse(http.StatusForbidden, codeDenied,
		"upstream %s refused the credentials that sluice sends for %s: check upstreams[].credentials of sluice, not your own login (%s)",
		ex.up.Host(), ex.about(), said)
}

// redirectHost is where a redirect leads, without its path and query, which may hold secrets.
func redirectHost(resp *http.Response) string {
	l, err := resolveLocation(resp)
	if err != nil {
		return "another place"
	}
	u, err := url.Parse(l)
	if err != nil {
		return "another place"
	}
	return u.Scheme + "://" + u.Host
}

// resolveLocation makes a redirect absolute, so that it does not point back at Sluice.
func resolveLocation(resp *http.Response) (string, error) {
	l, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		return "", err
	}
	return resp.Request.URL.ResolveReference(l).String(), nil
}

// passBase passes the API version check on to the one upstream that authenticates clients itself.
func (p *Proxy) passBase(w http.ResponseWriter, r *http.Request, u *upstream.Registry) {
	ex := &exchange{p: p, w: w, seen: watching(w), r: r, up: u, auth: r.Header.Get("Authorization"), log: p.log}
	if err := ex.pass(upstream.Request{Method: r.Method}); err != nil {
		ex.finish(err, 0)
	}
}

// errLongDocument is a manifest of upstream's with more bytes than it may have.
var errLongDocument = errors.New("document is larger than")

// documentTime is what a manifest or a list of upstream's may take to arrive: Sluice waits for it as a whole, and a client for Sluice.
const documentTime = slowTime

// errSlowDocument is one that comes all the time, and not to its end.
var errSlowDocument = fmt.Errorf("document did not arrive in %v", documentTime)

// readDocument reads a manifest that upstream sent, within the size that a manifest may have, and the time.
func readDocument(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(&documentBody{resp.Body, time.Now().Add(documentTime)}, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w %d bytes", errLongDocument, limit)
	}
	return b, nil
}

// askWhole asks upstream for a document of at most so many bytes, which is read: one that breaks off is asked for
// again, like one that does not come. Without an answer resp is nil; an error beside a 200 is why it could not be read.
func askWhole(ask func(upstream.Request) (*http.Response, error), q upstream.Request, limit int64) (resp *http.Response, b []byte, err error) {
	var last *http.Response
	var unread error
	q.Read = func(resp *http.Response) error {
		last = resp
		b, unread = readDocument(resp, limit)
		if errors.Is(unread, errLongDocument) || errors.Is(unread, errSlowDocument) {
			return nil // the next one would be no better
		}
		return unread
	}
	resp, err = ask(q)
	switch {
	case err == nil && resp.StatusCode == http.StatusOK:
		return resp, b, unread
	case err == nil:
		return resp, nil, nil
	case unread != nil && !errors.Is(err, context.Canceled):
		return last, nil, unread
	}
	return nil, nil, err
}

// documentBody ends at the first part that comes too late. That one comes or ends in a time of its own (upstream's stallTimeout).
type documentBody struct {
	r   io.Reader
	end time.Time
}

func (d *documentBody) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err == nil && time.Now().After(d.end) {
		err = errSlowDocument
	}
	return n, err
}
