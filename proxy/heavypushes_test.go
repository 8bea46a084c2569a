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

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// A gate keeps who reads manifests of one repository, while it is shut.
type gate struct {
	storagedriver.StorageDriver
	shut    atomic.Pointer[chan struct{}]
	waiting atomic.Int32
}

func (g *gate) GetContent(ctx context.Context, path string) ([]byte, error) {
	if shut := g.shut.Load(); shut != nil && strings.Contains(path, "/app/_manifests/") {
		g.waiting.Add(1)
		<-*shut
	}
	return g.StorageDriver.GetContent(ctx, path)
}

// largeAttestations pushes some of 100 KiB each, and gives an index of hardly any size that lists them.
func (r *rig) largeAttestations(n int, said func(size int) int) []byte {
	r.t.Helper()
	r.request(http.MethodPut, put(r.upload("app"), filters.EmptyDigest), []byte("{}")).want(r.t, http.StatusCreated)
	var entries []string
	for i := range n {
		b := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.in-toto+json","digest":%q,"size":2}],"annotations":{"a%d":"%s"}}`,
			ocidoc.MediaTypeOCIManifest, filters.ArtifactTypeAttestation, filters.EmptyDigest, filters.EmptyDigest, i, bytes.Repeat([]byte("x"), 100<<10))
		r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(b), b, "Content-Type", ocidoc.MediaTypeOCIManifest).want(r.t, http.StatusCreated)
		entries = append(entries, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, ocidoc.MediaTypeOCIManifest, ocidoc.DigestOf(b), said(len(b))))
	}
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Join(entries, ","))
}

func truly(size int) int { return size }

// What indexes list may be a thousand times as large as they are, so what is read for all pushes together is bounded, and
// pushes as everybody makes them do not wait for it.
func TestFewPushesOfLargeManifestsAreJudgedAtOnce(t *testing.T) {
	t.Parallel() // most of it is waiting
	g := &gate{StorageDriver: inmemory.New()}
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(g))
	index := r.largeAttestations(8, truly)
	shut := make(chan struct{})
	g.shut.Store(&shut)
	var pushes sync.WaitGroup
	for range 4 {
		pushes.Go(func() { r.request(http.MethodPut, "/v2/app/manifests/1", index, "Content-Type", ociIndex) })
	}
	eventually(t, "four that read all they list", func() bool { return g.waiting.Load() >= 4*8 })
	r.push(proxytest.BuildKit, "other", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}))
	const full = "sluice keeps no more in memory"
	if a := r.request(http.MethodPut, "/v2/app/manifests/2", index, "Content-Type", ociIndex).want(t, http.StatusTooManyRequests); !strings.Contains(string(a.body), full) {
		t.Errorf("one more is told %s", a.body)
	}
	if n := g.waiting.Load(); n != 4*8 {
		t.Errorf("%d manifests are being read, want those of four pushes", n)
	}
	g.shut.Store(nil)
	close(shut)
	pushes.Wait()
	// A statement that nobody has is what is wrong with it now.
	if a := r.request(http.MethodPut, "/v2/app/manifests/2", index, "Content-Type", ociIndex); strings.Contains(string(a.body), full) {
		t.Errorf("there is no room although nobody pushes: %s", a.body)
	}
}

// The size of an entry says what is worth reading, so it must be true.
func TestAnIndexThatUnderstatesWhatItListsIsRefused(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}))
	index := r.largeAttestations(1, func(int) int { return 1000 })
	r.request(http.MethodPut, "/v2/app/manifests/1", index, "Content-Type", ociIndex).want(t, http.StatusBadRequest, "MANIFEST_INVALID")
}

// The same where what it lists is upstream, and only so much of it is read.
func TestAnIndexThatUnderstatesWhatUpstreamHasIsRefused(t *testing.T) {
	up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{})
	index := newRig(t, up, action(filters.Forward)).largeAttestations(1, func(int) int { return 1000 })
	a := newRig(t, up).request(http.MethodPut, "/v2/app/manifests/1", index, "Content-Type", ociIndex).want(t, http.StatusBadRequest, "MANIFEST_INVALID")
	if !strings.Contains(string(a.body), "lists with 1000 bytes") {
		t.Errorf("the answer is %s", a.body)
	}
}
