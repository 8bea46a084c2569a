package attest

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// Two attestations share a statement, as all share the empty config: one is deleted while the other is pushed. What the push
// found here it did not send, and what it was told is kept is.
func TestWhatAPushReliesOnOutlivesADelete(t *testing.T) {
	ctx := t.Context()
	old, next := record("shared", "of the old one"), record("shared", "of the new one")
	push := func(s *Store) error { return pushed(ctx, s, next, "shared", "of the new one") }
	remove := func(s *Store) error { return s.Delete(ctx, "app", old.Attestation) }
	check := func(t *testing.T, s *Store) {
		t.Helper()
		whatIsFoundCanBeRead(t, s)
		if got, err := s.BySubject(ctx, "app", next.Subject); err != nil || len(got) != 1 || got[0].Attestation != next.Attestation {
			t.Errorf("found %v, %v", got, err)
		}
		if _, err := s.StatBlob(ctx, "app", sha("of the old one")); !errors.Is(err, ErrNotFound) {
			t.Errorf("what only the deleted one had: %v", err)
		}
		if left, err := s.storage.Files(ctx, "/attestations/app/_aside", nil); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	for name, c := range map[string]struct{ one, two func(*Store) error }{
		"pushed while it is deleted": {remove, push}, "deleted while it is pushed": {push, remove},
	} {
		t.Run(name, func(t *testing.T) {
			atEveryCall(t, func(t *testing.T, s *Store) {
				must(t, pushed(ctx, s, old, "shared", "of the old one"))
			}, func(t *testing.T, s *Store) {
				must(t, c.two(s))
			}, c.one, check)
		})
	}
}

// pushed keeps an attestation in the order in which a push does, which sends no blob that it finds here.
func pushed(ctx context.Context, s *Store, r Record, bodies ...string) error {
	if err := s.PutDocument(ctx, "app", r.Original, "x/index", []byte("index")); err != nil {
		return err
	}
	if err := s.PutDocument(ctx, "app", r.Attestation, "x/attestation", []byte(manifestOf(r))); err != nil {
		return err
	}
	for _, body := range bodies {
		_, err := s.StatBlob(ctx, "app", sha(body))
		if errors.Is(err, ErrNotFound) {
			err = s.AddBlob(ctx, "app", sha(body), strings.NewReader(body), int64(len(body)))
		}
		if err != nil {
			return err
		}
	}
	return s.PutRecord(ctx, "app", r)
}
