package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// Object storage asks for patience as a matter of course ("503 Slow Down"), and whoever follows a redirect is expected to have it.
func TestWhatARedirectLeadsToIsAskedAgainAsAnyOtherRead(t *testing.T) {
	for name, c := range map[string]struct {
		answers  []int // of the storage, the last one repeats; 0 = the connection is cut
		want     int   // 0 = ErrUnreachable
		requests int32
	}{
		"after a 503":               {[]int{503, 200}, 200, 2},
		"after cut connections":     {[]int{0, 0, 200}, 200, 3},
		"not after a 403":           {[]int{403, 200}, 403, 1},
		"not after a 500":           {[]int{500, 200}, 500, 1},
		"and the last 503 is there": {[]int{503}, 503, retryAttempts},
		"and it gives up":           {[]int{0}, 0, retryAttempts},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			storage := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
				status := c.answers[min(int(n.Add(1)), len(c.answers))-1]
				if req.Header.Get("Authorization") != "" || req.Header.Get("Range") != "bytes=1-" {
					t.Errorf("the storage is asked with %v", req.Header)
				}
				if status != 0 {
					fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: 4\r\nConnection: close\r\n\r\nblob", status)
				}
				return false
			})
			f := newFake(t, &fake{scheme: "basic", allow: only(basicHeader("u", "p")), handle: func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, storage+"/blob?signature=geheim", http.StatusTemporaryRedirect)
			}})
			r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: password("p")})
			resp, err := r.Do(t.Context(), Request{Repository: "app", Path: "blobs/sha256:1", Header: http.Header{"Range": {"bytes=1-"}}, Follow: true})
			switch {
			case c.want == 0:
				if !errors.Is(err, ErrUnreachable) || strings.Contains(err.Error(), "geheim") || !strings.Contains(err.Error(), strings.TrimPrefix(storage, "http://")) {
					t.Errorf("%v", err)
				}
			case err != nil:
				t.Fatal(err)
			default:
				defer resp.Body.Close()
				if b, err := io.ReadAll(resp.Body); resp.StatusCode != c.want || string(b) != "blob" {
					t.Errorf("%d %q %v, want %d", resp.StatusCode, b, err, c.want)
				}
			}
			if n.Load() != c.requests {
				t.Errorf("the storage was asked %d times, want %d", n.Load(), c.requests)
			}
			if asked := len(f.requests()); asked != 2 { // once to learn that it wants a login
				t.Errorf("the registry was asked %d times", asked)
			}
		})
	}
}
