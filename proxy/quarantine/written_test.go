package quarantine

import (
	"errors"
	"io"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	godigest "github.com/opencontainers/go-digest"

	"sluice/proxy/internal/objects/objectstest"
)

// What this process wrote it looks for where it wrote it, and believes the storage: another replica may have deleted it, or
// have it in another generation.
func TestWhatWasWrittenHereAndDeletedElsewhereIsNotFound(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
		open := func(now func() time.Time) *Store {
			s, err := New(d, Options{Now: now})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		here, there := open(func() time.Time { return now }), open(func() time.Time { return now })
		yesterday := open(func() time.Time { return now.Add(-24 * time.Hour) })
		content := []byte(`{"_type":"https://in-toto.io/Statement/v1"}`)
		digest := godigest.FromBytes(content).String()
		put := func(s *Store) {
			t.Helper()
			if err := s.PutBlob(t.Context(), "app", digest, content); err != nil {
				t.Fatal(err)
			}
		}
		put(here)
		size, read, err := here.FindBlob(t.Context(), "app", digest)
		if err != nil || size != int64(len(content)) {
			t.Fatalf("%d, %v", size, err)
		}
		if err := there.DeleteBlob(t.Context(), "app", digest); err != nil {
			t.Fatal(err)
		}
		if rc, err := read(t.Context(), 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("what was found and then deleted is read: %v, %v", rc, err)
		}
		if _, err := here.StatBlob(t.Context(), "app", digest); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		put(here)
		_, read, err = here.FindBlob(t.Context(), "app", digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := there.DeleteBlob(t.Context(), "app", digest); err != nil {
			t.Fatal(err)
		}
		put(yesterday)
		for range 2 {
			rc, err := read(t.Context(), 3)
			if err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(rc); err != nil || string(b) != string(content[3:]) || rc.Close() != nil {
				t.Errorf("read %s, %v", b, err)
			}
			if _, err := here.StatBlob(t.Context(), "app", digest); err != nil {
				t.Errorf("in another generation: %v", err)
			}
		}
	})
}
