package attest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/go-cmp/cmp"

	"sluice/proxy/proxytest"
)

// I7: whichever call of the storage fails, and however, what can be found can be read, and the same again makes
// everything right.
func TestI7WhicheverCallFailsARetryConverges(t *testing.T) {
	ctx := context.Background()
	large := content(small + 1)
	r, other := record("shared", large), record("shared", "other")
	whole := func(t *testing.T, s *Store) {
		for _, find := range []func() ([]Record, error){
			func() ([]Record, error) { return s.BySubject(ctx, "app", r.Subject) },
			func() ([]Record, error) { return s.ByOriginal(ctx, "app", r.Original) },
			func() ([]Record, error) { return s.ByTag(ctx, "app", r.Tag) },
		} {
			if got, err := find(); err != nil || !slices.ContainsFunc(got, func(g Record) bool { return cmp.Equal(g, r) }) {
				t.Errorf("not found: %v, %v", got, err)
			}
		}
	}
	for _, o := range []struct {
		name    string
		prepare func(t *testing.T, s *Store)
		do      func(ctx context.Context, s *Store) error
		check   func(t *testing.T, s *Store)
	}{
		{"store", func(*testing.T, *Store) {}, func(ctx context.Context, s *Store) error { return store(ctx, s, "app", r, "shared", large) }, whole},
		{"read", func(t *testing.T, s *Store) { must(t, store(ctx, s, "app", r, "shared", large)) }, func(ctx context.Context, s *Store) error {
			_, err1 := s.BySubject(ctx, "app", r.Subject)
			_, _, err2 := s.Document(ctx, "app", r.Attestation)
			return errors.Join(err1, err2)
		}, whole},
		{"delete", func(t *testing.T, s *Store) {
			must(t, store(ctx, s, "app", r, "shared", large))
			must(t, store(ctx, s, "app", other, "shared", "other"))
		}, func(ctx context.Context, s *Store) error {
			err := s.Delete(ctx, "app", r.Attestation)
			if errors.Is(err, ErrNotFound) { // done, and the answer was lost
				return nil
			}
			return err
		}, func(t *testing.T, s *Store) {
			if got, err := s.ByTag(ctx, "app", "v1"); err != nil || len(got) != 1 || got[0].Attestation != other.Attestation {
				t.Errorf("left: %v, %v", got, err)
			}
			if _, err := s.StatBlob(ctx, "app", sha(large)); !errors.Is(err, ErrNotFound) {
				t.Errorf("its statement: %v", err)
			}
			if _, _, err := s.Document(ctx, "app", r.Attestation); !errors.Is(err, ErrNotFound) {
				t.Errorf("its manifest: %v", err)
			}
		}},
		{"unclaimed", func(*testing.T, *Store) {}, func(ctx context.Context, s *Store) error {
			if err := s.PutUnclaimedBlob(ctx, "app", r.Attestation, sha(large), strings.NewReader(large), int64(len(large))); err != nil {
				return err
			}
			if err := s.PutUnclaimed(ctx, "app", r.Attestation, "x/y", []byte(manifestOf(r))); err != nil {
				return err
			}
			_, err := s.Unclaimed(ctx, "app")
			return err
		}, func(t *testing.T, s *Store) {
			if got, err := s.Unclaimed(ctx, "app"); err != nil || len(got) != 1 {
				t.Errorf("%v, %v", got, err)
			}
		}},
	} {
		t.Run(o.name, func(t *testing.T) {
			everyFault(t, func(t *testing.T, good *Store, _ storagedriver.StorageDriver, bad *proxytest.FailingDriver) {
				o.prepare(t, good)
				err := o.do(t.Context(), newStore(bad))
				if err != nil && !errors.Is(err, ErrStorage) {
					t.Errorf("the error is not the storage's: %v", err)
				}
				whatIsFoundCanBeRead(t, good)
				if err != nil {
					if err := o.do(t.Context(), good); err != nil {
						t.Errorf("a retry failed: %v", err)
					}
				}
				o.check(t, good)
				whatIsFoundCanBeRead(t, good)
			})
		})
	}
}

func whatIsFoundCanBeRead(t *testing.T, s *Store) {
	t.Helper()
	records, err := s.ByTag(t.Context(), "app", "v1")
	must(t, err)
	for _, r := range records {
		for _, digest := range []string{r.Attestation, r.Original} {
			if _, _, err := s.Document(t.Context(), "app", digest); err != nil {
				t.Error(err)
			}
		}
		for _, st := range r.Statements {
			rc, _, err := s.OpenBlob(t.Context(), "app", st.Digest, 0)
			if err != nil {
				t.Error(err)
				continue
			}
			b, err := io.ReadAll(rc)
			rc.Close()
			if err != nil || sha(string(b)) != st.Digest {
				t.Errorf("%s is stored as %s, %v", st.Digest, sha(string(b)), err)
			}
		}
	}
	unclaimed, err := s.Unclaimed(t.Context(), "app")
	must(t, err)
	for _, u := range unclaimed {
		if _, _, err := s.OpenUnclaimedBlob(t.Context(), "app", u.Attestation, sha(content(small+1)), 0); err != nil {
			t.Error(err)
		}
	}
}
