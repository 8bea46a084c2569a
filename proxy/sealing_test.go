package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/proxytest"
)

// A slowKeys is a storage in which the list of keys takes until it is let go.
type slowKeys struct {
	storagedriver.StorageDriver
	release chan struct{} // nil: at once
}

func (d *slowKeys) List(ctx context.Context, path string) ([]string, error) {
	if release := d.release; release != nil && strings.HasPrefix(path, "/keys") {
		<-release
	}
	return d.StorageDriver.List(ctx, path)
}

// olderKey is what another replica, which started at the same time, has put into the storage.
func olderKey(t testing.TB, d storagedriver.StorageDriver, order byte) {
	t.Helper()
	if err := d.PutContent(t.Context(), fmt.Sprintf("/keys/%020d-%016x", order, order), bytes.Repeat([]byte{order}, 32)); err != nil {
		t.Fatal(err)
	}
}

// I10 from the first second on: replicas that start together on an empty storage have keys of their own, and a client that
// sends several requests at once reaches one with URLs of another.
func TestUploadsThatAnotherReplicaBeganGoOnTogether(t *testing.T) {
	const uploads = 8
	up, shared := proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), &slowKeys{StorageDriver: inmemory.New()}
	var arrived atomic.Int32
	release := make(chan struct{})
	first := newRig(t, up, storage(shared), before(func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if arrived.Add(1) == uploads {
				time.AfterFunc(10*time.Millisecond, func() { close(release) })
			}
			h.ServeHTTP(w, r)
		})
	}))
	olderKey(t, shared, 1)
	second := newRig(t, up, storage(shared))
	locations := make([]string, uploads)
	for i := range locations {
		locations[i] = elsewhere(t, second.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted).Header.Get("Location"))
	}
	shared.release = release
	var wg sync.WaitGroup
	for _, location := range locations {
		wg.Go(func() {
			if a := first.request(http.MethodGet, location, nil); a.StatusCode != http.StatusNoContent {
				t.Errorf("%s: %s", a.Status, a.body)
			}
		})
	}
	wg.Wait()
}

// The keys are not read again for a few seconds only if nothing was found: no replica is locked out by a third.
func TestAReplicaThatFindsOneKeyLooksForTheNext(t *testing.T) {
	now := time.Now()
	up, shared := proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), inmemory.New()
	first := newRig(t, up, storage(shared), clock(func() time.Time { return now }))
	for order := byte(3); order > 0; order-- { // each is older than those before, so the new replica seals with it
		olderKey(t, shared, order)
		other := newRig(t, up, storage(shared), clock(func() time.Time { return now }))
		location := elsewhere(t, other.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted).Header.Get("Location"))
		first.request(http.MethodGet, location, nil).want(t, http.StatusNoContent)
	}
}
