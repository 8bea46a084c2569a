package attest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
	"sluice/proxy/proxytest"
)

func TestDeletingADocumentLeavesWhatItListed(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		ctx := t.Context()
		r := record("statement")
		for _, repo := range []string{"app", "team/app"} {
			must(t, store(ctx, s, repo, r, "statement"))
		}
		for range 2 { // one that is not there is forgotten already
			must(t, s.DeleteDocument(ctx, "app", r.Original))
		}
		if _, _, err := s.Document(ctx, "app", r.Original); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		if _, _, err := s.Document(ctx, "team/app", r.Original); err != nil {
			t.Errorf("another repository's: %v", err)
		}
		if _, _, err := s.Document(ctx, "app", r.Attestation); err != nil {
			t.Errorf("an attestation that it listed: %v", err)
		}
		if got, err := s.BySubject(ctx, "app", r.Subject); err != nil || len(got) != 1 {
			t.Errorf("found %v, %v", got, err)
		}
		for _, c := range []struct{ repo, digest string }{{"../app", r.Original}, {"app", "sha256:../x"}} {
			if err := s.DeleteDocument(ctx, c.repo, c.digest); !errors.Is(err, ErrInvalid) {
				t.Errorf("%v: got %v, want ErrInvalid", c, err)
			}
		}
	})
}

func TestOnlyAnAttestationWithARecordIsRecorded(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		r := record("statement")
		must(t, s.PutDocument(t.Context(), "app", r.Attestation, "x/attestation", []byte(manifestOf(r))))
		for _, want := range []bool{false, true} {
			if want {
				must(t, s.PutRecord(t.Context(), "app", r))
			}
			if got, err := s.Recorded(t.Context(), "app", r.Attestation); err != nil || got != want {
				t.Errorf("recorded: %v, %v, want %v", got, err, want)
			}
		}
		if got, err := s.Recorded(t.Context(), "team/app", r.Attestation); err != nil || got {
			t.Errorf("in another repository: %v, %v", got, err)
		}
		if _, err := s.Recorded(t.Context(), "app", "x"); !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	})
}

// expiring stores three attestations: an old one, one that was old and was pushed again, and a new one that shares a
// statement with the first; and the old one in another repository.
func expiring(t *testing.T, s *Store) (old Record) {
	t.Helper()
	old, again, fresh := record("shared", "of the old one"), record("again"), record("shared", "of the new one")
	old.At, again.At = start.Add(-30*day), start.Add(-30*day)
	for _, repo := range []string{"app", "team/app"} {
		must(t, store(t.Context(), s, repo, old, "shared", "of the old one"))
	}
	second := old
	second.Tag = "v2"
	must(t, s.PutRecord(t.Context(), "app", second))
	must(t, store(t.Context(), s, "app", again, "again"))
	again.Tag, again.At = "v2", start
	must(t, s.PutRecord(t.Context(), "app", again))
	must(t, store(t.Context(), s, "app", fresh, "shared", "of the new one"))
	return old
}

// checkExpired looks at what is left of them.
func checkExpired(t *testing.T, d storagedriver.StorageDriver, old Record) {
	t.Helper()
	s := newStore(d)
	for repo, want := range map[string]int{"app": 3, "team/app": 0} { // the one that was pushed again has two
		got, err := s.BySubject(t.Context(), repo, sha("image"))
		if err != nil || len(got) != want {
			t.Errorf("%d records in %s, %v, want %d", len(got), repo, err, want)
		}
		for _, r := range got {
			if r.Attestation == old.Attestation {
				t.Errorf("found: %v", r)
			}
		}
	}
	for _, p := range objectstest.Paths(t, d, "/attestations") {
		if strings.Contains(p, "/_records/") && strings.Contains(p, old.Attestation[7:]) {
			t.Errorf("%s was left", p)
		}
	}
	whatIsFoundCanBeRead(t, s)
}

