package h1

import (
	"testing"
	"time"
)

// A body behind an answer that has none, as some servers send it with HEAD, is not the answer to the next request.
func TestABodyWhereNoneBelongsIsNotTheNextAnswer(t *testing.T) {
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	for name, test := range map[string]struct{ method, head, body string }{
		"HEAD":                 {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n", poison},
		"HEAD in chunks":       {"HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "2d\r\n" + poison + "\r\n0\r\n\r\n"},
		"HEAD that is refused": {"HEAD", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n", "no"},
		"204":                  {"DELETE", "HTTP/1.1 204 No Content\r\nContent-Length: 45\r\n\r\n", poison},
		"204 in chunks":        {"DELETE", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"},
		"304":                  {"GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 45\r\n\r\n", poison},
		"of no length":         {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", poison},
		"behind the last":      {"GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", poison},
	} {
		for when, late := range map[string]bool{"at once": false, "later": true} {
			t.Run(name+", "+when, func(t *testing.T) {
				read, said := make(chan struct{}), make(chan struct{})
				s := serve(t, func(n int, c *peer) {
					for {
						if _, _, more := c.request(); !more {
							return
						}
						switch {
						case n > 0:
							c.say(ok)
						case late:
							c.say(test.head)
							<-read
							c.say(test.body)
							close(said)
						default:
							c.say(test.head + test.body)
							close(said)
						}
					}
				})
				c := newClient(t)
				if _, body, err := do(t, c, test.method, s.url(), ""); err != nil || body != "" {
					t.Fatalf("%q, %v", body, err)
				}
				close(read)
				<-said
				c.mu.Lock()
				cn := c.hosts[origin{"http", s.ln.Addr().String()}].idle[0]
				c.mu.Unlock()
				for deadline := time.Now().Add(10 * time.Second); cn.quiet(); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("it still looks usable")
					}
				}
				if _, body, err := do(t, c, "PATCH", s.url(), "chunk"); err != nil || body != "ok" {
					t.Errorf("%q, %v", body, err)
				}
				if s.accepted() != 2 {
					t.Errorf("%d connections", s.accepted())
				}
			})
		}
	}
}

// A server may answer before it has read what it was sent, and read it afterwards. Then the connection is good.
func TestAnEarlyAnswerCostsNoConnectionThatGoesOn(t *testing.T) {
	s := serve(t, func(_ int, c *peer) {
		for {
			if _, err := c.r.Peek(1); err != nil { // something of the request has come
				return
			}
			c.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
			time.Sleep(5 * time.Millisecond)
			if _, _, more := c.request(); !more {
				return
			}
		}
	})
	c := newClient(t)
	for range 3 {
		if resp, body, err := do(t, c, "PUT", s.url(), xs(largestBody)); err != nil || resp.StatusCode != 413 || body != "big" {
			t.Errorf("%v, %q, %v", resp, body, err)
		}
	}
	if s.accepted() != 1 {
		t.Errorf("%d connections", s.accepted())
	}
}
