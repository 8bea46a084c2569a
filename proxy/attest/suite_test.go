package attest

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
)

// backends: every test of the Store runs over each, since nothing may depend on which one it is.
func backends(t *testing.T, test func(t *testing.T, d storagedriver.StorageDriver)) {
	t.Helper()
	t.Run("inmemory", func(t *testing.T) { test(t, inmemory.New()) })
	t.Run("filesystem", func(t *testing.T) { test(t, newFilesystem(t)) })
}

// newFilesystem is on a file system in memory where the machine has one: the driver syncs every file that it writes.
func newFilesystem(t testing.TB) storagedriver.StorageDriver {
	dir, err := os.MkdirTemp("/dev/shm", "sluice-test-")
	if err != nil {
		dir = t.TempDir()
	} else {
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	return filesystem.New(filesystem.DriverParameters{RootDirectory: dir, MaxThreads: 25})
}

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func newStore(d storagedriver.StorageDriver) *Store {
	return New(d, func() time.Time { return start })
}

func sha(s string) string     { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }
func sha512d(s string) string { return fmt.Sprintf("sha512:%x", sha512.Sum512([]byte(s))) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func content(n int) string { return strings.Repeat("0123456789abcdef", n/16+1)[:n] }

func allPaths(t testing.TB, d storagedriver.StorageDriver) []string {
	t.Helper()
	var paths []string
	err := d.Walk(context.Background(), "/", func(fi storagedriver.FileInfo) error {
		if !fi.IsDir() {
			paths = append(paths, fi.Path())
		}
		return nil
	})
	if err != nil && !absent(err) {
		t.Fatal(err)
	}
	return paths
}

// store keeps an attestation as a push does: what the record names first.
func store(ctx context.Context, s *Store, repo string, r Record, bodies ...string) error {
	for _, body := range bodies {
		if err := s.PutBlob(ctx, repo, sha(body), strings.NewReader(body), int64(len(body))); err != nil {
			return err
		}
	}
	if err := s.PutDocument(ctx, repo, r.Attestation, "x/attestation", []byte(manifestOf(r))); err != nil {
		return err
	}
	if r.Original != "" {
		if err := s.PutDocument(ctx, repo, r.Original, "x/index", []byte("index")); err != nil {
			return err
		}
	}
	return s.PutRecord(ctx, repo, r)
}

// manifestOf is the body whose digest record makes the attestation's.
func manifestOf(r Record) string {
	body := "manifest"
	for _, st := range r.Statements {
		body += " " + st.Digest
	}
	return body
}

func record(statements ...string) Record {
	r := Record{
		AttestationMediaType: "x/attestation", Subject: sha("image"), SubjectMediaType: "x/image", SubjectSize: 480,
		Original: sha("index"), Tag: "v1", At: start,
	}
	for _, body := range statements {
		r.Statements = append(r.Statements, Statement{Digest: sha(body), MediaType: "application/vnd.in-toto+json",
			PredicateType: "https://slsa.dev/provenance/v1", Size: int64(len(body))})
	}
	r.Attestation = sha(manifestOf(r))
	return r
}
