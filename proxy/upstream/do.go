package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"

	"sluice/proxy/internal/h1"
)

// muteFor is how long a registry is not asked for its agreement after it stayed silent once: some
// front ends ignore Expect, and every upload would wait for expectTimeout.
const muteFor = 10 * time.Minute

// expectTimeout is how long a streamed body waits for the registry's agreement.
const expectTimeout = 2 * time.Second

var errHeaderTimeout = errors.New("no answer in time")

func (r *Registry) asks() bool { return r.now().UnixNano() >= r.mutedUntil.Load() }

func (r *Registry) mute() { r.mutedUntil.Store(r.now().Add(muteFor).UnixNano()) }

// Do sends a request. Any status is a response, 401 of Passthrough and of credentials that do not
// suffice included; the caller closes its body. Errors: ErrUnreachable, ErrCredentials, ErrRenewed,
// ErrHost, ErrBody, ErrCreate, ErrThrottled, or a request that cannot be built.
//
// While a streamed Body is being read, a failing registry ends the request only when the pending
// Read of the Body returns; cancelling ctx must end that Read too, as a server's request body does.
func (r *Registry) Do(ctx context.Context, q Request) (*http.Response, error) {
	resp, err := r.send(ctx, q)
	r.ended(ctx, resp, err)
	return resp, err
}

// once is Do without what is put around it.
func (r *Registry) once(ctx context.Context, q Request) (*http.Response, error) {
	p, err := r.plan(q)
	if err != nil {
		return nil, err
	}
	defer p.done()
	resp, err := r.do(ctx, p)
	if err != nil && q.Mount != "" && errors.Is(err, ErrCredentials) && ctx.Err() == nil {
		// A token service may refuse the token as a whole because of the other repository. Without it
		// the registry opens a session instead of mounting.
		q.Mount = ""
		p.q = q
		resp, err = r.do(ctx, p)
	}
	if err == nil && p.follow {
		resp, err = r.redirected(ctx, p, resp)
	}
	return resp, err
}

func (r *Registry) do(ctx context.Context, p *plan) (*http.Response, error) {
	l := lease{header: p.q.Authorization}
	authorized := p.own && r.mode != Passthrough
	if authorized {
		var err error
		if l, err = r.auth.lease(ctx, p); err != nil {
			return nil, err
		}
	}
	renewals, lost := 0, false
	for try := r.newRetry(); ; {
		resp, b, err := r.paced(ctx, p, try, l.header)
		whole := b == nil || b.seal() // the body may be sent once more
		if err != nil {
			if b != nil && b.failed() != nil {
				return nil, errorf(ErrBody, b.failed(), "request body for repository %s on its way to upstream %s ended early: %s", p.q.Repository, r.base.Host, brief(b.failed()))
			}
			if connection(err) && (p.repeat || p.post || p.stream != nil && whole || refused(err)) && try.again(ctx) {
				lost = lost || !refused(err)
				continue
			}
			return nil, unreachable(p.url.Host, err)
		}
		if lost && p.q.Method == http.MethodDelete && resp.StatusCode == http.StatusNotFound {
			Discard(resp)
			return p.gone(), nil
		}
		if resp.StatusCode == http.StatusExpectationFailed && b != nil && b.asks {
			r.mute() // who sends without asking does not see this
			if whole {
				Discard(resp)
				continue
			}
		}
		wait, late := transient(resp)
		renews := authorized && (renewals == 0 || renewals < retryAttempts && r.auth.lapsed(l))
		stale := renews && r.stale(resp, l)
		switch {
		case renews && (resp.StatusCode == http.StatusUnauthorized || stale):
			renewals++
			if !whole {
				r.auth.forget(l) // for the next request; this one's bytes are gone
			}
			if l.scopes == nil { // nobody has asked for them yet
				l.scopes = scopes(p.q)
				l.key = key(l.scopes)
			}
			next, better, err := r.auth.renew(ctx, l, challenges(resp.Header))
			if !whole {
				if stale || err == nil && better {
					Discard(resp)
					return nil, errorf(ErrRenewed, nil, "upstream %s refused its token while a body was sent to repository %s; send it again", r.base.Host, p.q.Repository)
				}
				return resp, nil
			}
			if err != nil {
				if stale && silent(resp) && ctx.Err() == nil && !r.auth.lapsed(l) {
					return resp, nil // the doubt was only one: what the registry says counts
				}
				Discard(resp)
				return nil, err
			}
			if better {
				l = next
				Discard(resp)
				continue
			}
		case late && (p.repeat || p.undone(resp, whole)):
			if pause, fits := try.next(wait); fits {
				Discard(resp)
				// What says so stands in front of the registry, and does not know what that has done.
				lost = lost || resp.StatusCode == http.StatusBadGateway || resp.StatusCode == http.StatusGatewayTimeout
				if try.sleep(ctx, pause) {
					continue
				}
				return nil, unreachable(p.url.Host, ctx.Err())
			}
		}
		return resp, nil
	}
}

