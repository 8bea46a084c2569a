package proxy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// I8: layers stream: constant memory, no disk, no hashing, back-pressure end to end.

var actions = []filters.Action{filters.Store, filters.Strip, filters.Forward}

func TestStreamFirstByteReachesUpstreamBeforeTheLastIsSent(t *testing.T) {
	for _, act := range actions {
		for _, w := range ways {
			t.Run(fmt.Sprintf("%s %s", act, w.name), func(t *testing.T) {
				const size = mib
				first := make(chan byte, 1)
				var total atomic.Int64
				r := newRig(t, newSink(t, func(_ http.ResponseWriter, req *http.Request) bool {
					var b [1]byte
					if _, err := io.ReadFull(req.Body, b[:]); err != nil {
						return false // the PUT that ends a PATCHed upload
					}
					first <- b[0]
					n, _ := io.Copy(io.Discard, req.Body)
					total.Add(n + 1)
					return false
				}), action(act))
				u := w.begin(t, r.url(), "app", layerDigest(size), size)
				body := layerStart(size)
				if err := u.send(body[:1]); err != nil {
					t.Fatal(err)
				}
				// Nothing more is sent until upstream has this one.
				if b := receive(t, "the first byte upstream", first); b != body[0] {
					t.Errorf("first byte upstream is %#x, want %#x", b, body[0])
				}
				if err := errors.Join(u.send(body[1:]), u.end()); err != nil {
					t.Fatal(err)
				}
				u.finish().want(t, http.StatusCreated)
				if got := total.Load(); got != size {
					t.Errorf("%d bytes upstream, want %d", got, size)
				}
			})
		}
	}
}

func TestStreamWaitsForAnUpstreamThatDoesNotRead(t *testing.T) {
	// Three sockets' receiving sides and two sending sides, of which Sluice's own grows to tcp_wmem's 4 MiB, and
	// one large buffer of the pump. A body that was taken into memory or on disk would be all of size.
	const (
		size  = 128 * mib
		bound = 16 * mib
		stall = time.Second // no byte for so long is a stop
	)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			reading, release := make(chan struct{}), make(chan struct{})
			var hold sync.Once
			var total atomic.Int64
			r := newRig(t, newSink(t, func(_ http.ResponseWriter, req *http.Request) bool {
				var b [1]byte
				if _, err := io.ReadFull(req.Body, b[:]); err != nil {
					return false
				}
				hold.Do(func() { close(reading) })
				select {
				case <-release:
				case <-req.Context().Done():
				}
				n, _ := io.Copy(io.Discard, req.Body)
				total.Add(n + 1)
				return false
			}))
			front := serve(t, r.proxy.Handler())
			u := w.begin(t, front.URL, "app", layerDigest(size), size)
			block := layerStart(64 * kib)
			sent := int64(0)
			var rest []byte // of the chunk that did not fit
			for ; sent < size; sent += int64(len(block)) {
				wire := block
				if !w.length {
					wire = append(append(fmt.Appendf(nil, "%x\r\n", len(block)), block...), "\r\n"...)
				}
				if err := u.conn.SetWriteDeadline(time.Now().Add(stall)); err != nil {
					t.Fatal(err)
				}
				n, err := u.conn.Write(wire)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					rest = wire[n:]
					break
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			receive(t, "the first byte upstream", reading)
			if sent > bound {
				t.Errorf("%d MiB were taken from the client while upstream read one byte, at most %d are what sockets hold", sent/mib, bound/mib)
			}
			t.Logf("stopped after %d KiB", sent/kib)
			close(release)
			if err := u.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if rest != nil {
				if _, err := u.conn.Write(rest); err != nil {
					t.Fatal(err)
				}
				sent += int64(len(block))
			}
			if err := u.sendAll(size - sent); err != nil {
				t.Fatal(err)
			}
			u.finish().want(t, http.StatusCreated)
			if got := total.Load(); got != size {
				t.Errorf("%d bytes upstream, want %d", got, size)
			}
		})
	}
}

