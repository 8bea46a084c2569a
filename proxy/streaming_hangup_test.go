package proxy_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
)

func TestStreamEndsUpstreamWhenTheClientHangsUp(t *testing.T) {
	const size = 64 * mib
	for _, sent := range []int{1, 20, 3 * mib} { // 20 bytes: in the middle of guessing
		for _, w := range ways {
			t.Run(fmt.Sprintf("%s after %d bytes", w.name, sent), func(t *testing.T) {
				ended := make(chan error, 16)
				var seen atomic.Int64
				up := newSink(t, func(_ http.ResponseWriter, req *http.Request) bool {
					buf := make([]byte, 64*kib)
					for {
						n, err := req.Body.Read(buf)
						seen.Add(int64(n))
						if err != nil {
							ended <- err
							return false
						}
					}
				})
				r := newRig(t, up)
				body := layerStart(sent)
				if sent == 20 {
					copy(body, `{"_type":"https://in`)
				}
				// The first pass opens what stays open; what the others add is a leak.
				before := 0
				for pass := range 4 {
					var hangUp []*transfer
					for range 4 {
						hangUp = append(hangUp, w.begin(t, r.url(), "app", layerDigest(size), size))
					}
					seen.Store(0)
					for _, u := range hangUp {
						if err := u.send(body); err != nil {
							t.Fatal(err)
						}
					}
					if sent != 20 {
						eventually(t, "all bytes upstream", func() bool { return seen.Load() == int64(4*sent) })
					}
					for _, u := range hangUp {
						u.conn.Close()
					}
					if sent != 20 { // else upstream has not heard of it
						for range hangUp {
							if err := receive(t, "the end of the upload upstream", ended); errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
								t.Error("upstream takes an upload that broke off for a whole one")
							}
						}
						r.proxy.HandlersEnd()
					}
					r.proxy.Settle()
					up.Server.CloseClientConnections() // idle ones have goroutines as well
					if pass == 0 {
						before = settled(t)
						continue
					}
					eventually(t, fmt.Sprintf("back to %d goroutines in the proxy", before), func() bool { return ours() <= before })
				}
			})
		}
	}
}

// ours counts the goroutines that are in the proxy's code. All of them cannot be compared: servers and
// connections of other tests come and go.
func ours() int {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	buf = buf[:n]
	count := 0
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "sluice/proxy.(*") || strings.Contains(g, "sluice/proxy/upstream.(*") {
			count++
		}
	}
	return count
}

// settled is the number of goroutines when nothing has changed for some looks.
func settled(t testing.TB) int {
	t.Helper()
	last, same := ours(), 0
	eventually(t, "a steady number of goroutines", func() bool {
		if n := ours(); n != last {
			last, same = n, 0
		}
		same++
		return same > 20
	})
	return last
}
