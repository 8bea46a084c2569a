package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// An answer that leads to another request, and whose body does not come to its end.
func TestAnAnswerThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	for name, c := range map[string]struct {
		mode   Mode
		status string
		q      Request
	}{
		"busy":               {Anonymous, "503 Service Unavailable", Request{Repository: "app", Path: "tags/list"}},
		"a login":            {Basic, "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", Request{Repository: "app", Path: "tags/list"}},
		"a login for a body": {Basic, "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", Request{Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true, ContentLength: layerSize}},
		"a redirect":         {Anonymous, "307 Temporary Redirect\r\nLocation: /v2/app/blobs/sha256:2", Request{Repository: "app", Path: "blobs/sha256:1", Follow: true}},
	} {
		for form, body := range map[string]string{"with a length": "Content-Length: 100\r\n\r\nx", "in chunks": "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", "to the end": "Connection: close\r\n\r\nx"} {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel() // most of it is waiting
				var n atomic.Int32
				u := raw(t, func(req *http.Request, br *bufio.Reader, conn net.Conn, _ int) bool {
					if n.Add(1) == 1 {
						fmt.Fprintf(conn, "HTTP/1.1 %s\r\n%s", c.status, body)
						_, _ = io.Copy(io.Discard, br) // until the other side closes
						return false
					}
					if req.Header.Get("Expect") != "" {
						fmt.Fprint(conn, "HTTP/1.1 100 Continue\r\n\r\n")
					}
					_, _ = io.Copy(io.Discard, req.Body)
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
					return true
				})
				r, _ := open(t, Options{URL: u, Credentials: c.mode, Username: "u", Password: password("p")})
				q := c.q
				if q.ContentLength > 0 {
					q.Body = io.LimitReader(zeros{}, layerSize)
				}
				began := time.Now()
				do(t, r, http.StatusOK, q)
				if took := time.Since(began); took > stallTimeout/2 {
					t.Errorf("it took %v", took)
				}
				if n.Load() != 2 {
					t.Errorf("%d requests", n.Load())
				}
			})
		}
	}
}
