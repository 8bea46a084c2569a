package proxy_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// socketBuffer is what each connection of these tests holds at most on its receiving side. Left alone, Linux
// lets it grow to tcp_rmem's maximum, and how far a stalled upload gets would say more about the kernel than
// about Sluice.
const socketBuffer = 256 * kib

// A sink is a registry that has nothing and keeps nothing: it takes what it is sent as fast as it can.
type sink struct {
	// take reads the body of a PATCH or PUT; true means that it answered. nil reads to the end.
	take     func(w http.ResponseWriter, r *http.Request) bool
	requests atomic.Int64
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.requests.Add(1)
	h := w.Header()
	path, upload := strings.CutSuffix(r.URL.Path, "/blobs/uploads/")
	switch {
	case r.Method == http.MethodPost && upload:
		h.Set("Location", path+"/blobs/uploads/"+strconv.FormatInt(n, 10))
		w.WriteHeader(http.StatusAccepted)
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/"):
		hash := sha256.New()
		_, _ = io.Copy(hash, r.Body) // a manifest that is cut off has another digest
		h.Set("Docker-Content-Digest", "sha256:"+hex.EncodeToString(hash.Sum(nil)))
		w.WriteHeader(http.StatusCreated)
	case r.Method == http.MethodPut || r.Method == http.MethodPatch:
		s.takeBody(w, r)
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *sink) takeBody(w http.ResponseWriter, r *http.Request) {
	take := s.take
	if take == nil {
		take = swallow
	}
	if take(w, r) {
		return
	}
	if r.Method == http.MethodPatch {
		w.Header().Set("Location", r.URL.Path)
		w.WriteHeader(http.StatusAccepted)
		return
	}
	w.Header().Set("Docker-Content-Digest", r.URL.Query().Get("digest"))
	w.WriteHeader(http.StatusCreated)
}

// swallow reads a body to its end. A body that is cut off must not look like one that was taken.
func swallow(_ http.ResponseWriter, r *http.Request) bool {
	buf := make([]byte, 64*kib)
	for {
		if _, err := r.Body.Read(buf); err != nil {
			if !errors.Is(err, io.EOF) {
				panic(http.ErrAbortHandler)
			}
			return false
		}
	}
}

// newSink serves a sink as the upstream of a rig.
func newSink(t testing.TB, take func(http.ResponseWriter, *http.Request) bool) *proxytest.Upstream {
	t.Helper()
	server := serve(t, &sink{take: take})
	return &proxytest.Upstream{Kind: "sink", URL: server.URL, Server: server}
}

// serve is a server whose connections hold no more than socketBuffer.
func serve(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Listener = smallListener{s.Listener}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // cut connections are meant
	s.Start()
	t.Cleanup(s.Close)
	return s
}

type smallListener struct{ net.Listener }

func (l smallListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetReadBuffer(socketBuffer)
	}
	return c, err
}

// A way is how a client sends a blob.
type way struct {
	name   string
	method string // PUT: all in the request that closes the upload; PATCH: before it; POST: all in the first one
	length bool   // Content-Length, or chunks of unknown number
}

var ways = []way{
	{"PUT with a length", http.MethodPut, true},
	{"PUT of unknown length", http.MethodPut, false},
	{"PATCH with a length", http.MethodPatch, true},
	{"PATCH of unknown length", http.MethodPatch, false},
	{"POST with a length", http.MethodPost, true},
}

// A transfer is one upload in the middle of its body, over a connection of its own: http.Client would decide
// for itself when bytes leave and what becomes of an answer that comes early.
type transfer struct {
	t      testing.TB
	base   string
	way    way
	digest string
	conn   *net.TCPConn
	in     *bufio.Reader
	method string
}

// begin opens an upload of size bytes and sends the headers of the request that carries them.
func (w way) begin(t testing.TB, base, repo, digest string, size int64) *transfer {
	t.Helper()
	u := &transfer{t: t, base: base, way: w, digest: digest, method: w.method}
	path := "/v2/" + repo + "/blobs/uploads/"
	if w.method == http.MethodPost {
		path += "?digest=" + url.QueryEscape(digest)
	} else {
		path = u.open(path)
		if w.method == http.MethodPut {
			path += "?digest=" + url.QueryEscape(digest)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	u.conn = conn.(*net.TCPConn)
	t.Cleanup(func() { conn.Close() })
	if err := u.conn.SetWriteBuffer(socketBuffer); err != nil {
		t.Fatal(err)
	}
	u.in = bufio.NewReader(conn)
	framing := "Transfer-Encoding: chunked"
	if w.length {
		framing = "Content-Length: " + strconv.FormatInt(size, 10)
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n%s\r\n\r\n", w.method, path, framing); err != nil {
		t.Fatal(err)
	}
	return u
}

// open POSTs for a session, over a connection that does not stay.
func (u *transfer) open(path string) string {
	u.t.Helper()
	req, err := http.NewRequest(http.MethodPost, u.base+path, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	req.Close = true
	resp, err := transport.RoundTrip(req)
	if err != nil {
		u.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		u.t.Fatalf("POST: %s", resp.Status)
	}
	return resp.Header.Get("Location")
}

// send writes a part of the body, as one chunk where the length is unknown.
func (u *transfer) send(b []byte) error {
	if u.way.length {
		_, err := u.conn.Write(b)
		return err
	}
	chunk := net.Buffers{fmt.Appendf(nil, "%x\r\n", len(b)), b, []byte("\r\n")}
	_, err := chunk.WriteTo(u.conn)
	return err
}

// sendAll writes size bytes of one repeated block, the first of them the beginning of a gzip stream.
func (u *transfer) sendAll(size int64) error {
	block := layerStart(64 * kib)
	for size > 0 {
		n := min(size, int64(len(block)))
		if err := u.send(block[:n]); err != nil {
			return err
		}
		size -= n
	}
	return u.end()
}

func (u *transfer) end() error {
	if u.way.length {
		return nil
	}
	_, err := io.WriteString(u.conn, "0\r\n\r\n")
	return err
}

// answer reads what the registry says to the body.
func (u *transfer) answer() *answer {
	u.t.Helper()
	if err := u.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		u.t.Fatal(err)
	}
	req := &http.Request{Method: u.method, URL: &url.URL{Path: "an upload"}}
	resp, err := http.ReadResponse(u.in, req)
	if err != nil {
		u.t.Fatalf("%s: no answer: %v", u.way.name, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Fatalf("%s: answer is cut: %v", u.way.name, err)
	}
	return &answer{resp, body}
}

// finish reads the answer and closes the upload.
func (u *transfer) finish() *answer {
	u.t.Helper()
	a := u.answer()
	if u.way.method != http.MethodPatch || a.StatusCode != http.StatusAccepted {
		return a
	}
	return request(u.t, http.MethodPut, u.base+a.Header.Get("Location")+"?digest="+url.QueryEscape(u.digest), nil)
}

// layerStart is n bytes that no guess takes for an attestation.
func layerStart(n int) []byte {
	b := make([]byte, n)
	copy(b, "\x1f\x8b\x08")
	return b
}

// layerDigest is that of what sendAll sends.
func layerDigest(size int64) string {
	hash, block := sha256.New(), layerStart(64*kib)
	for size > 0 {
		n := min(size, int64(len(block)))
		hash.Write(block[:n])
		size -= n
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}

// patience is how long a test waits for something that must happen, and never for anything else.
const patience = 30 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, met func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !met() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s: not %s", patience, what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// receive waits for a channel.
func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("after %s: not %s", patience, what)
	}
	return v
}