// gone is the answer to a DELETE that was repeated, since the answer to an earlier one was lost, and that finds nothing any more.
func (p *plan) gone() *http.Response {
	status := http.StatusAccepted
	if p.q.Location != "" { // an upload
		status = http.StatusNoContent
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody,
		Request: &http.Request{Method: p.q.Method, URL: p.url, Host: p.url.Host},
	}
}

// refused is a connection that was never made, so that nothing at all was sent.
func refused(err error) bool {
	var d *dialError
	return errors.As(err, &d)
}

// attempt sends the request once. The body is nil unless it streams; it is let go when the response's
// body is closed.
func (r *Registry) attempt(ctx context.Context, p *plan, u *url.URL, authorization string) (resp *http.Response, b *body, err error) {
	defer func() { unsay(resp, authorization) }()
	header := p.header
	if p.sent { // the transport may still be reading those of the last attempt
		header = header.Clone()
	}
	p.sent = true
	delete(header, "Authorization")
	delete(header, "Expect")
	delete(header, "Traceparent") // a redirect may lead to somebody who is not to see what the registry was told
	delete(header, "Tracestate")
	if authorization != "" {
		header["Authorization"] = []string{authorization}
	}
	if p.stream != nil {
		return r.stream(ctx, p, newRequest(ctx, p.q.Method, u, header))
	}
	if r.quick == nil {
		return r.bounded(ctx, p, u, header)
	}
	req := newRequest(ctx, p.q.Method, u, header)
	var payload *h1.Body
	if len(p.replay) > 0 {
		payload = h1.NewBody(p.replay)
		req.Body, req.ContentLength = payload, int64(len(p.replay))
	}
	transport := r.quick
	if p.ends {
		transport = r.closing
	}
	resp, err = p.read(r.roundTrip(p.operation(), transport, req))
	p.lent = p.lent || payload != nil && payload.Lent()
	if err != nil && (errors.Is(err, h1.ErrHeaderTimeout) || strings.HasSuffix(err.Error(), "timeout awaiting response headers")) { // net/http's has no name
		err = errHeaderTimeout
	}
	return resp, nil, err
}

// newRequest is http.NewRequestWithContext for what has been taken apart already.
func newRequest(ctx context.Context, method string, u *url.URL, header http.Header) *http.Request {
	template := http.Request{Method: method, URL: u, Host: u.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return template.WithContext(ctx)
}

// bounded sends a request over a transport that bounds no wait itself.
func (r *Registry) bounded(ctx context.Context, p *plan, u *url.URL, header http.Header) (*http.Response, *body, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req := newRequest(ctx, p.q.Method, u, header)
	if len(p.replay) > 0 {
		p.lent = true
		req.Body = io.NopCloser(bytes.NewReader(p.replay)) // a type that http.Transport sends together with the headers
		req.ContentLength = int64(len(p.replay))
	}
	timeout := r.headerTimeout
	if p.ends {
		timeout = r.patience
	}
	timer := time.AfterFunc(timeout, func() { cancel(errHeaderTimeout) })
	resp, err := r.roundTrip(p.operation(), r.transport, req)
	timer.Stop()
	if err != nil {
		cancel(nil)
		return nil, nil, err
	}
	if resp.Body == http.NoBody {
		cancel(nil)
	} else {
		resp.Body = &answer{ReadCloser: resp.Body, done: func() { cancel(nil) }}
	}
	resp, err = p.read(resp, nil)
	return resp, nil, err
}

// stream sends a request with a body that can be read once. How long it takes is up to the client;
// what bounds the wait for an answer behind it is the transport's ResponseHeaderTimeout.
func (r *Registry) stream(ctx context.Context, p *plan, req *http.Request) (*http.Response, *body, error) {
	b := newBody(p.stream, p.length)
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { b.sentOn(i.Conn) }}
	if r.asks() {
		b.asks, b.wait, b.mute = true, expectTimeout, r.mute
		req.Header["Expect"] = []string{"100-continue"}
		trace.GotFirstResponseByte = func() { b.answered.Store(true) }
		trace.Got100Continue = func() { b.agreed.Store(true) }
		trace.Got1xxResponse = b.informed
	}
	req.Body, req.ContentLength = b, p.length
	resp, err := r.roundTrip(p.operation(), steady{r.transport}, req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil {
		b.seal()
		b.free()
		return nil, b, err
	}
	b.seal()
	if resp.Body == http.NoBody {
		b.free()
	} else {
		resp.Body = &answer{ReadCloser: resp.Body, done: b.free}
	}
	return resp, b, nil
}
