package attest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/internal/objects/objectstest"
	"sluice/proxy/proxytest"
)

// atEveryCall does something once before each call of the storage that call makes, each time over a storage of its own.
func atEveryCall(t *testing.T, prepare func(t *testing.T, s *Store), do func(t *testing.T, s *Store), call func(s *Store) error, check func(t *testing.T, s *Store)) {
	t.Helper()
	for n := 1; ; n++ {
		d := inmemory.New()
		good := newStore(d)
		prepare(t, good)
		during := proxytest.Interrupt(d, n, func() { do(t, good) })
		must(t, call(newStore(during)))
		if !during.Done() {
			if n == 1 {
				t.Fatal("no call was made at all")
			}
			return
		}
		check(t, good)
		if t.Failed() {
			t.Fatalf("it happened before call %d", n)
		}
	}
}

func TestWhatIsPushedAnewWhileItExpiresIsKept(t *testing.T) {
	ctx := t.Context()
	old, again := record("statement"), record("statement")
	old.At = start.Add(-30 * day)
	elsewhere := old
	elsewhere.Tag = "v2"
	atEveryCall(t, func(t *testing.T, s *Store) {
		must(t, store(ctx, s, "app", old, "statement"))
		must(t, s.PutRecord(ctx, "app", elsewhere))
	}, func(t *testing.T, s *Store) {
		must(t, store(ctx, s, "app", again, "statement"))
	}, func(s *Store) error {
		_, err := s.Expire(ctx, start.Add(-day))
		return err
	}, func(t *testing.T, s *Store) {
		for by, find := range map[string]func() ([]Record, error){
			"image":       func() ([]Record, error) { return s.BySubject(ctx, "app", again.Subject) },
			"original":    func() ([]Record, error) { return s.ByOriginal(ctx, "app", again.Original) },
			"tag":         func() ([]Record, error) { return s.ByTag(ctx, "app", again.Tag) },
			"attestation": func() ([]Record, error) { return s.ByAttestation(ctx, "app", again.Attestation) },
		} {
			got, err := find()
			if err != nil || !slices.ContainsFunc(got, func(r Record) bool { return r.Tag == again.Tag && r.At.Equal(again.At) }) {
				t.Errorf("not found by %s: %v, %v", by, got, err)
			}
		}
		whatIsFoundCanBeDeleted(t, s)
		whatIsFoundCanBeRead(t, s)
	})
}

// A client that finds its signature present does not send it again, so it may not go when the attestation has been recorded
// anew.
func TestASignatureExpiresNotOnceItsAttestationIsPushedAnew(t *testing.T) {
	ctx := t.Context()
	old, again := record("statement"), record("statement")
	old.At = start.Add(-30 * day)
	signature := record("signature")
	signature.Subject, signature.Original, signature.Tag, signature.At = old.Attestation, "", "", start.Add(-20*day)
	var relied bool
	atEveryCall(t, func(t *testing.T, s *Store) {
		must(t, store(ctx, s, "app", old, "statement"))
		must(t, store(ctx, s, "app", signature, "signature"))
	}, func(t *testing.T, s *Store) {
		must(t, store(ctx, s, "app", again, "statement"))
	}, func(s *Store) error {
		_, err := s.Expire(ctx, start.Add(-day))
		return err
	}, func(t *testing.T, s *Store) {
		there, err := s.Recorded(ctx, "app", signature.Attestation)
		must(t, err)
		relied = relied || there
		if found, err := s.BySubject(ctx, "app", old.Attestation); err != nil || (len(found) == 1) != there {
			t.Errorf("recorded: %t, found: %v, %v", there, found, err)
		}
		if found, err := s.BySubject(ctx, "app", again.Subject); err != nil || len(found) != 1 {
			t.Errorf("found of the attestation: %v, %v", found, err)
		}
	})
	if !relied {
		t.Error("the signature was never kept")
	}
}

// whatIsFoundCanBeDeleted: no lookup is without the record by which Delete finds it.
func whatIsFoundCanBeDeleted(t *testing.T, s *Store) {
	t.Helper()
	for _, p := range objectstest.Paths(t, s.storage.Driver, "/attestations") {
		repo, k, rest, ok := split(p)
		if !ok || k != subjectKind && k != originalKind && k != tagKind {
			continue
		}
		r, err := s.readRecord(t.Context(), p)
		must(t, err)
		records, err := s.ByAttestation(t.Context(), repo, r.Attestation)
		if err != nil || !slices.ContainsFunc(records, func(o Record) bool { return o.key() == r.key() }) {
			t.Error(fmt.Errorf("%s of %s has no record: %w", rest, repo, err))
		}
	}
}