func TestAnAttestationExpiresWithItsNewestRecordAndLeavesWhatOthersName(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		old := expiring(t, s)
		if n, err := s.Expire(t.Context(), old.At); err != nil || n != 0 {
			t.Errorf("when none is that old: %d, %v", n, err)
		}
		for _, want := range []int{2, 0} { // one in each repository
			if n, err := s.Expire(t.Context(), start.Add(-day)); err != nil || n != want {
				t.Errorf("expired %d, %v, want %d", n, err, want)
			}
		}
		checkExpired(t, d, old)
		for _, days := range []int{4, 6} {
			sweepAfter(t, d, days, nil)
		}
		checkExpired(t, d, old)
		for body, there := range map[string]bool{"shared": true, "of the old one": false, "of the new one": true, "again": true} {
			if _, err := s.StatBlob(t.Context(), "app", sha(body)); (err == nil) != there {
				t.Errorf("%q after the sweeps: %v, want %v", body, err, there)
			}
		}
		if left := objectstest.Paths(t, d, "/attestations/team"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestAMalformedRecordDoesNotKeepOtherRepositoriesFromExpiring(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		expiring(t, s)
		p := objectstest.Paths(t, d, "/attestations/app/_records")[0]
		must(t, d.PutContent(t.Context(), p, []byte("{")))
		n, err := s.Expire(t.Context(), start.Add(-day))
		if n != 1 || !errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), p) {
			t.Errorf("expired %d, %v", n, err)
		}
		if got, err := s.BySubject(t.Context(), "team/app", sha("image")); err != nil || len(got) > 0 {
			t.Errorf("left: %v, %v", got, err)
		}
	})
}

func TestWhicheverCallOfAnExpiryFailsTheNextOneEndsItsWork(t *testing.T) {
	everyFault(t, func(t *testing.T, good *Store, d storagedriver.StorageDriver, bad *proxytest.FailingDriver) {
		old := expiring(t, good)
		if _, err := newStore(bad).Expire(t.Context(), start.Add(-day)); err != nil && !errors.Is(err, ErrStorage) {
			t.Errorf("the error is not the storage's: %v", err)
		}
		whatIsFoundCanBeRead(t, good)
		if _, err := good.Expire(t.Context(), start.Add(-day)); err != nil {
			t.Errorf("a retry failed: %v", err)
		}
		checkExpired(t, d, old)
	})
}

// What is about an attestation, or about the referrer that was derived from it, is as old as the attestation, and so is
// what is about that.
func TestWhatIsAboutAnAttestationExpiresWithIt(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		signs := func(name, subject string, age int) Record {
			r := record(name)
			r.Subject, r.At = subject, start.Add(-time.Duration(age)*day)
			must(t, store(t.Context(), s, "app", r, name))
			return r
		}
		var gone, kept []Record
		for _, old := range []bool{true, false} {
			of := record(fmt.Sprint("attestation", old))
			of.Derived, of.At = sha(fmt.Sprint("derived", old)), start.Add(-30*day)
			if !old {
				of.At = start
			}
			must(t, store(t.Context(), s, "app", of, fmt.Sprint("attestation", old)))
			first := signs(fmt.Sprint("of the attestation", old), of.Attestation, 0)
			all := []Record{
				of, first,
				signs(fmt.Sprint("of the derived", old), of.Derived, 30),
				signs(fmt.Sprint("of the signature", old), first.Attestation, 0),
				signs(fmt.Sprint("another", old), of.Attestation, 30),
			}
			if old {
				gone = all
			} else {
				kept = all
			}
		}
		if n, err := s.Expire(t.Context(), start.Add(-7*day)); err != nil || n != len(gone) {
			t.Errorf("expired %d, %v, want %d", n, err, len(gone))
		}
		for i, r := range slices.Concat(gone, kept) {
			there, err := s.Recorded(t.Context(), "app", r.Attestation)
			if err != nil || there != (i >= len(gone)) {
				t.Errorf("record %d is there: %t, %v", i, there, err)
			}
		}
	})
}
