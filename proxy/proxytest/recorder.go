package proxytest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Recorder writes down the requests that pass through it, as a handler in front of a registry or as a client's transport.
// It is safe for concurrent use and streams: of a body it keeps the digest, the size and the first bytes.
type Recorder struct {
	mu        sync.Mutex
	names     map[string]string
	exchanges []*Exchange
	clock     *clock
}

// Exchange is one request and what was answered.
type Exchange struct {
	Method string
	Path   string // /v2/… as sent
	Query  url.Values
	Header http.Header // the request's

	BodySize   int64  // bytes that came through
	BodyDigest string // of those; "" without a body
	BodyStart  []byte // at most 4 KiB

	Status         int // 0: the connection was cut
	ResponseHeader http.Header

	began int64 // on the clock that both sides of a Transcript share
}

// clock orders the exchanges of two recorders.
type clock struct {
	mu  sync.Mutex
	now int64
}

func (c *clock) tick() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now++
	return c.now
}

// NewRecorder knows the names of the trees' contents.
func NewRecorder(trees ...*Tree) *Recorder {
	r := &Recorder{names: map[string]string{}, clock: &clock{}}
	for _, t := range trees {
		r.Name(t.Names())
	}
	return r
}

// Name adds names by digest; the first name of a digest stays.
func (r *Recorder) Name(names map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for digest, name := range names {
		if _, ok := r.names[digest]; !ok {
			r.names[digest] = name
		}
	}
}

// Reset forgets the exchanges, so that the next push begins a new transcript.
func (r *Recorder) Reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exchanges = nil
}

// Exchanges are copies, in order of the requests' beginning.
func (r *Recorder) Exchanges() []Exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Exchange, len(r.exchanges))
	for i, e := range r.exchanges {
		all[i] = *e
		all[i].Header, all[i].ResponseHeader = e.Header.Clone(), e.ResponseHeader.Clone()
	}
	return all
}

// Count is the number of requests.
func (r *Recorder) Count() int { return len(r.Exchanges()) }

// Handler records what a server is asked.
func (r *Recorder) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		e := r.begin(req)
		body := &tap{body: req.Body, hash: sha256.New()}
		req.Body = body
		rw := &statusWriter{ResponseWriter: w}
		finished := false
		defer func() {
			if finished && rw.status == 0 {
				rw.status = http.StatusOK
			}
			if !finished && rw.status == 0 {
				rw.header = nil
			}
			r.end(e, body, rw.status, rw.header)
		}()
		next.ServeHTTP(rw, req)
		finished = true
	})
}

