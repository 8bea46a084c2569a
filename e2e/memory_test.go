//go:build e2e

package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// A layer is a body of any size that costs no memory: a gzip magic number and then a repeated block.
// Halfway it waits for the gate, if it has one.
type layer struct {
	seed   byte
	size   int64
	offset int64
	gate   func()
}

func (l *layer) Read(p []byte) (int, error) {
	if l.offset >= l.size {
		return 0, io.EOF
	}
	if l.gate != nil && l.offset >= l.size/2 {
		l.gate()
		l.gate = nil
	}
	n := int(min(int64(len(p)), l.size-l.offset))
	if l.gate != nil { // never past the middle in one read
		n = int(min(int64(n), l.size/2-l.offset))
	}
	for i := range p[:n] {
		p[i] = l.seed
	}
	if l.offset == 0 {
		n = copy(p, []byte{0x1f, 0x8b})
	}
	l.offset += int64(n)
	return n, nil
}

func (l layer) digest(t testing.TB) string {
	t.Helper()
	l.gate, l.offset = nil, 0
	h := sha256.New()
	if _, err := io.Copy(h, &l); err != nil {
		t.Fatal(err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// upload pushes a blob as BuildKit does: POST, then one PUT with a length.
func upload(ctx context.Context, host, repository, digest string, body io.Reader, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+host+"/v2/"+repository+"/blobs/uploads/", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return fmt.Errorf("POST uploads: %s", resp.Status)
	}
	location, err := req.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return err
	}
	q := location.Query()
	q.Set("digest", digest)
	location.RawQuery = q.Encode()
	return put(ctx, location, body, size)
}

func put(ctx context.Context, location *url.URL, body io.Reader, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, location.String(), body)
	if err != nil {
		return err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return fmt.Errorf("PUT blob: %s: %s", resp.Status, b)
	}
	return nil
}

// peak is the most memory that the process ever had resident, in bytes.
func (p *process) peak(t testing.TB) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, found := strings.CutPrefix(line, "VmHWM:"); found {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in /proc")
	return 0
}

// warm makes Sluice open its connections and grow what every push needs.
func (w *world) warm(t testing.TB) {
	t.Helper()
	l := layer{seed: 255, size: 4 * mib}
	for range 3 {
		if err := upload(t.Context(), w.via, "warm", l.digest(t), &layer{seed: l.seed, size: l.size}, l.size); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALayerOfOneGibibyteStreams(t *testing.T) {
	w := newWorld(t)
	w.needSluice(t)
	w.warm(t)
	before, held := w.sluice.one(t).proc.peak(t), w.sluice.one(t).held(t)
	l := layer{seed: 1, size: gib}
	if err := upload(t.Context(), w.via, "big", l.digest(t), &l, l.size); err != nil {
		t.Fatal(err)
	}
	rise := w.sluice.one(t).proc.peak(t) - before
	t.Logf("peak memory rose by %.1f MiB from %.1f MiB", float64(rise)/mib, float64(before)/mib)
	if rise >= 32*mib {
		t.Errorf("a layer of 1 GiB raised the peak by %.1f MiB, the limit is 32", float64(rise)/mib)
	}
	if grown := w.sluice.one(t).held(t) - held; grown >= mib {
		t.Errorf("the data folder grew by %d bytes: a layer must not touch the disk here", grown)
	}
}

func TestSixtyFourUploadsAtOnceStream(t *testing.T) {
	w := newWorld(t)
	w.needSluice(t)
	w.warm(t)
	before, held := w.sluice.one(t).proc.peak(t), w.sluice.one(t).held(t)
	const uploads, size = 64, 16 * mib
	var halfway sync.WaitGroup // all are in the middle of their body at the same time
	halfway.Add(uploads)
	g, ctx := errgroup.WithContext(t.Context())
	for i := range uploads {
		l := &layer{seed: byte(i), size: size}
		digest := l.digest(t)
		l.gate = func() { halfway.Done(); halfway.Wait() }
		g.Go(func() error { return upload(ctx, w.via, fmt.Sprintf("many/%d", i%8), digest, l, size) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	rise := w.sluice.one(t).proc.peak(t) - before
	t.Logf("peak memory rose by %.1f MiB from %.1f MiB", float64(rise)/mib, float64(before)/mib)
	if rise >= 64*mib {
		t.Errorf("64 uploads raised the peak by %.1f MiB, the limit is 64", float64(rise)/mib)
	}
	if grown := w.sluice.one(t).held(t) - held; grown >= mib {
		t.Errorf("the data folder grew by %d bytes: a layer must not touch the disk here", grown)
	}
}
