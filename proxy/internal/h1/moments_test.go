package h1

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// Requests that end at any moment, and a server that does everything that servers do: whoever gets an answer gets his own, and
// all of it.
func TestRequestsThatEndAtAnyMomentMixNothingUp(t *testing.T) {
	for name, serve := range map[string]func(*testing.T, func(int, *peer)) string{
		"http": func(t *testing.T, play func(int, *peer)) string { return serve(t, play).url() },
		"tls": func(t *testing.T, play func(int, *peer)) string {
			_, url := serveTLS(t, func(n int, c *peer, _ *corked) { play(n, c) })
			return url
		},
	} {
		t.Run(name, func(t *testing.T) {
			pause := func() { time.Sleep(time.Duration(rand.IntN(15)) * time.Millisecond) }
			url := serve(t, func(_ int, c *peer) {
				for {
					r, sent, more := c.request()
					if !more {
						return
					}
					body := r.URL.Path + sent
					if rand.IntN(2) == 0 {
						pause()
					}
					head := fmt.Sprintf("HTTP/1.1 200 OK\r\nEcho: %s\r\n", r.URL.Path)
					if rand.IntN(4) == 0 {
						head = "HTTP/1.1 103 Early Hints\r\n\r\n" + head
					}
					switch rand.IntN(5) {
					case 0: // in pieces
						c.say(head)
						pause()
						c.say(fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body[:1]))
						pause()
						c.say(body[1:])
					case 1:
						c.say(head + "Transfer-Encoding: chunked\r\n\r\n")
						pause()
						c.say(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
					case 2: // and more than was asked for
						c.say(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body) + ok)
					case 3: // and it goes, without a word about it
						c.say(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body))
						return
					default:
						c.say(fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", head, len(body), body))
					}
				}
			})
			c := newTLSClient(t)
			var all sync.WaitGroup
			var mu sync.Mutex
			whole, ended := 0, 0
			for g := range 8 {
				all.Go(func() {
					for i := range 60 {
						path, body := fmt.Sprintf("/%d/%d", g, i), strings.Repeat("b", rand.IntN(12<<10))
						patience := time.Duration(rand.IntN(40)) * time.Millisecond
						if i%4 == 0 {
							patience = time.Minute // so that some are answered on a busy machine too
						}
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						resp, err := c.RoundTrip(request(t, "PUT", url+path, body).WithContext(ctx))
						var got []byte
						if err == nil {
							if rand.IntN(4) == 0 {
								resp.Body.Close() // it may be the next one's connection
							} else if got, err = io.ReadAll(resp.Body); err == nil && (string(got) != path+body || resp.Header.Get("Echo") != path) {
								t.Errorf("%s: got the answer to %.20q", path, got)
							}
							resp.Body.Close()
						}
						cancel()
						mu.Lock()
						if err == nil {
							whole++
						} else {
							ended++
						}
						mu.Unlock()
					}
				})
			}
			all.Wait()
			if whole < 20 || ended < 20 {
				t.Errorf("%d were answered, %d ended before: this shows little", whole, ended)
			}
			if n := c.idle(); n > c.MaxIdle {
				t.Errorf("%d connections are idle", n)
			}
			c.CloseIdleConnections()
		})
	}
}