// Transport records what a client sends; next nil is http.DefaultTransport.
func (r *Recorder) Transport(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		e := r.begin(req)
		body := &tap{body: req.Body, hash: sha256.New()}
		if req.Body != nil && req.Body != http.NoBody {
			req = req.Clone(req.Context())
			req.Body = body
		}
		resp, err := next.RoundTrip(req)
		if err != nil {
			r.end(e, body, 0, nil)
			return nil, err
		}
		r.end(e, body, resp.StatusCode, resp.Header)
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func (r *Recorder) begin(req *http.Request) *Exchange {
	e := &Exchange{Method: req.Method, Path: req.URL.Path, Query: req.URL.Query(), Header: req.Header.Clone()}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.began = r.clock.tick()
	r.exchanges = append(r.exchanges, e)
	return e
}

func (r *Recorder) end(e *Exchange, body *tap, status int, header http.Header) {
	size, digest, start := body.sum()
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Status, e.ResponseHeader = status, header.Clone()
	if e.BodySize, e.BodyStart = size, start; size > 0 {
		e.BodyDigest = digest
	}
}

// tap hashes what is read through it; net/http may close it from another goroutine.
type tap struct {
	body io.ReadCloser
	mu   sync.Mutex
	hash hash.Hash
	size int64
	head []byte
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.body.Read(p)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hash.Write(p[:n])
	t.size += int64(n)
	if room := 4096 - len(t.head); room > 0 {
		t.head = append(t.head, p[:min(n, room)]...)
	}
	return n, err
}

func (t *tap) Close() error { return t.body.Close() }

func (t *tap) sum() (int64, string, []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size, "sha256:" + hex.EncodeToString(t.hash.Sum(nil)), slices.Clone(t.head)
}

// statusWriter keeps the status and the headers as they were sent.
type statusWriter struct {
	http.ResponseWriter
	status int
	header http.Header
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 { // 100 Continue is no answer
		w.status, w.header = status, w.Header().Clone()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status, w.header = http.StatusOK, w.Header().Clone()
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach Flush, Hijack and EnableFullDuplex.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

var (
	sessionPath = regexp.MustCompile(`(/blobs/uploads/)[^/?]+`)
	digestText  = regexp.MustCompile(`sha256[:-][0-9a-f]{64}`)
	// Queries that mean something to the registry; the others are upload state, different each time.
	meaningful = []string{"artifactType", "digest", "from", "last", "mount", "n", "ns", "tag"}
	// Answers' headers that a client or an invariant looks at.
	interesting = []string{"Docker-Content-Digest", "Sluice-Forwarded-Digest", "Oci-Subject", "Warning", "Www-Authenticate", "Retry-After", "Content-Range", "Range"}
)

// Line is an exchange as goldens show it:
//
//	PUT /v2/app/manifests/1 (index, application/vnd.oci.image.index.v1+json) 201
//	HEAD /v2/app/blobs/statement-amd64-sbom [in-toto] 404
//	PUT /v2/app/blobs/uploads/<session>?digest=layer-amd64-1 (layer-amd64-1) 201
//
// Digests are names, those without one their first twelve digits; session identifiers and upload state are left out. The
// digest in the answer to a PUT is shown when it is not that of what was put (I5), and so is its absence.
func (r *Recorder) Line(e Exchange) string {
	r.mu.Lock()
	names := maps.Clone(r.names)
	r.mu.Unlock()
	name := func(s string) string {
		return digestText.ReplaceAllStringFunc(s, func(d string) string {
			if n := names[strings.Replace(d, "-", ":", 1)]; n != "" {
				if d[6] == '-' {
					return "sha256-<" + n + ">"
				}
				return n
			}
			return d[:19]
		})
	}
	var b strings.Builder
	b.WriteString(e.Method + " " + name(sessionPath.ReplaceAllString(e.Path, "$1<session>")))
	separator := "?"
	for _, k := range meaningful {
		if v, ok := e.Query[k]; ok {
			b.WriteString(separator + k + "=" + name(strings.Join(v, ",")))
			separator = "&"
		}
	}
	if strings.Contains(strings.Join(e.Header["Accept"], ","), "in-toto") {
		b.WriteString(" [in-toto]")
	}
	if e.Header.Get("Expect") != "" {
		b.WriteString(" [expect]")
	}
	if e.BodySize > 0 {
		what := names[e.BodyDigest]
		if what == "" {
			what = fmt.Sprintf("%s %d bytes", e.BodyDigest[:19], e.BodySize)
		}
		if t := e.Header.Get("Content-Type"); t != "" && t != "application/octet-stream" {
			what += ", " + t
		}
		b.WriteString(" (" + what + ")")
	}
	if e.Status == 0 {
		b.WriteString(" cut")
	} else {
		fmt.Fprintf(&b, " %d", e.Status)
	}
	for _, h := range interesting {
		v := e.ResponseHeader[h]
		if h == "Docker-Content-Digest" {
			if e.Method == http.MethodPut && e.Status/100 == 2 {
				b.WriteString(answeredDigest(e, name))
			}
			continue
		}
		if len(v) > 0 &&
			!(h == "Range" && e.Status != http.StatusRequestedRangeNotSatisfiable && e.Status != http.StatusNoContent) {
			b.WriteString(" " + h + "=" + name(strings.Join(v, ", ")))
		}
	}
	return b.String()
}

// answeredDigest is what there is to say about Docker-Content-Digest of a PUT that succeeded.
func answeredDigest(e Exchange, name func(string) string) string {
	want := e.BodyDigest
	if d := e.Query.Get("digest"); d != "" {
		want = d
	}
	switch got := e.ResponseHeader.Get("Docker-Content-Digest"); got {
	case want:
		return ""
	case "":
		return " without Docker-Content-Digest"
	default:
		return " Docker-Content-Digest=" + name(got)
	}
}

// Text is the transcript, one line an exchange, in order of their beginning: stable under a sequential pusher.
func (r *Recorder) Text() string { return strings.Join(r.lines(), "\n") + "\n" }

// Sorted is the transcript of a concurrent push: the same lines in alphabetical order.
func (r *Recorder) Sorted() string {
	lines := r.lines()
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func (r *Recorder) lines() []string {
	var lines []string
	for _, e := range r.Exchanges() {
		lines = append(lines, r.Line(e))
	}
	return lines
}
