package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/proxy/internal/h1"
)

// inOwnTime runs a test against a registry in memory, with a clock of its own. answer is as for raw.
func inOwnTime(t *testing.T, answer func(req *http.Request, br *bufio.Reader, c net.Conn) (keep bool), test func(t *testing.T, r *Registry)) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Options{URL: "http://registry.test", Credentials: Anonymous})
		if err != nil {
			t.Fatal(err)
		}
		var played sync.WaitGroup
		t.Cleanup(played.Wait)
		dial := func(context.Context, string, string) (net.Conn, error) {
			near, far := newPipe()
			t.Cleanup(func() { far.Close() })
			played.Go(func() {
				defer far.Close()
				br := bufio.NewReader(far)
				for {
					if req, err := http.ReadRequest(br); err != nil || !answer(req, br, far) {
						return
					}
				}
			})
			return &conn{Conn: near}, nil
		}
		quick := r.quick.(*h1.Client)
		quick.Dial = dial
		for _, over := range []http.RoundTripper{r.transport, quick.Other.(steady).over} {
			over.(*http.Transport).DialContext = dial
			over.(*http.Transport).Proxy = nil
		}
		t.Cleanup(func() { _ = r.Close() })
		test(t, r)
	})
}

// A registry that agrees to a body and then takes nothing of it, in each way in which a body is sent.
func TestARegistryThatTakesNoMoreOfABodyIsGone(t *testing.T) {
	for name, length := range map[string]int64{"of known length": 1 << 30, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			inOwnTime(t, func(_ *http.Request, _ *bufio.Reader, c net.Conn) bool {
				fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
				time.Sleep(time.Hour)
				return false
			}, func(t *testing.T, r *Registry) {
				start := time.Now()
				q := upload(io.LimitReader(zeros{}, 1<<30))
				q.ContentLength = length
				_, err := r.Do(t.Context(), q)
				if took := time.Since(start); !errors.Is(err, ErrUnreachable) || took < stallTimeout || took > 2*stallTimeout {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}

// Who waits for a slow client keeps no deadline: the registry has taken all there was.
func TestABodyThatComesSlowlyIsNotTakenForARegistryThatIsGone(t *testing.T) {
	for name, length := range map[string]int64{"of known length": 3 * layerSize, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			var arrived int64
			inOwnTime(t, func(req *http.Request, _ *bufio.Reader, c net.Conn) bool {
				fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
				arrived, _ = io.Copy(io.Discard, req.Body)
				fmt.Fprint(c, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
				return true
			}, func(t *testing.T, r *Registry) {
				parts := []io.Reader{io.LimitReader(zeros{}, layerSize), pause(2 * stallTimeout), io.LimitReader(zeros{}, layerSize), pause(2 * stallTimeout), io.LimitReader(zeros{}, layerSize)}
				q := upload(io.MultiReader(parts...))
				q.ContentLength = length
				do(t, r, http.StatusCreated, q)
			})
			if arrived != 3*layerSize {
				t.Errorf("%d bytes arrived", arrived)
			}
		})
	}
}

// pause is a part of a body that takes its time and is empty.
type pause time.Duration

func (p pause) Read([]byte) (int, error) {
	time.Sleep(time.Duration(p))
	return 0, io.EOF
}

// ways are those in which an answer reaches who asked: over the client for small requests, over net/http where a proxy is named for
// the host, and behind a body that streams.
var ways = map[string]func(*testing.T, *Registry) Request{
	"quick": func(*testing.T, *Registry) Request { return Request{Path: "blobs/x", Repository: "r"} },
	"over another": func(t *testing.T, r *Registry) Request {
		r.quick.(*h1.Client).Proxy = func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "http", Host: "proxy.test"}, nil }
		return Request{Path: "blobs/x", Repository: "r"}
	},
	"behind a stream": func(*testing.T, *Registry) Request {
		q := upload(io.LimitReader(zeros{}, layerSize))
		q.ContentLength = layerSize
		return q
	},
}

// A body that is an answer comes with stallBytes in stallTimeout, or not at all.
func TestAnAnswerThatHardlyComesIsCutOff(t *testing.T) {
	for name, way := range ways {
		for pace, test := range map[string]struct {
			bytes, parts int
			every        time.Duration
			fails        bool
		}{
			"stops":        {1, 2, 2 * stallTimeout, true},
			"byte by byte": {1, 100_000, time.Second, true},
			"slowly":       {stallBytes / 2, 100, stallTimeout/2 - time.Second, false},
		} {
			t.Run(name+", "+pace, func(t *testing.T) {
				inOwnTime(t, func(req *http.Request, _ *bufio.Reader, c net.Conn) bool {
					if req.ContentLength > 0 {
						fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
						_, _ = io.Copy(io.Discard, req.Body)
					}
					fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", test.parts*test.bytes)
					for range test.parts {
						time.Sleep(test.every)
						if _, err := c.Write(make([]byte, test.bytes)); err != nil {
							return false
						}
					}
					return true
				}, func(t *testing.T, r *Registry) {
					start := time.Now()
					resp, err := r.Do(t.Context(), way(t, r))
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
					n, err := io.Copy(io.Discard, resp.Body)
					if took := time.Since(start); test.fails && (!errors.Is(err, h1.ErrStalled) || took < stallTimeout || took > 2*stallTimeout) {
						t.Errorf("%d bytes, %v after %v", n, err, took)
					}
					if !test.fails && (n != int64(test.parts*test.bytes) || err != nil) {
						t.Errorf("%d bytes, %v", n, err)
					}
				})
			})
		}
	}
}

// The header comes in the time that it has, and in no more for coming byte by byte.
func TestAHeaderThatHardlyComesIsNoAnswer(t *testing.T) {
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			inOwnTime(t, func(req *http.Request, _ *bufio.Reader, c net.Conn) bool {
				if req.ContentLength > 0 {
					fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
					_, _ = io.Copy(io.Discard, req.Body)
				}
				fmt.Fprint(c, "HTTP/1.1 200 OK\r\nX-Long: ")
				for range 100_000 {
					time.Sleep(time.Second)
					if _, err := c.Write([]byte("x")); err != nil {
						return false
					}
				}
				return false
			}, func(t *testing.T, r *Registry) {
				q := way(t, r)
				most := r.headerTimeout
				if q.Body != nil {
					most = r.patience
				}
				start := time.Now()
				_, err := r.Do(t.Context(), q)
				if took := time.Since(start); !errors.Is(err, ErrUnreachable) || took < most || took > most+2*time.Second {
					t.Errorf("%v after %v", err, took)
				}
			})
		})
	}
}
