package proxy

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"

	v2 "github.com/distribution/distribution/v3/registry/api/v2"
	"go.opentelemetry.io/otel/trace"

	"sluice/proxy/observe"
)

// A watched is one request as metrics and the access log see it: the writer that notes what is answered,
// and what the handlers find out on the way. It is one allocation, and stands in the way of no byte.
type watched struct {
	http.ResponseWriter
	status  int // 0: none yet
	written int64

	route     observe.Route
	manifest  bool // a manifest is pushed
	byDigest  bool
	action    string // of the rule
	pushed    observe.PushResult
	succeeded bool // pushed says what became of it

	repo     string
	identity string

	// for the access log and traces
	reference string
	trace     string
	span      trace.Span // nil: off
	body      *arrives

	waited   atomic.Int64  // nanoseconds, for upstream to show what was pushed (gap.go)
	readTime time.Duration // that its client may read nothing: it would keep its download, and what that costs here, for ever
	exchange exchange      // what Proxy.exchange makes of the request: one piece with this, since nearly every request has both
}

// watch counts every request, whatever becomes of it.
func (p *Proxy) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		seen := &watched{ResponseWriter: w, readTime: p.readTime}
		p.observe.Arrived()
		if p.traces != nil {
			r, seen.span = p.traces.Arrived(r)
			seen.trace = seen.span.SpanContext().TraceID().String()
		}
		if p.cfg.AccessLog {
			seen.body = &arrives{ReadCloser: r.Body}
			if r.Body != http.NoBody {
				r.Body = seen.body
			}
		}
		whole := false
		defer func() {
			if !whole {
				seen.status = 0 // a panic: the connection is cut, whatever was said before
			}
			p.seen(seen, r, time.Since(start))
		}()
		next.ServeHTTP(seen, r)
		whole = true
	})
}

func (p *Proxy) seen(seen *watched, r *http.Request, took time.Duration) {
	defer p.observe.Left()
	if seen.body != nil {
		p.logAccess(seen, r, took)
	}
	p.observe.Answered(seen.route, r.Method, seen.status, took, seen.written)
	result := seen.pushed
	if seen.manifest {
		if !seen.succeeded || seen.status == 0 || seen.status >= 300 {
			result = observe.PushEnded(seen.status)
		}
		p.observe.Pushed(seen.action, seen.byDigest, result)
	}
	if seen.span != nil {
		q := observe.Request{
			Method: r.Method, Route: seen.route, Repository: seen.repo, Reference: seen.reference, Action: seen.action,
			Identity: clip(seen.identity), Status: seen.status, BytesOut: seen.written,
		}
		if seen.manifest {
			q.Result = result.String()
		}
		p.traces.Left(seen.span, q)
	}
}

// watching is what watch made of w, or something that nobody looks at, as for a part of a request.
func watching(w http.ResponseWriter) *watched {
	if seen, ok := w.(*watched); ok {
		return seen
	}
	return &watched{}
}

// became notes what was made of the pushed manifest.
func (w *watched) became(result observe.PushResult) { w.pushed, w.succeeded = result, true }

func (w *watched) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	if len(b) > socketful {
		w.within(w.readTime)
		defer w.within(0)
	}
	n, err := w.ResponseWriter.Write(b)
	w.written += int64(n)
	return n, err
}

// ReadFrom keeps what the server's own writer has: pooled buffers.
func (w *watched) ReadFrom(r io.Reader) (int64, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	from := &readToBeWritten{r: r, w: w}
	n, err := io.Copy(w.ResponseWriter, from)
	w.written += n
	if from.n > socketful {
		if err == nil {
			_ = http.NewResponseController(w.ResponseWriter).Flush() // the rest, while there is a deadline
		}
		w.within(0)
	}
	return n, err
}

// socketful is what any connection takes at once.
const socketful = 64 << 10

// within sets the deadline of what is written next; 0 takes it back, since the connection may have another request.
func (w *watched) within(d time.Duration) {
	var end time.Time
	if d > 0 {
		end = time.Now().Add(d)
	}
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(end)
}

// readToBeWritten gives the client its time whenever there is something to be written.
type readToBeWritten struct {
	r    io.Reader
	w    *watched
	n    int64
	last time.Time
}

func (t *readToBeWritten) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if t.n += int64(n); t.n > socketful {
		if now := time.Now(); now.Sub(t.last) > t.w.readTime/10 { // not for every buffer
			t.last = now
			t.w.within(t.w.readTime)
		}
	}
	return n, err
}

// Unwrap is how http.ResponseController finds deadlines, flushing and full duplex.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// routeOf gives a route of distribution's router its label.
func routeOf(name string) observe.Route {
	switch name {
	case v2.RouteNameBase:
		return observe.RouteBase
	case v2.RouteNameCatalog:
		return observe.RouteCatalog
	case v2.RouteNameManifest:
		return observe.RouteManifest
	case v2.RouteNameTags:
		return observe.RouteTags
	case v2.RouteNameBlob:
		return observe.RouteBlob
	case v2.RouteNameBlobUpload:
		return observe.RouteUploads
	case v2.RouteNameBlobUploadChunk:
		return observe.RouteUpload
	case routeNameReferrers:
		return observe.RouteReferrers
	}
	return observe.RouteOther
}
