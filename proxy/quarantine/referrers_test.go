package quarantine

import (
	"errors"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/go-cmp/cmp"
	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/internal/objects/objectstest"
)

func note(text string) Referrer {
	return Referrer{Descriptor: ocispec.Descriptor{
		MediaType: "x/manifest", Digest: godigest.FromString(text), Size: 7, ArtifactType: "text/note", Annotations: map[string]string{"note": text},
	}}
}

// atTime is a store with a clock of its own.
func atTime(t *testing.T, d storagedriver.StorageDriver, now *time.Time, off time.Duration) *Store {
	t.Helper()
	s, err := New(d, Options{Now: func() time.Time { return now.Add(off) }})
	must(t, err)
	return s
}

func referrers(t *testing.T, s *Store, repo, subject string) (texts []string) {
	t.Helper()
	found, err := s.Referrers(t.Context(), repo, subject)
	must(t, err)
	for _, r := range found {
		text := r.Descriptor.Annotations["note"]
		if want := note(text); !cmp.Equal(r.Descriptor, want.Descriptor) {
			t.Errorf("the descriptor is %v, want %v", r.Descriptor, want.Descriptor)
		}
		if r.Removed {
			text = "not " + text
		}
		texts = append(texts, text)
	}
	return texts
}

func TestReplicasTellEachOtherOfReferrers(t *testing.T) {
	image, other := sha([]byte("image")), sha512d([]byte("image"))
	for name, begin := range map[string]time.Time{
		"at noon":         time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		"before midnight": time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC),
		"after midnight":  time.Date(2026, 3, 2, 0, 30, 0, 0, time.UTC),
	} {
		t.Run(name, func(t *testing.T) {
			objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
				now := begin
				ahead, behind := atTime(t, d, &now, 30*time.Minute), atTime(t, d, &now, -30*time.Minute)
				list := func(what string, want ...string) {
					t.Helper()
					for _, s := range []*Store{ahead, behind} {
						if d := cmp.Diff(want, referrers(t, s, "app", image)); d != "" {
							t.Errorf("%s: %s", what, d)
						}
					}
				}
				put := func(s *Store, r Referrer) {
					t.Helper()
					must(t, s.PutReferrer(t.Context(), "app", image, r))
				}
				removed := func(r Referrer) Referrer { r.Removed = true; return r }
				list("at first")
				put(ahead, note("a"))
				must(t, ahead.PutReferrer(t.Context(), "app", other, note("other")))
				must(t, ahead.PutReferrer(t.Context(), "app/x", image, note("x")))
				list("one", "a")
				now = now.Add(time.Minute)
				put(behind, removed(note("a")))
				list("taken back by a clock that is behind", "not a")
				put(behind, note("b"))
				put(ahead, note("a"))
				list("the oldest first", "b", "a")
				put(behind, note("a"))
				list("again", "b", "a")
				if got := referrers(t, ahead, "app", other); !cmp.Equal(got, []string{"other"}) {
					t.Errorf("another subject has %v", got)
				}
				if got := referrers(t, ahead, "app/x", image); !cmp.Equal(got, []string{"x"}) {
					t.Errorf("another repository has %v", got)
				}
				now = now.Add(2 * time.Hour)
				if got := referrers(t, ahead, "app", image); len(got) != 2 {
					t.Errorf("after two hours, by a clock an hour ahead, there are %v", got)
				}
				now = now.Add(2 * time.Hour)
				list("old ones do not count")
			})
		})
	}
}

func TestARecordOfAReferrerThatCannotBeReadHidesNoOther(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		image := sha([]byte("image"))
		must(t, s.PutReferrer(t.Context(), "app", image, note("a")))
		p := objectstest.Paths(t, d, "/quarantine")[0]
		must(t, s.PutReferrer(t.Context(), "app", image, note("b")))
		must(t, d.PutContent(t.Context(), p+".01a1fa84-f3ab-735f-9bfb-260e731f0fe2.tmp", []byte("half")))
		for _, damage := range []string{"", "{", "null", "[]", `{"descriptor":{"digest":"` + image + `"}}`} {
			must(t, d.PutContent(t.Context(), p, []byte(damage)))
			got, err := s.Referrers(t.Context(), "app", image)
			if !errors.Is(err, ErrStorage) || !strings.Contains(err.Error(), p) || len(got) != 1 {
				t.Errorf("with %q: %v, %v", damage, got, err)
			}
		}
	})
}

func TestNamesOfReferrersAreChecked(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		image := sha([]byte("image"))
		for _, c := range []struct{ repo, subject, digest string }{
			{"../x", image, image}, {"app", "sha256:../..", image}, {"app", "", image}, {"app", image, ""}, {"app", image, "sha256:../x"},
		} {
			r := Referrer{Descriptor: ocispec.Descriptor{Digest: godigest.Digest(c.digest)}}
			if err := s.PutReferrer(t.Context(), c.repo, c.subject, r); !errors.Is(err, ErrInvalid) {
				t.Errorf("%v: got %v", c, err)
			}
			if _, err := s.Referrers(t.Context(), c.repo, c.subject); c.digest == image && !errors.Is(err, ErrInvalid) {
				t.Errorf("%v: got %v", c, err)
			}
		}
		if left := objectstest.Paths(t, d, "/quarantine"); len(left) > 0 {
			t.Errorf("written: %v", left)
		}
	})
}

func TestRecordsOfReferrersGoWithTheirGeneration(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		must(t, s.PutReferrer(t.Context(), "app", sha([]byte("image")), note("a")))
		if n, size, err := s.Usage(t.Context()); err != nil || n != 1 || size == 0 {
			t.Errorf("usage: %d objects, %d bytes, %v", n, size, err)
		}
		p := objectstest.Paths(t, d, "/quarantine")[0]
		if _, o, ok := parseHeld(p); ok {
			t.Errorf("%s is taken for %v", p, o)
		}
		c.shift(5)
		if swept, err := s.Sweep(t.Context(), nil); err != nil || swept.Objects != 1 || swept.Manifests != 0 {
			t.Errorf("swept %+v, %v", swept, err)
		}
	})
}
