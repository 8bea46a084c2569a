package attest

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
	"sluice/proxy/proxytest"
)

// small keeps the tests fast: a large object is one that is staged, however small that is.
const small = 4 << 10

// start is the real time, because drivers stamp objects with it.
var start = time.Now().UTC().Truncate(time.Second)

func newStore(d storagedriver.StorageDriver) *Store { return storeAfter(d, 0) }

// storeAfter is a Store whose clock is days ahead, to which all that there is has become as old.
func storeAfter(d storagedriver.StorageDriver, days int) *Store {
	s := New(d, func() time.Time { return start.Add(time.Duration(days) * day) })
	s.storage.Small = small
	return s
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
		r.Statements = append(r.Statements, Statement{
			Digest: sha(body), MediaType: "application/vnd.in-toto+json",
			PredicateType: "https://slsa.dev/provenance/v1", Size: int64(len(body)),
		})
	}
	r.Attestation = sha(manifestOf(r))
	return r
}

// everyFault runs body with a driver whose nth call fails, for every n that it has and every way to fail.
func everyFault(t *testing.T, body func(t *testing.T, good *Store, d storagedriver.StorageDriver, bad *proxytest.FailingDriver)) {
	for _, how := range []proxytest.Kind{proxytest.FaultError, proxytest.FaultAfter, proxytest.FaultPartial, proxytest.FaultDead} {
		t.Run(string(how), func(t *testing.T) {
			t.Parallel()
			objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
				if d.Name() == "filesystem" && how != proxytest.FaultDead {
					return // it is slow, and the other ways say nothing new about the order of the calls
				}
				for n := 1; ; n++ {
					bad := proxytest.NewFailingDriver(d)
					bad.Fail(n, how)
					body(t, newStore(d), d, bad)
					if t.Failed() {
						t.Fatalf("call %d had failed: %s", n, bad.Failed())
					}
					if !bad.Fired() {
						if n == 1 {
							t.Fatal("no call was made at all")
						}
						return
					}
					must(t, d.Delete(t.Context(), "/attestations"))
				}
			})
		})
	}
}
