package proxytest

import (
	"io"
	"net/http"
	"strconv"
)

// FailingUpstream is a handler in front of a registry whose n-th request fails.
//
//	FaultError        500 before the request is processed, its body not read
//	FaultAfter        processed, then answered 500
//	FaultPartial      half of the request's body is passed on, then the connection is cut, on both sides
//	FaultDead         this connection and all later ones are cut
//	FaultCut          cut before the request is processed
//	FaultCutAfter     processed, then cut: a lost answer
//	FaultUnavailable  503 UNAVAILABLE; FaultTooMany 429 TOOMANYREQUESTS with Retry-After: 0; FaultDenied 403 DENIED
//	FaultNotFound     404 NOT_FOUND, of whatever is there; FaultBadGateway 502
type FailingUpstream struct {
	*Fault
	next http.Handler
	// Only limits what is counted and may fail; nil is every request.
	Only func(*http.Request) bool
}

// NewFailingUpstream wraps a registry; nothing fails until Fail. Use it as UpstreamOptions.Wrap:
//
//	var failing *FailingUpstream
//	NewOlareg(t, UpstreamOptions{Wrap: func(h http.Handler) http.Handler { failing = NewFailingUpstream(h); return failing }})
func NewFailingUpstream(next http.Handler) *FailingUpstream {
	return &FailingUpstream{Fault: &Fault{}, next: next}
}

func (f *FailingUpstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.Only != nil && !f.Only(r) {
		f.next.ServeHTTP(w, r)
		return
	}
	switch f.call(r.Method + " " + r.URL.Path) {
	case "":
		f.next.ServeHTTP(w, r)
	case FaultError:
		refuse(w, r, http.StatusInternalServerError, "UNKNOWN")
	case FaultUnavailable:
		refuse(w, r, http.StatusServiceUnavailable, "UNAVAILABLE")
	case FaultBadGateway:
		refuse(w, r, http.StatusBadGateway, "UNAVAILABLE")
	case FaultNotFound:
		refuse(w, r, http.StatusNotFound, "NOT_FOUND")
	case FaultTooMany:
		w.Header().Set("Retry-After", "0")
		refuse(w, r, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	case FaultDenied:
		refuse(w, r, http.StatusForbidden, "DENIED")
	case FaultAfter:
		f.next.ServeHTTP(newForgetful(), r)
		refuse(w, r, http.StatusInternalServerError, "UNKNOWN")
	case FaultPartial:
		if r.ContentLength > 1 {
			r.Body = &halfBody{body: r.Body, left: r.ContentLength / 2}
			f.next.ServeHTTP(newForgetful(), r)
		}
		panic(http.ErrAbortHandler)
	case FaultCutAfter, FaultDeadAfter:
		f.next.ServeHTTP(newForgetful(), r)
		panic(http.ErrAbortHandler)
	default: // FaultCut, FaultDead
		panic(http.ErrAbortHandler)
	}
}

func refuse(w http.ResponseWriter, r *http.Request, status int, code string) {
	b := []byte(`{"errors":[{"code":"` + code + `","message":"refused by the test: ` + strconv.Itoa(status) + `"}]}`)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b) // whoever has gone need not be told
	}
}

// forgetful takes an answer that nobody will see.
type forgetful struct{ header http.Header }

func newForgetful() *forgetful                   { return &forgetful{header: http.Header{}} }
func (f *forgetful) Header() http.Header         { return f.header }
func (f *forgetful) WriteHeader(int)             {}
func (f *forgetful) Write(p []byte) (int, error) { return len(p), nil }

// halfBody ends with what the server sees of a client that went away.
type halfBody struct {
	body io.ReadCloser
	left int64
}

func (h *halfBody) Read(p []byte) (int, error) {
	if h.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := h.body.Read(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	return n, err
}

func (h *halfBody) Close() error { return h.body.Close() }
