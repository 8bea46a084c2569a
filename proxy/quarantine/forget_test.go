package quarantine

import (
	"context"
	"errors"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

func TestWhatIsForgottenIsInNoGeneration(t *testing.T) {
	body := []byte("{}")
	digest := sha(body)
	type store = func(*Store) error
	for _, test := range []struct {
		name                string
		put, forget, look   store
		putOther, lookOther store // the same digest as something else, which stays
	}{
		{
			"a blob",
			func(s *Store) error { return s.PutBlob(t.Context(), "app", digest, body) },
			func(s *Store) error { return s.DeleteBlob(t.Context(), "app", digest) },
			func(s *Store) error { _, err := s.StatBlob(t.Context(), "app", digest); return err },
			func(s *Store) error { return s.PutManifest(t.Context(), "app", digest, Manifest{Bytes: body}) },
			func(s *Store) error { _, err := s.Manifest(t.Context(), "app", digest); return err },
		},
		{
			"a manifest",
			func(s *Store) error { return s.PutManifest(t.Context(), "app", digest, Manifest{Bytes: body}) },
			func(s *Store) error { return s.DeleteManifest(t.Context(), "app", digest) },
			func(s *Store) error { _, err := s.Manifest(t.Context(), "app", digest); return err },
			func(s *Store) error { return s.PutOriginal(t.Context(), "app", digest, Manifest{Bytes: body}) },
			func(s *Store) error { _, err := s.Original(t.Context(), "app", digest); return err },
		},
		{
			"an original",
			func(s *Store) error { return s.PutOriginal(t.Context(), "app", digest, Manifest{Bytes: body}) },
			func(s *Store) error { return s.DeleteOriginal(t.Context(), "app", digest) },
			func(s *Store) error { _, err := s.Original(t.Context(), "app", digest); return err },
			func(s *Store) error { return s.PutBlob(t.Context(), "app/x", digest, body) },
			func(s *Store) error { _, err := s.StatBlob(t.Context(), "app/x", digest); return err },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
				c := newClock()
				s := newStore(t, d, c)
				must(t, test.putOther(s))
				for _, shift := range []int{-5, -1, 0, 1} {
					c.shift(shift)
					must(t, test.put(s))
					c.shift(-shift)
				}
				must(t, test.look(s))
				for range 2 { // one that is not there is forgotten already
					must(t, test.forget(s))
				}
				if err := test.look(s); !errors.Is(err, ErrNotFound) {
					t.Errorf("got %v, want ErrNotFound", err)
				}
				if left := objectstest.Paths(t, d, "/quarantine"); len(left) != 1 {
					t.Errorf("left: %v", left)
				}
				if err := test.lookOther(s); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestASweepOffersNoManifestThatWasDeleted(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		m := Manifest{Bytes: []byte("{}")}
		must(t, s.PutManifest(t.Context(), "app", sha(m.Bytes), m))
		must(t, s.PutBlob(t.Context(), "app", sha(m.Bytes), m.Bytes))
		must(t, s.DeleteManifest(t.Context(), "app", sha(m.Bytes)))
		c.shift(5)
		keep := func(context.Context, string, string, Manifest) error {
			t.Error("it was offered")
			return nil
		}
		if swept, err := s.Sweep(t.Context(), keep); err != nil || swept.Manifests != 0 || swept.Objects != 1 {
			t.Errorf("swept %+v, %v", swept, err)
		}
	})
}
