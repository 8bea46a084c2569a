package upstream

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// A registry that does to its connections whatever servers and front ends do, at any moment: what must not be done twice is
// done once at most, what is said to be done is done, and whoever gets an answer gets his own.
func TestWhateverARegistryDoesNothingIsDoneTwice(t *testing.T) {
	var mu sync.Mutex
	done := map[string]int{} // by what it is
	process := func(req *http.Request, body []byte) {
		mu.Lock()
		defer mu.Unlock()
		done[req.Method+" "+req.URL.Path]++
		if want := req.Header.Get("X-Length"); want != fmt.Sprint(len(body)) {
			t.Errorf("%s %s has %d bytes, not %s", req.Method, req.URL.Path, len(body), want)
		}
	}
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	u := raw(t, func(req *http.Request, _ *bufio.Reader, c net.Conn, _ int) bool {
		says := func(status int, more string) string {
			body := "ok"
			if req.Method == http.MethodHead {
				body = ""
			}
			return fmt.Sprintf("HTTP/1.1 %d X\r\nX-Path: %s\r\n%sContent-Length: 2\r\n\r\n%s", status, req.URL.Path, more, body)
		}
		say := func(status int, more string) { fmt.Fprint(c, says(status, more)) }
		switch rand.IntN(14) { // nothing of the body was read
		case 0:
			return false
		case 1:
			reset(c)
			return false
		case 2:
			say(http.StatusTooManyRequests, "Connection: close\r\n")
			return false
		case 3:
			say(http.StatusRequestTimeout, "Connection: close\r\n")
			return false
		}
		if req.Header.Get("Expect") != "" && rand.IntN(8) > 0 {
			fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return false
		}
		streams := len(body) > small
		switch rand.IntN(14) { // all of it was
		case 0:
			return false
		case 1:
			process(req, body)
			return false
		case 2:
			process(req, body)
			reset(c)
			return false
		case 3:
			say(http.StatusTooManyRequests, "")
			return true
		case 4:
			process(req, body)
			fmt.Fprint(c, "HTTP/1.1 200")
			return false
		case 5:
			process(req, body)
			say(http.StatusOK, "")
			return false
		case 6:
			process(req, body)
			poison := "HTTP/1.1 200 OK\r\nX-Path: /poison\r\nContent-Length: 0\r\n\r\n"
			if streams { // http.Transport may have given the connection to another request before it sees this
				poison = ""
			}
			fmt.Fprint(c, says(http.StatusOK, "")+poison)
			return true
		case 7:
			process(req, body)
			say(http.StatusOK, "")
			if streams {
				return true
			}
			time.Sleep(time.Millisecond)
			fmt.Fprint(c, "HTTP/1.1 408 X\r\nX-Path: /poison\r\nContent-Length: 0\r\n\r\n")
			return false
		case 8:
			process(req, body)
			fmt.Fprint(c, "HTTP/1.1 103 X\r\n\r\n")
			say(http.StatusServiceUnavailable, "")
			return true
		}
		process(req, body)
		say(http.StatusOK, "")
		return true
	})
	r, _ := open(t, Options{URL: u, Credentials: Anonymous})
	r.now, r.sleep = time.Now, func(ctx context.Context, _ time.Duration) error { return ctx.Err() }
	r.transport.(*http.Transport).ExpectContinueTimeout = 20 * time.Millisecond
	var answered, failed int
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 150 {
				path := fmt.Sprintf("/v2/app/blobs/uploads/%d-%d", g, i)
				size := []int{0, 100, small, small + 1, 200 << 10}[rand.IntN(5)]
				method := []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch}[rand.IntN(5)]
				if method == http.MethodGet || method == http.MethodHead {
					size = 0
				}
				q := Request{Method: method, Repository: "app", Location: path, Push: true, Header: http.Header{"X-Length": {fmt.Sprint(size)}}}
				if size > 0 {
					q.Body, q.ContentLength = io.MultiReader(bytes.NewReader(make([]byte, size))), int64(size)
				}
				resp, err := r.Do(t.Context(), q)
				status := 0
				if err == nil {
					status = resp.StatusCode
					if got := resp.Header.Get("X-Path"); got != path && status != http.StatusRequestTimeout { // it may have come just then
						t.Errorf("%s %s: the answer is about %s", method, path, got)
					}
					Discard(resp)
				}
				mu.Lock()
				n := done[method+" "+path]
				if status > 0 {
					answered++
				} else {
					failed++
				}
				mu.Unlock()
				once := method == http.MethodPatch || method == http.MethodPost && size > 0
				if once && n > 1 || size > small && n > 1 || status == http.StatusOK && n == 0 {
					t.Errorf("%s of %d bytes was done %d times, and is answered %d: %v", method, size, n, status, err)
				}
			}
		})
	}
	all.Wait()
	if answered < 100 || failed < 10 {
		t.Errorf("%d were answered, %d not: this shows little", answered, failed)
	}
}