func TestStreamedLayersArriveWholeAndLeaveNothingInTheStorage(t *testing.T) {
	const size = 3*mib + 17
	digest := layerDigest(size)
	every(t, func(t *testing.T, newUpstream func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream) {
		for _, act := range actions {
			for _, w := range ways {
				t.Run(fmt.Sprintf("%s %s", act, w.name), func(t *testing.T) {
					driver := proxytest.NewFailingDriver(inmemory.New())
					r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), action(act), storage(driver))
					driver.Fail(0, proxytest.FaultError) // the log begins here
					u := w.begin(t, r.url(), "app", digest, size)
					if err := u.sendAll(size); err != nil {
						t.Fatal(err)
					}
					a := u.finish().want(t, http.StatusCreated)
					if got := a.Header.Get("Docker-Content-Digest"); got != digest {
						t.Errorf("answered digest %q, want %s", got, digest)
					}
					if wrote := writes(driver); len(wrote) > 0 {
						t.Errorf("a layer was written to the storage:\n%s", strings.Join(wrote, "\n"))
					}
					back := r.direct(http.MethodGet, "/v2/app/blobs/"+digest, nil).want(t, http.StatusOK)
					if got := sha256.Sum256(back.body); "sha256:"+hex.EncodeToString(got[:]) != digest {
						t.Errorf("upstream has %d bytes with digest sha256:%x, want %d and %s", len(back.body), got, size, digest)
					}
				})
			}
		}
	})
}

// The check above finds something where there is something to find.
func TestStreamStorageLogShowsAStatementThatIsHeld(t *testing.T) {
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v1","subject":[],"predicate":{}}`)
	sum := sha256.Sum256(statement)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			driver := proxytest.NewFailingDriver(inmemory.New())
			var upstreamBytes atomic.Int64
			r := newRig(t, newSink(t, func(_ http.ResponseWriter, req *http.Request) bool {
				n, _ := io.Copy(io.Discard, req.Body)
				upstreamBytes.Add(n)
				return false
			}), storage(driver))
			driver.Fail(0, proxytest.FaultError)
			u := w.begin(t, r.url(), "app", "sha256:"+hex.EncodeToString(sum[:]), int64(len(statement)))
			for i := range statement { // a byte at a time: the guess must not depend on how it is cut
				if err := u.send(statement[i : i+1]); err != nil {
					t.Fatal(err)
				}
			}
			if err := u.end(); err != nil {
				t.Fatal(err)
			}
			u.finish().want(t, http.StatusCreated)
			r.proxy.Settle()
			if len(writes(driver)) == 0 {
				t.Error("no write of a statement in the log of the storage")
			}
			if n := upstreamBytes.Load(); n != 0 {
				t.Errorf("%d bytes of a statement went upstream", n)
			}
		})
	}
}

// writes are the calls that put or move something.
func writes(d *proxytest.FailingDriver) []string {
	var all []string
	for _, call := range d.Log() {
		if strings.HasPrefix(call, "PutContent") || strings.HasPrefix(call, "Writer") || strings.HasPrefix(call, "Move") {
			all = append(all, call)
		}
	}
	return all
}

// What the process may grow by, client and sink of this test included; the resident size with 1 GiB, of a
// process of its own, is measured in e2e.
func TestStreamMemoryDoesNotGrowWithTheLayer(t *testing.T) {
	for _, c := range []struct {
		uploads     int
		size, bound int64
	}{
		{1, 256 * mib, 8 * mib},
		{64, 8 * mib, 40 * mib},
	} {
		for _, w := range []way{ways[0], ways[3]} { // as BuildKit and as Docker send
			t.Run(fmt.Sprintf("%d uploads of %d MiB, %s", c.uploads, c.size/mib, w.name), func(t *testing.T) {
				var arrived, peak atomic.Int64
				all := make(chan struct{})
				r := newRig(t, newSink(t, func(rw http.ResponseWriter, req *http.Request) bool {
					var b [1]byte
					if _, err := io.ReadFull(req.Body, b[:]); err != nil {
						return false
					}
					if arrived.Add(1) == int64(c.uploads) {
						close(all)
					}
					select { // so that all are there at once
					case <-all:
					case <-time.After(patience):
						t.Errorf("only %d of %d uploads at once", arrived.Load(), c.uploads)
					}
					return swallow(rw, req)
				}))
				digest := layerDigest(c.size)
				transfers := make([]*transfer, c.uploads)
				runtime.GC()
				before := inUse()
				stop := sample(&peak)
				for i := range transfers {
					transfers[i] = w.begin(t, r.url(), "app", digest, c.size)
				}
				var wg sync.WaitGroup
				for _, u := range transfers {
					wg.Go(func() {
						if err := u.sendAll(c.size); err != nil {
							t.Error(err) // the answer, below, ends the test
						}
					})
				}
				wg.Wait()
				for _, u := range transfers {
					u.finish().want(t, http.StatusCreated)
				}
				stop()
				grown := peak.Load() - before
				if grown > c.bound {
					t.Errorf("heap and stacks grew by %d KiB, at most %d KiB are expected", grown/kib, c.bound/kib)
				}
				t.Logf("heap and stacks grew by %d KiB", grown/kib)
			})
		}
	}
}

