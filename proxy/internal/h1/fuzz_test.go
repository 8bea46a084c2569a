package h1

import (
	"bufio"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// scripted is a connection on which everything has arrived already.
type scripted struct{ r *strings.Reader }

func (s *scripted) Read(b []byte) (int, error)       { return s.r.Read(b) }
func (s *scripted) Write(b []byte) (int, error)      { return len(b), nil }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) LocalAddr() net.Addr              { return nil }
func (s *scripted) RemoteAddr() net.Addr             { return nil }
func (s *scripted) SetDeadline(time.Time) error      { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

// FuzzAnswer holds that whatever is taken for an answer is what net/http takes it for: status, header, body, and how
// many bytes of the connection it was, since that is where a smuggled answer would begin.
func FuzzAnswer(f *testing.F) {
	for _, method := range []byte{0, 1} {
		for _, s := range []string{
			ok,
			"HTTP/1.1 202 Accepted\r\nLocation: /v2/a/blobs/uploads/1?state=x\r\nRange: 0-0\r\nContent-Length: 0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\nHTTP/1.1",
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}",
			"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\ncontent-length: 2\r\ncontent-Length: 2\r\n\r\nok",
			"HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\nabc",
			"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
			"HTTP/1.1 404 Not Found\n\nx", "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
		} {
			f.Add(method, s)
		}
	}
	f.Fuzz(func(t *testing.T, method byte, wire string) {
		if len(wire) > 8<<10 {
			return
		}
		req := &http.Request{Method: []string{http.MethodGet, http.MethodHead}[method%2], Header: http.Header{}}
		req.URL, _ = req.URL.Parse("http://registry.example/v2/")
		client := &Client{MaxHeader: 64 << 10, MaxIdle: 1, IdleTimeout: time.Hour}
		defer client.CloseIdleConnections()
		h := &host{}
		client.hosts = map[origin]*host{{}: h}
		nc := &scripted{strings.NewReader(wire)}
		cn := newConn(client, h, nc)
		got, err := cn.exchange(req, nil, time.Minute)
		if err != nil {
			return // stricter is fine
		}
		body, err := io.ReadAll(got.Body)
		got.Body.Close()

		r := bufio.NewReader(strings.NewReader(wire))
		want, wantErr := http.ReadResponse(r, req)
		for wantErr == nil && want.StatusCode < 200 {
			want, wantErr = http.ReadResponse(r, req)
		}
		if wantErr != nil {
			t.Fatalf("taken for %d: net/http says %v", got.StatusCode, wantErr)
		}
		wantBody, wantErr := io.ReadAll(want.Body)
		if err == nil && wantErr != nil {
			t.Fatalf("body %q: net/http says %v", body, wantErr)
		}
		if err != nil {
			return
		}
		if got.StatusCode != want.StatusCode || string(body) != string(wantBody) || got.ContentLength != want.ContentLength || got.Status != want.Status ||
			got.Proto != want.Proto || !slices.Equal(got.TransferEncoding, want.TransferEncoding) {
			t.Fatalf("%s %d %q %d %v, net/http: %s %d %q %d %v", got.Proto, got.StatusCode, body, got.ContentLength, got.TransferEncoding,
				want.Proto, want.StatusCode, wantBody, want.ContentLength, want.TransferEncoding)
		}
		// net/http takes Connection away, and our caller does.
		delete(got.Header, "Connection")
		delete(want.Header, "Connection")
		if !maps.EqualFunc(got.Header, want.Header, slices.Equal[[]string]) {
			t.Fatalf("%q, net/http: %q", got.Header, want.Header)
		}
		if len(h.idle) == 0 {
			return
		}
		// Kept: then both must be at the same place, and net/http must think that it may be kept.
		rest := func(r *bufio.Reader, err error) string {
			b, _ := io.ReadAll(r)
			if err != nil && !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			return string(b)
		}
		if a, b := rest(cn.r, nil), rest(r, nil); a != b {
			t.Fatalf("%q is behind the answer, net/http: %q", a, b)
		}
		if want.Close {
			t.Fatal("kept, and net/http would close")
		}
	})
}
