package proxy_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
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
