package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// slowDriver takes its time for each call.
type slowDriver struct {
	storagedriver.StorageDriver
	by time.Duration
}

func (d slowDriver) GetContent(ctx context.Context, path string) ([]byte, error) {
	time.Sleep(d.by)
	return d.StorageDriver.GetContent(ctx, path)
}

func (d slowDriver) PutContent(ctx context.Context, path string, content []byte) error {
	time.Sleep(d.by)
	return d.StorageDriver.PutContent(ctx, path, content)
}

func (d slowDriver) Stat(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	time.Sleep(d.by)
	return d.StorageDriver.Stat(ctx, path)
}

func (d slowDriver) List(ctx context.Context, path string) ([]string, error) {
	time.Sleep(d.by)
	return d.StorageDriver.List(ctx, path)
}

func choices() []config.OnStorageError {
	return []config.OnStorageError{config.StorageErrorReject, config.StorageErrorForward, config.StorageErrorStrip}
}

// Slow is no error: nothing is forwarded or forgotten for it.
func TestASlowStorageOnlyTakesLonger(t *testing.T) {
	for _, choice := range choices() {
		t.Run(string(choice), func(t *testing.T) {
			t.Parallel()
			c := ordinary
			tree, plain := c.trees()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(slowDriver{inmemory.New(), 10 * time.Millisecond}), onStorageError(choice))
			r.push(c.push, "app", "1", tree)
			r.holdsNow(plain)
			r.finished(tree, plain, c.act)
		})
	}
}

// readOnlyDriver is a file system that was mounted anew after an error of its disk.
type readOnlyDriver struct{ storagedriver.StorageDriver }

func (readOnlyDriver) PutContent(context.Context, string, []byte) error { return syscall.EROFS }
func (readOnlyDriver) Writer(context.Context, string, bool) (storagedriver.FileWriter, error) {
	return nil, syscall.EROFS
}
func (readOnlyDriver) Move(context.Context, string, string) error { return syscall.EROFS }
func (readOnlyDriver) Delete(context.Context, string) error       { return syscall.EROFS }

// What the operator chose counts for pushes with attestations, and all others go on (I2, I4, I7).
func TestAStorageThatIsReadOnlyOrDownStopsOnlyWhatNeedsIt(t *testing.T) {
	for _, choice := range choices() {
		for _, kind := range []string{"read-only", "down"} {
			t.Run(fmt.Sprint(kind, " ", choice), func(t *testing.T) {
				t.Parallel()
				disk := inmemory.New()
				setUp := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(disk)) // which makes the key
				setUp.server.Close()
				failing := proxytest.NewFailingDriver(disk)
				var driver storagedriver.StorageDriver = failing
				if kind == "read-only" {
					driver = readOnlyDriver{disk}
				}
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(driver), onStorageError(choice))
				if kind == "down" {
					failing.Fail(1, proxytest.FaultDead)
				}
				r.stopsOnlyWhatNeedsIt(choice)
			})
		}
	}
}

// stopsOnlyWhatNeedsIt pushes with and without attestations while nothing can be written. The one with them is returned.
func (r *rig) stopsOnlyWhatNeedsIt(choice config.OnStorageError) *proxytest.Tree {
	r.t.Helper()
	tree, plain := ordinary.trees()
	if err := tryPush(r, proxytest.BuildKit, plain); err != nil {
		r.t.Errorf("a push without attestations fails: %v", err)
	}
	r.holdsNow(plain)
	_, err := proxytest.BuildKit(r.t.Context(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"2"}, Tree: tree, Sequential: true})
	r.proxy.HandlersEnd()
	r.proxy.Settle()
	proxytest.AssertComplete(r.t, r.upstream)
	switch choice {
	case config.StorageErrorReject:
		if err == nil || !strings.Contains(err.Error(), "429") {
			r.t.Errorf("the client hears %v, want 429, which it retries", err)
		}
		r.direct(http.MethodHead, "/v2/app/manifests/2", nil, acceptAll...).want(r.t, http.StatusNotFound)
		proxytest.AssertClean(r.t, r.upstream)
	case config.StorageErrorForward:
		if got := r.upstreamDigest("app", "2"); err != nil || got != tree.Digest() {
			r.t.Errorf("upstream has %s, want what was pushed, %s (I4): %v", got, tree.Digest(), err)
		}
	case config.StorageErrorStrip:
		if got := r.upstreamDigest("app", "2"); err != nil || got != plain.Digest() {
			r.t.Errorf("upstream has %s, want the image alone, %s: %v", got, plain.Digest(), err)
		}
		proxytest.AssertClean(r.t, r.upstream)
	}
	return tree
}
