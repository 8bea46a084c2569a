package attest

import (
	"slices"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/internal/objects/objectstest"
)

// An attestation is deleted while the same is pushed, under the tag that it had or under another: either comes last, and
// nothing is found then that cannot be deleted.
func TestWhatIsDeletedAndPushedAtOnceIsDeletedOrKept(t *testing.T) {
	ctx := t.Context()
	old, again := record("statement"), record("statement")
	for name, tag := range map[string]string{"the same tag": "v1", "another tag": "v2"} {
		t.Run(name, func(t *testing.T) {
			again.Tag = tag
			kept := false
			atEveryCall(t, func(t *testing.T, s *Store) {
				must(t, pushed(ctx, s, old, "statement"))
			}, func(t *testing.T, s *Store) {
				must(t, pushed(ctx, s, again, "statement"))
			}, func(s *Store) error {
				return s.Delete(ctx, "app", old.Attestation)
			}, func(t *testing.T, s *Store) {
				whatIsFoundCanBeDeleted(t, s)
				whatIsFoundCanBeRead(t, s)
				found, err := s.ByTag(ctx, "app", tag)
				must(t, err)
				kept = kept || len(found) > 0
				if len(found) == 0 {
					return
				}
				if err := s.Delete(ctx, "app", old.Attestation); err != nil {
					t.Errorf("delete what is found: %v", err)
				}
			})
			if !kept {
				t.Error("the push never came last")
			}
		})
	}
}

// A record may go just as it is written again, and its lookups come after that. What can be found is kept by them, and by the
// next sweep it can be deleted.
func TestWhatIsFoundWithoutARecordIsKept(t *testing.T) {
	d := inmemory.New()
	s := newStore(d)
	r := record("statement")
	must(t, store(t.Context(), s, "app", r, "statement"))
	places, err := r.places("app")
	must(t, err)
	must(t, d.Delete(t.Context(), places[0]))
	for _, days := range []int{4, 6, 8, 10} {
		sweepAfter(t, d, days, nil)
	}
	whatIsFoundCanBeRead(t, s)
	whatIsFoundCanBeDeleted(t, s)
	must(t, s.Delete(t.Context(), "app", r.Attestation))
	if left := objectstest.Paths(t, d, "/attestations"); slices.ContainsFunc(left, func(path string) bool {
		return !strings.Contains(path, "/_documents/")
	}) {
		t.Errorf("left: %v", left)
	}
}

// All of a delete may fall between two calls of a push of the same: what can be found then can be deleted, once a sweep has
// seen it, by whatever it is found.
func TestWhatIsPushedAroundADeleteCanBeDeleted(t *testing.T) {
	ctx := t.Context()
	r := record("statement")
	atEveryCall(t, func(t *testing.T, s *Store) {
		must(t, pushed(ctx, s, r, "statement"))
	}, func(t *testing.T, s *Store) {
		must(t, s.Delete(ctx, "app", r.Attestation))
	}, func(s *Store) error {
		return pushed(ctx, s, r, "statement")
	}, func(t *testing.T, s *Store) {
		for _, days := range []int{4, 6, 8, 10} {
			sweepAfter(t, s.storage.Driver, days, nil)
		}
		whatIsFoundCanBeDeleted(t, s)
	})
}
