package quarantine

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// small keeps the tests fast: a large object is one that is staged, however small that is.
const small = 4 << 10

// clock starts at the real time, because drivers stamp objects with it.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) shift(days int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Duration(days) * day)
}

func (c *clock) day(shift int) string {
	return c.now().UTC().Add(time.Duration(shift) * day).Format(dayFormat)
}

func newStore(t testing.TB, d storagedriver.StorageDriver, c *clock) *Store {
	t.Helper()
	s, err := New(d, Options{Retention: 2, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	s.storage.Small = small
	return s
}

func sha(b []byte) string     { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }
func sha512d(b []byte) string { return fmt.Sprintf("sha512:%x", sha512.Sum512(b)) }

// content of n bytes that differs with seed.
func content(seed string, n int) []byte {
	b := make([]byte, 0, n+64)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%s %d\n", seed, i)
	}
	return b[:n]
}

func readBlob(t testing.TB, s *Store, repo, digest string) []byte {
	t.Helper()
	rc, size, err := s.OpenBlob(t.Context(), repo, digest, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	if size != int64(len(b)) {
		t.Errorf("blob %s has %d bytes and %d were announced", digest, len(b), size)
	}
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func writeParts(t testing.TB, s *Store, generation, repo, id string, parts ...[]byte) {
	t.Helper()
	for i, p := range parts {
		n, err := s.WritePart(t.Context(), generation, repo, id, i, bytes.NewReader(p), 1<<30)
		if err != nil || n != int64(len(p)) {
			t.Fatalf("part %d: %d bytes, %v", i, n, err)
		}
	}
}
