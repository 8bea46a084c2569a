package quarantine

import (
	"errors"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/go-cmp/cmp"

	"sluice/proxy/internal/objects/objectstest"
)

// What is noted is found on the next day too, and by replicas whose clocks differ.
func TestWhatIsAboutAManifestIsFoundOnEveryReplica(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		now := time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC)
		ahead, behind := atTime(t, d, &now, 30*time.Minute), atTime(t, d, &now, -30*time.Minute)
		subject, other := sha([]byte("subject")), sha512d([]byte("subject"))
		about := func(repo, subject string, want ...string) {
			t.Helper()
			for _, s := range []*Store{ahead, behind} {
				got, err := s.About(t.Context(), repo, subject)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Error(d)
				}
			}
		}
		about("app", subject)
		first, second := sha([]byte("1")), sha512d([]byte("2"))
		must(t, ahead.PutAbout(t.Context(), "app", subject, first))
		must(t, behind.PutAbout(t.Context(), "app", subject, first))
		must(t, behind.PutAbout(t.Context(), "app", subject, second))
		must(t, ahead.PutAbout(t.Context(), "app", other, second))
		about("app", subject, first, second)
		about("app", other, second)
		about("app/inner", subject)
		now = now.Add(24 * time.Hour)
		about("app", subject, first, second)
		if err := ahead.PutAbout(t.Context(), "app", "sha256:../x", first); err == nil {
			t.Error("a subject that is no digest was noted")
		}
		if err := ahead.PutAbout(t.Context(), "app", subject, "x"); err == nil {
			t.Error("a digest that is none was noted")
		}
		must(t, behind.StatAbout(t.Context(), "app", subject, first))
		for _, c := range []struct {
			digest string
			want   error
		}{{sha([]byte("3")), ErrNotFound}, {"x", ErrInvalid}} {
			if err := ahead.StatAbout(t.Context(), "app", subject, c.digest); !errors.Is(err, c.want) {
				t.Errorf("%s: got %v, want %v", c.digest, err, c.want)
			}
		}
	})
}
