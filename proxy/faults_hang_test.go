package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func storageTimeout(d time.Duration) setting {
	return with(func(c *config.Config) { c.StorageTimeout = config.Duration(d) })
}

// hangTime is long for a storage in memory that does not hang, but on a busy machine.
const hangTime = 400 * time.Millisecond

// pushTaken pushes to a storage that does not hang, again where a busy machine made it look as if it did: a client does so too.
func pushTaken(t *testing.T, r *rig, tree *proxytest.Tree) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(hangTime / 4) {
		err := tryPush(r, proxytest.BuildKit, tree)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "429") || time.Now().After(end) {
			t.Fatalf("the push to a storage that does not hang fails: %v", err)
		}
	}
}

// A storage that hangs has failed: on_storage_error decides, whatever kind of call it is that does not come back, and the
// same push comes to its end when the storage is there again (I1, I2, I4, I5, I6, I7).
func TestAStorageThatHangsDoesToAPushWhatTheOperatorChose(t *testing.T) {
	one := []string{"linux/amd64"}
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: one})
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: one, Form: proxytest.FormLegacy, StatementSize: 300 << 10})
	for _, kind := range []string{"GetContent", "PutContent", "Reader", "Reader.Read", "Writer", "Writer.Write", "Writer.Commit", "Writer.Close", "Stat", "List", "Move", "Delete", ""} {
		for _, choice := range choices() {
			name := kind
			if kind == "" {
				name = "everything"
			}
			t.Run(fmt.Sprint(name, " ", choice), func(t *testing.T) {
				t.Parallel()
				var hung atomic.Bool
				driver := proxytest.NewFailingDriver(inmemory.New())
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(driver), onStorageError(choice), storageTimeout(hangTime))
				pushTaken(t, r, plain) // layers and the image are there
				release := driver.Hang(func(what string) bool {
					if kind != "" && !strings.HasPrefix(what, kind+" ") {
						return false
					}
					hung.Store(true)
					return true
				})
				defer release()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				res, err := proxytest.BuildKit(ctx, proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"2"}, Tree: tree, Sequential: true})
				if ctx.Err() != nil {
					t.Fatalf("the push waits for ever: %v", err)
				}
				if !hung.Load() {
					t.Fatal("a push makes no such call: nothing was tested")
				}
				proxytest.AssertComplete(t, r.upstream)
				if choice != config.StorageErrorForward {
					proxytest.AssertClean(t, r.upstream)
				}
				tag := r.direct(http.MethodHead, "/v2/app/manifests/2", nil, acceptAll...)
				got := tag.Header.Get("Docker-Content-Digest")
				switch {
				case err != nil && choice != config.StorageErrorStrip:
					// Also under forward: what was read of a body is not sent again, and what is held cannot be sent.
					if !strings.Contains(err.Error(), "429") {
						t.Errorf("the client hears %.600v, want 429, which it retries", err)
					}
					if tag.StatusCode == http.StatusOK && got != plain.Digest() { // the alias is written last (I6)
						t.Errorf("upstream's tag is %s", got)
					}
				case err != nil:
					t.Errorf("the push fails: %.300v", err)
				case got != plain.Digest() && (choice != config.StorageErrorForward || got != res.Pushed.Digest()):
					t.Errorf("upstream has %s, want the image alone, %s, or under forward what was pushed, %s (I4)", got, plain.Digest(), res.Pushed.Digest())
				}
				release()
				r.proxy.Settle()
				for end := time.Now().Add(20 * time.Second); r.proxy.LostCalls() > 0; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%d calls never come back", r.proxy.LostCalls())
					}
				}
				pushTaken(t, r, tree)
				proxytest.AssertComplete(t, r.upstream)
				if choice == config.StorageErrorForward {
					return // the attestations are upstream, and a client need not send them again
				}
				proxytest.AssertClean(t, r.upstream)
				if choice == config.StorageErrorReject {
					r.finished(tree, plain, filters.Store)
				}
			})
		}
	}
}

// Pushes without attestations, and those who come later, are not held up, and nothing is left when the storage is back.
func TestAStorageThatHangsHoldsUpNobodyForLong(t *testing.T) {
	driver := proxytest.NewFailingDriver(inmemory.New())
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(driver), storageTimeout(hangTime))
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	pushTaken(t, r, plain)
	transport.CloseIdleConnections()
	before := runtime.NumGoroutine()
	release := driver.Hang(func(string) bool { return true })
	defer release()
	for n := range 20 {
		other := proxytest.Synthetic(proxytest.SyntheticOptions{Seed: uint64(n + 1)})
		if _, err := proxytest.BuildKit(t.Context(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: other}); err != nil {
			t.Fatalf("push %d: %v", n, err)
		}
		if n > 5 && r.proxy.LostCalls() == 0 {
			t.Fatal("no call hangs: nothing was tested")
		}
	}
	// Requests that run at once make their calls before any is given up, and no more are made then.
	if n := r.proxy.LostCalls(); n < 16 || n > 100 {
		t.Errorf("%d calls are lost, want 16 and those that were made with them", n)
	}
	calls := driver.Calls()
	r.request(http.MethodHead, "/v2/app/blobs/"+filters.EmptyDigest, nil)
	if n := driver.Calls() - calls; n != 0 {
		t.Errorf("%d more calls are made", n)
	}
	ready := httptest.NewRecorder()
	r.proxy.Admin().ServeHTTP(ready, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	if ready.Code != http.StatusServiceUnavailable || !strings.Contains(ready.Body.String(), "not ready: storage") {
		t.Errorf("readyz says %d: %s", ready.Code, ready.Body)
	}
	release()
	for end := time.Now().Add(20 * time.Second); r.proxy.LostCalls() > 0 || runtime.NumGoroutine() > before+20; time.Sleep(time.Millisecond) {
		transport.CloseIdleConnections()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if time.Now().After(end) {
			t.Fatalf("%d calls are lost, %d goroutines are left, %d were there before", r.proxy.LostCalls(), runtime.NumGoroutine(), before)
		}
	}
	pushTaken(t, r, proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}))
}
