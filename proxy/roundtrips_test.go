package proxy_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	godigest "github.com/opencontainers/go-digest"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// A bucket counts the requests that distribution's S3 driver would make for each call (registry/storage/driver/s3-aws/s3.go),
// and can hold calls back until no more come, so that those which wait for each other show.
type bucket struct {
	storagedriver.StorageDriver // Name, RedirectURL, Walk: not part of a push
	requests                    atomic.Int64

	mu      sync.Mutex
	made    map[string]int64 // requests by call and kind of object
	holding bool
	waiting []chan struct{}
	arrived time.Time
	waves   int
}

// quiet is how long nothing may arrive before those that wait are let go together.
const quiet = 500 * time.Millisecond

func (b *bucket) request(n int64, call, path string) {
	b.note(n, call, path)
	b.mu.Lock()
	if !b.holding {
		b.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	b.waiting, b.arrived = append(b.waiting, turn), time.Now()
	b.mu.Unlock()
	<-turn
}

func (b *bucket) note(n int64, call, path string) {
	b.requests.Add(n)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.made == nil {
		b.made = map[string]int64{}
	}
	kind, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	for part := range strings.SplitSeq(rest, "/") {
		if strings.HasPrefix(part, "_") {
			kind += "/" + part
			break
		}
	}
	b.made[fmt.Sprintf("%-10s %s", call, kind)] += n
}

// table says what the requests were, the most frequent first.
func (b *bucket) table() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var t strings.Builder
	for _, what := range slices.SortedFunc(maps.Keys(b.made), func(x, y string) int { return cmp.Or(cmp.Compare(b.made[y], b.made[x]), cmp.Compare(x, y)) }) {
		fmt.Fprintf(&t, "\n%4d %s", b.made[what], what)
	}
	return t.String()
}

// count is how many waves of calls do makes, each waiting for the one before.
func (b *bucket) count(do func()) int {
	b.mu.Lock()
	b.holding, b.waves = true, 0
	b.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	tick := time.NewTicker(quiet / 10)
	defer tick.Stop()
	for {
		select {
		case <-done:
			b.mu.Lock()
			defer b.mu.Unlock()
			b.holding = false
			return b.waves
		case now := <-tick.C:
			b.mu.Lock()
			if len(b.waiting) > 0 && now.Sub(b.arrived) > quiet {
				b.waves++
				for _, turn := range b.waiting {
					close(turn)
				}
				b.waiting = nil
			}
			b.mu.Unlock()
		}
	}
}

func (b *bucket) GetContent(ctx context.Context, path string) ([]byte, error) {
	b.request(1, "GetContent", path)
	return b.StorageDriver.GetContent(ctx, path)
}

func (b *bucket) PutContent(ctx context.Context, path string, content []byte) error {
	b.request(1, "PutContent", path)
	return b.StorageDriver.PutContent(ctx, path, content)
}

func (b *bucket) Reader(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	b.request(1, "Reader", path)
	return b.StorageDriver.Reader(ctx, path, offset)
}

func (b *bucket) List(ctx context.Context, path string) ([]string, error) {
	b.request(1, "List", path) // for every 1000 names
	return b.StorageDriver.List(ctx, path)
}

// Stat of what is not there is HeadObject and ListObjectsV2.
func (b *bucket) Stat(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	b.request(1, "Stat", path)
	fi, err := b.StorageDriver.Stat(ctx, path)
	if err != nil || fi.IsDir() {
		b.note(1, "Stat", path)
	}
	return fi, err
}

// Move is HeadObject, CopyObject, ListObjectsV2 and DeleteObjects.
func (b *bucket) Move(ctx context.Context, from, to string) error {
	b.request(4, "Move", from)
	return b.StorageDriver.Move(ctx, from, to)
}

func (b *bucket) Delete(ctx context.Context, path string) error {
	b.request(2, "Delete", path)
	return b.StorageDriver.Delete(ctx, path)
}

// Writer is CreateMultipartUpload, UploadPart and CompleteMultipartUpload, for up to 10 MiB.
func (b *bucket) Writer(ctx context.Context, path string, appending bool) (storagedriver.FileWriter, error) {
	b.request(3, "Writer", path)
	return b.StorageDriver.Writer(ctx, path, appending)
}

// A push asks object storage for little. The numbers stand in README; what is more is a regression.
func TestAPushMakesFewRequestsToObjectStorage(t *testing.T) {
	tree := func(form proxytest.Form, sbom bool) *proxytest.Tree {
		return proxytest.Synthetic(proxytest.SyntheticOptions{Layers: 3, LayerSize: 256 << 10, Form: form, SBOM: sbom})
	}
	// In the last two hours of a day each look-up asks in tomorrow's generation too, for replicas whose clocks are ahead.
	began := time.Now()
	noon := began.UTC().Truncate(24 * time.Hour).Add(12 * time.Hour)
	now := func() time.Time { return noon.Add(time.Since(began)) }
	for _, tt := range []struct {
		name string
		tree *proxytest.Tree
		most map[filters.Action]int64 // a little more than what the hungriest client makes, since look-ups that are not needed any more are cancelled
	}{
		{"two platforms without attestations", tree(proxytest.FormNone, false), map[filters.Action]int64{filters.Store: 50, filters.Strip: 50}},
		{"two platforms with two attestations", tree(proxytest.FormArtifact, false), map[filters.Action]int64{filters.Store: 155, filters.Strip: 120}},
		{"two platforms with two attestations and SBOMs", tree(proxytest.FormArtifact, true), map[filters.Action]int64{filters.Store: 190, filters.Strip: 145}},
	} {
		for a, most := range tt.most {
			for _, client := range proxytest.Clients() {
				if !client.Indexes {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", tt.name, a, client.Name), func(t *testing.T) {
					b := &bucket{StorageDriver: inmemory.New()}
					r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(b), action(a), clock(now))
					before := b.requests.Load()
					b.made = nil
					r.push(client.Push, "app", "1", tt.tree)
					n := b.requests.Load() - before
					t.Logf("%d requests to the bucket: %s", n, b.table())
					if n > most {
						t.Errorf("%d requests to the bucket, want at most %d", n, most)
					}
				})
			}
		}
	}
}

