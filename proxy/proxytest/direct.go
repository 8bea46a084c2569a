package proxytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Direct answers requests by a handler in this process, without a network, so that nothing waits but for what the handler
// waits for. A request's context goes along, with its values. As in a server it ends with the answer. Who asks goes when the
// context ends, and the handler goes on: it sees that, and the end of the body.
type Direct struct {
	Handler http.Handler
	// Woven makes each request a step of a Weave, once its body is there.
	Woven bool
}

var _ http.RoundTripper = (*Direct)(nil)

var errCut = errors.New("the handler has cut the connection")

// RoundTrip returns when the whole answer is there.
func (d *Direct) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	in := req.Clone(ctx)
	in.RequestURI, in.RemoteAddr, in.Proto, in.ProtoMajor, in.ProtoMinor = req.URL.RequestURI(), "127.0.0.1:1", "HTTP/1.1", 1, 1
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	in.Header.Del("Expect")
	if in.Body == nil {
		in.Body = http.NoBody
	}
	in.Body = &directBody{in.Body, ctx}
	if d.Woven {
		defer cancel()
		defer in.Body.Close()
		body, err := io.ReadAll(in.Body)
		if err != nil {
			return nil, err
		}
		in.Body = io.NopCloser(bytes.NewReader(body))
		Step(ctx, req.Method+" "+req.URL.Path)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a := &directAnswer{header: http.Header{}}
		if cut := a.serve(d.Handler, in); cut {
			return nil, errCut
		}
		return a.response(req), nil
	}
	a, done := &directAnswer{header: http.Header{}}, make(chan bool, 1)
	go func() {
		defer cancel()
		defer in.Body.Close()
		done <- a.serve(d.Handler, in)
	}()
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case cut := <-done:
		if cut {
			return nil, errCut
		}
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	return a.response(req), nil
}

// A directBody ends when the one who sends it goes.
type directBody struct {
	io.ReadCloser
	ctx context.Context
}

func (b *directBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, io.ErrUnexpectedEOF
	}
	return b.ReadCloser.Read(p)
}

// A directAnswer takes what a handler answers.
type directAnswer struct {
	header http.Header
	sent   http.Header // as it was when the status was
	status int
	body   bytes.Buffer
}

func (a *directAnswer) serve(h http.Handler, r *http.Request) (cut bool) {
	defer func() {
		if v := recover(); v == http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
			cut = true
		} else if v != nil {
			panic(v)
		}
	}()
	h.ServeHTTP(a, r)
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return false
}

func (a *directAnswer) Header() http.Header { return a.header }

func (a *directAnswer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status, a.sent = status, a.header.Clone()
	}
}

func (a *directAnswer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return a.body.Write(p)
}

// Flush and what follows are for http.ResponseController.
func (a *directAnswer) Flush()                           {}
func (a *directAnswer) SetReadDeadline(time.Time) error  { return nil }
func (a *directAnswer) SetWriteDeadline(time.Time) error { return nil }
func (a *directAnswer) EnableFullDuplex() error          { return nil }

func (a *directAnswer) response(req *http.Request) *http.Response {
	resp := &http.Response{
		Status: strconv.Itoa(a.status) + " " + http.StatusText(a.status), StatusCode: a.status, Header: a.sent,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: req, ContentLength: int64(a.body.Len()), Body: http.NoBody,
	}
	if said, err := strconv.ParseInt(a.sent.Get("Content-Length"), 10, 64); err == nil {
		resp.ContentLength = said
	} else if req.Method != http.MethodHead {
		resp.Header.Set("Content-Length", strconv.Itoa(a.body.Len()))
	}
	if req.Method != http.MethodHead && a.body.Len() > 0 {
		resp.Body = io.NopCloser(&a.body)
	}
	return resp
}