func inUse() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// sample notes the most that is in use until it is stopped.
func sample(peak *atomic.Int64) (stop func()) {
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			peak.Store(max(peak.Load(), inUse()))
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	return func() {
		close(done)
		<-stopped
	}
}

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
					}
					r.proxy.Settle()
					up.Server.CloseClientConnections() // idle ones have goroutines as well
					if pass == 0 {
						before = settled(t)
						continue
					}
					eventually(t, fmt.Sprintf("back to %d goroutines", before), func() bool { return runtime.NumGoroutine() <= before })
				}
			})
		}
	}
}

// settled is the number of goroutines when nothing has changed for some looks.
func settled(t testing.TB) int {
	t.Helper()
	last, same := runtime.NumGoroutine(), 0
	eventually(t, "a steady number of goroutines", func() bool {
		if n := runtime.NumGoroutine(); n != last {
			last, same = n, 0
		}
		same++
		return same > 100
	})
	return last
}

// A registry that refuses in the middle of a body says why, and the client must be able to read it: also one
// that looks at the answer only after its last byte.
func TestStreamErrorOfUpstreamReachesAClientThatKeepsSending(t *testing.T) {
	const size = 8 * mib // within what is drained (drainBytes, drainTime)
	const reason = `{"errors":[{"code":"DENIED","message":"quota of the repository is used up"}]}`
	refuse := func(w http.ResponseWriter, status int) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, reason)
	}
	for _, c := range []struct {
		name   string
		take   func(w http.ResponseWriter, r *http.Request)
		status int
		code   string
		body   string
	}{
		{"before the first byte", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusForbidden) }, http.StatusForbidden, "DENIED", reason},
		{"after a MiB", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, mib)
			refuse(w, http.StatusRequestEntityTooLarge)
		}, http.StatusRequestEntityTooLarge, "DENIED", reason},
		{"after the last byte", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			refuse(w, http.StatusInternalServerError)
		}, http.StatusInternalServerError, "DENIED", reason},
		{"by cutting the connection", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, mib)
			panic(http.ErrAbortHandler)
		}, http.StatusBadGateway, "UNAVAILABLE", ""},
	} {
		for _, w := range ways {
			t.Run(c.name+", "+w.name, func(t *testing.T) {
				r := newRig(t, newSink(t, func(rw http.ResponseWriter, req *http.Request) bool {
					c.take(rw, req)
					return true
				}))
				front := serve(t, r.proxy.Handler())
				u := w.begin(t, front.URL, "app", layerDigest(size), size)
				if err := u.sendAll(size); err != nil {
					t.Fatalf("the client sees %v instead of the reason", err)
				}
				a := u.answer().want(t, c.status, c.code)
				if c.body != "" && !bytes.Equal(a.body, []byte(c.body)) {
					t.Errorf("answer is %s, upstream said %s", a.body, c.body)
				}
				if got := a.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
					t.Errorf("Content-Type of the answer is %q", got)
				}
			})
		}
	}
}

// A client that sends more than is drained is cut off, but not before it was told.
func TestStreamErrorOfUpstreamReachesAClientThatListensWhileItSends(t *testing.T) {
	const size = 256 * mib
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			r := newRig(t, newSink(t, func(rw http.ResponseWriter, req *http.Request) bool {
				_, _ = io.CopyN(io.Discard, req.Body, mib)
				rw.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(rw, `{"errors":[{"code":"DENIED","message":"no"}]}`)
				return true
			}))
			front := serve(t, r.proxy.Handler())
			u := w.begin(t, front.URL, "app", layerDigest(1), size)
			sending := make(chan error, 1)
			go func() { sending <- u.sendAll(size) }()
			u.answer().want(t, http.StatusForbidden, "DENIED")
			if err := receive(t, "the end of sending", sending); err == nil {
				t.Errorf("all %d MiB of a refused layer were read", size/mib)
			}
		})
	}
}