// Round trips to object storage are what a push would wait for. Layers stream by, whatever the storage does.
func TestAPushWithoutAttestationsHardlyWaitsForObjectStorage(t *testing.T) {
	b := &bucket{StorageDriver: inmemory.New()}
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(b))
	layer, config := bytes.Repeat([]byte{0x1f, 0x8b, 8, 0}, 1000), []byte(`{"architecture":"amd64","os":"linux"}`)
	r.request(http.MethodHead, "/v2/app/blobs/"+godigest.FromString("the generations are listed once a minute").String(), nil)

	waits := func(name string, most int, do func()) {
		t.Helper()
		if n := b.count(do); n > most {
			t.Errorf("%s waits for %d round trips to the storage one after the other, want at most %d", name, n, most)
		} else {
			t.Logf("%s: %d", name, n)
		}
	}
	for _, blob := range [][]byte{layer, config} {
		digest := godigest.FromBytes(blob).String()
		var location string
		// One, and while the registry is asked: see the test below.
		waits("HEAD of a blob that the registry lacks", 1, func() { r.request(http.MethodHead, "/v2/app/blobs/"+digest, nil).want(t, http.StatusNotFound) })
		waits("POST", 0, func() {
			location = r.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted).Header.Get("Location")
		})
		waits("PUT of a layer", 0, func() {
			request(t, http.MethodPut, absolute(r, location)+"digest="+digest, blob).want(t, http.StatusCreated)
		})
		waits("HEAD of a blob that the registry has", 0, func() { r.request(http.MethodHead, "/v2/app/blobs/"+digest, nil).want(t, http.StatusOK) })
	}
	image := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`,
		proxytest.MediaTypeOCIManifest, godigest.FromBytes(config), len(config), godigest.FromBytes(layer), len(layer))
	digest := godigest.FromBytes(image).String()
	waits("HEAD of a manifest that the registry lacks", 1, func() {
		r.request(http.MethodHead, "/v2/app/manifests/"+digest, nil, acceptAll...).want(t, http.StatusNotFound)
	})
	waits("PUT of an image's manifest", 0, func() {
		r.request(http.MethodPut, "/v2/app/manifests/"+digest, image, "Content-Type", proxytest.MediaTypeOCIManifest).want(t, http.StatusCreated)
	})
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"linux"}}]}`,
		proxytest.MediaTypeOCIIndex, proxytest.MediaTypeOCIManifest, digest, len(image))
	waits("PUT of an index", 0, func() {
		r.request(http.MethodPut, "/v2/app/manifests/1", index, "Content-Type", proxytest.MediaTypeOCIIndex).want(t, http.StatusCreated)
	})
}

// Whether the storage has a blob is found out while the registry is asked, so a client that looks for layers which are not
// there yet waits for the slower of the two, whichever replica it asks. What the registry took lately is not looked for.
func TestTheStorageIsAskedForABlobWhileTheRegistryIs(t *testing.T) {
	b := &bucket{StorageDriver: inmemory.New()}
	asked, begun := make(chan struct{}, 1), make(chan struct{})
	up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/blobs/") {
				select {
				case asked <- struct{}{}:
					select {
					case <-begun:
					case <-time.After(20 * time.Second):
						t.Error("the storage is asked when the registry has answered")
					}
				default:
				}
			}
			next.ServeHTTP(w, r)
		})
	}})
	r := newRig(t, up, storage(b))
	layer := bytes.Repeat([]byte{0x1f, 0x8b, 8, 0}, 1000)
	path := "/v2/app/blobs/" + godigest.FromBytes(layer).String()
	before := b.requests.Load()
	go func() {
		<-asked
		for b.requests.Load() == before {
			time.Sleep(time.Millisecond)
		}
		close(begun)
	}()
	r.request(http.MethodHead, path, nil).want(t, http.StatusNotFound)
	location := r.request(http.MethodPost, "/v2/app/blobs/uploads/", []byte{}).want(t, http.StatusAccepted).Header.Get("Location")
	request(t, http.MethodPut, absolute(r, location)+"digest="+godigest.FromBytes(layer).String(), layer).want(t, http.StatusCreated)
	before = b.requests.Load()
	r.request(http.MethodHead, path, nil).want(t, http.StatusOK)
	if n := b.requests.Load() - before; n > 0 {
		t.Errorf("%d requests to the bucket about a layer that the registry took a moment ago", n)
	}
}

// absolute is a Location, ready for a query.
func absolute(r *rig, location string) string {
	separator := "?"
	if bytes.ContainsRune([]byte(location), '?') {
		separator = "&"
	}
	if location[0] == '/' {
		location = r.url() + location
	}
	return location + separator
}
