package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"time"
)

// An Observer is told of what is sent. Its methods are called by many goroutines and must not wait.
type Observer interface {
	// Answered is called for each attempt that got the header of an answer. The operation is one of
	// read, write (a body that may be repeated, or none), stream, and token (of a token service).
	Answered(operation string, status int, took time.Duration)
	// Failed is called once for a request that ended without an answer, or with one that says that
	// something is wrong. The kind is one of unreachable, dns, tls, timeout, credentials, host (named
	// by upstream, and not allowed), body (the client's), canceled, unauthorized (but not under
	// passthrough, where that is how clients are asked), throttled, server_error.
	Failed(kind string)
	// Retried is called before each attempt after the first.
	Retried()
}

// A Tracer follows what is sent: it gives the request to send in req's place, and what is called with the header of
// the answer. own is true for the registry's own host.
type Tracer interface {
	Sent(req *http.Request, operation string, own bool) (*http.Request, func(status int, err error))
}

const (
	opRead   = "read"
	opWrite  = "write"
	opStream = "stream"
	opToken  = "token"
)

func (p *plan) operation() string {
	switch {
	case p.stream != nil:
		return opStream
	case p.q.Method == http.MethodGet || p.q.Method == http.MethodHead:
		return opRead
	}
	return opWrite
}

// roundTrip is the only way to the transport.
func (r *Registry) roundTrip(operation string, over http.RoundTripper, req *http.Request) (*http.Response, error) {
	resp, err := r.traced(operation, over, req)
	if err == nil {
		if err = r.refusedByProxy(req, resp); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
	}
	return resp, err
}

func (r *Registry) traced(operation string, over http.RoundTripper, req *http.Request) (*http.Response, error) {
	if r.tracer != nil {
		var end func(int, error)
		req, end = r.tracer.Sent(req, operation, operation != opToken && r.origin(req.URL))
		resp, err := r.timed(operation, over, req)
		status := 0
		if err == nil {
			status = resp.StatusCode
		}
		end(status, err)
		return resp, err
	}
	return r.timed(operation, over, req)
}

func (r *Registry) timed(operation string, over http.RoundTripper, req *http.Request) (*http.Response, error) {
	if r.observer == nil {
		return over.RoundTrip(req)
	}
	start := r.now()
	resp, err := over.RoundTrip(req)
	if err == nil {
		r.observer.Answered(operation, resp.StatusCode, r.now().Sub(start))
	}
	return resp, err
}

// ended tells the observer of what Do gives back.
func (r *Registry) ended(ctx context.Context, resp *http.Response, err error) {
	if r.observer == nil {
		return
	}
	if err != nil {
		r.observer.Failed(errorKind(ctx, err))
		return
	}
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests:
		r.observer.Failed("throttled")
	case code >= 500:
		r.observer.Failed("server_error")
	case (code == http.StatusUnauthorized || code == http.StatusForbidden) && !r.Passthrough():
		r.observer.Failed("unauthorized")
	}
}

func errorKind(ctx context.Context, err error) string {
	var (
		dns         *net.DNSError
		timeout     interface{ Timeout() bool }
		unknown     x509.UnknownAuthorityError
		hostname    x509.HostnameError
		invalid     x509.CertificateInvalidError
		record      tls.RecordHeaderError
		certificate *tls.CertificateVerificationError
	)
	switch {
	case ctx.Err() != nil || errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, ErrBody):
		return "body"
	case errors.Is(err, ErrCredentials), errors.Is(err, ErrCreate):
		return "credentials"
	case errors.Is(err, ErrThrottled):
		return "throttled"
	case errors.Is(err, ErrHost):
		return "host"
	case errors.As(err, &dns):
		return "dns"
	case errors.As(err, &unknown), errors.As(err, &hostname), errors.As(err, &invalid), errors.As(err, &record), errors.As(err, &certificate):
		return "tls"
	case errors.Is(err, errHeaderTimeout), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, ErrUnreachable):
		return "unreachable"
	}
	return "other"
}
