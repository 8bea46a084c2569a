package h1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	stall      = 5 * time.Minute
	stallBytes = 64 << 10
)

// inOwnTime runs a test with a server in memory, which plays its part once, and a clock of its own.
func inOwnTime(t *testing.T, play func(c *peer), test func(t *testing.T, c *Client)) {
	synctest.Test(t, func(t *testing.T) {
		var played sync.WaitGroup
		t.Cleanup(played.Wait)
		c := &Client{HeaderTimeout: time.Minute, StallTimeout: stall, StallBytes: stallBytes, IdleTimeout: time.Minute, MaxIdle: 1, MaxHeader: 64 << 10}
		c.Dial = func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			t.Cleanup(func() { far.Close() })
			played.Go(func() {
				p := &peer{Conn: far, r: bufio.NewReader(far)}
				p.request()
				play(p)
			})
			return near, nil
		}
		t.Cleanup(c.CloseIdleConnections)
		test(t, c)
	})
}

func answered(t *testing.T, c *Client) *http.Response {
	t.Helper()
	resp, err := c.RoundTrip(request(t, "GET", "http://registry.test/", ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// forms of a body, each with its head, one part of so many bytes, and its end.
var forms = map[string]struct {
	head string // %d is the length
	part func(n int) string
	end  string
}{
	"with a length":             {"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", xs, ""},
	"in chunks":                 {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Length: %d\r\n\r\n", func(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, xs(n)) }, "0\r\n\r\n"},
	"until the connection ends": {"HTTP/1.1 200 OK\r\nX-Length: %d\r\n\r\n", xs, ""},
}

func xs(n int) string { return strings.Repeat("x", n) }

// A body may take any time as long as enough of it comes, and who reads it may take any time between.
func TestABodyThatStopsComingOrHardlyComesIsAnError(t *testing.T) {
	for name, form := range forms {
		for way, test := range map[string]struct {
			parts, bytes int
			every        time.Duration
			stops        bool          // behind the parts
			reader       time.Duration // which the reader takes for itself before each part
			fails        bool
			within       time.Duration
		}{
			"stops":                             {1, 1, 0, true, 0, true, stall + stall/4},
			"stops behind much":                 {5, stallBytes, time.Minute, true, 0, true, 5*time.Minute + stall + stall/4},
			"byte by byte":                      {100_000, 1, time.Second, false, 0, true, stall + time.Second},
			"byte by byte, as slow as may be":   {1000, 1, stall - time.Second, false, 0, true, 2 * stall},
			"slowly":                            {100, stallBytes, stall - time.Second, false, 0, false, 0},
			"slowly, in several parts":          {400, stallBytes / 4, stall/4 - time.Second, false, 0, false, 0},
			"at once, for a reader that is not": {100, 1, 0, false, stall, false, 0},
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				inOwnTime(t, func(c *peer) {
					length := test.parts * test.bytes
					if test.stops {
						length++
					}
					c.say(fmt.Sprintf(form.head, length))
					for range test.parts {
						time.Sleep(test.every)
						if _, err := io.WriteString(c, form.part(test.bytes)); err != nil {
							return
						}
					}
					if !test.stops {
						c.say(form.end)
						c.Close()
					}
				}, func(t *testing.T, c *Client) {
					start := time.Now()
					body := &slowReader{answered(t, c).Body, test.reader}
					n, err := io.Copy(io.Discard, body)
					if !test.fails {
						if n != int64(test.parts*test.bytes) || err != nil {
							t.Errorf("%d bytes, %v", n, err)
						}
						return
					}
					if took := time.Since(start); !errors.Is(err, ErrStalled) || took < stall || took > test.within {
						t.Errorf("%d bytes, %v after %v", n, err, took)
					}
				})
			})
		}
	}
}

// slowReader takes its time before each Read.
type slowReader struct {
	io.Reader
	pause time.Duration
}

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.pause)
	return r.Reader.Read(p)
}

// The whole header has one time, however it comes.
func TestAHeaderThatHardlyComesIsATimeout(t *testing.T) {
	for name, said := range map[string]string{
		"byte by byte":             "HTTP/1.1 200 OK\r\nX: " + xs(1000),
		"behind informational":     strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 4) + "HTTP/1.1 200 OK\r\n",
		"whose end does not come":  "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
		"that does not begin":      "",
		"whose status has no text": "HTTP/1.1 200",
	} {
		t.Run(name, func(t *testing.T) {
			inOwnTime(t, func(c *peer) {
				for _, b := range []byte(said) {
					time.Sleep(time.Second)
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
				}
			}, func(t *testing.T, c *Client) {
				start := time.Now()
				_, err := c.RoundTrip(request(t, "GET", "http://registry.test/", ""))
				if took := time.Since(start); !errors.Is(err, ErrHeaderTimeout) || took != c.HeaderTimeout {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}
