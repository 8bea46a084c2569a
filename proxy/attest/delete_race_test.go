package attest

import (
	"context"
	"errors"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/internal/objects/objectstest"
	"sluice/proxy/proxytest"
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
		if left := objectstest.Paths(t, s.storage.Driver, "/attestations/app/_aside"); len(left) > 0 {
			t.Errorf("left: %v", left)
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

// keepsAside is a storage that gives nothing back which was put aside.
type keepsAside struct{ storagedriver.StorageDriver }

func (k keepsAside) Move(ctx context.Context, from, to string) error {
	if strings.Contains(from, "/"+string(asideKind)+"/") {
		return errors.New("not now")
	}
	return k.StorageDriver.Move(ctx, from, to)
}

// What was put aside for a delete, and a push needs by now, is all that there is of it.
func TestWhatADeleteCannotGiveBackStaysUntilASweepDoes(t *testing.T) {
	ctx := t.Context()
	old, next := record("shared", "of the old one"), record("shared", "of the new one")
	refused := 0
	for n := 1; ; n++ {
		d := inmemory.New()
		good := newStore(d)
		must(t, pushed(ctx, good, old, "shared", "of the old one"))
		during := proxytest.Interrupt(keepsAside{d}, n, func() { must(t, pushed(ctx, good, next, "shared", "of the new one")) })
		if err := newStore(during).Delete(ctx, "app", old.Attestation); err != nil {
			refused++
		}
		if !during.Done() {
			break
		}
		sweepAfter(t, d, 1, nil)
		whatIsFoundCanBeRead(t, good)
		if t.Failed() {
			t.Fatalf("it was pushed before call %d", n)
		}
	}
	if refused == 0 {
		t.Error("nothing had to be given back: the test says nothing")
	}
}
