package quarantine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/go-cmp/cmp"

	"sluice/proxy/internal/objects/objectstest"
)

func putBlobOn(t *testing.T, s *Store, c *clock, shift int, b string) {
	t.Helper()
	c.shift(shift)
	defer c.shift(-shift)
	must(t, s.PutBlob(t.Context(), "app", sha([]byte(b)), []byte(b)))
}

func TestAStatCopiesWhatIsAboutToGoIntoTodaysGeneration(t *testing.T) {
	for _, test := range []struct {
		name   string
		held   []int // days in which the blob was put
		others []int // days in which something else was put
		copied bool
	}{
		{"today's stays where it is", []int{0}, []int{-1, -5}, false},
		{"today's and an old one", []int{0, -5}, nil, false},
		{"yesterday's, with an older generation there", []int{-1}, []int{0, -2}, false},
		{"yesterday's, which is the oldest", []int{-1}, []int{0}, true},
		{"the only one", []int{-1}, nil, true},
		{"in the oldest of three", []int{-3}, []int{0, -1}, true},
		{"at the end of its retention, though not in the oldest", []int{-2}, []int{0, -3}, true},
		{"in two old ones", []int{-3, -4}, []int{0}, true},
		{"of a replica whose clock is ahead", []int{1}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
				c := newClock()
				s := newStore(t, d, c)
				for _, shift := range test.held {
					putBlobOn(t, s, c, shift, "blob")
				}
				for _, shift := range test.others {
					putBlobOn(t, s, c, shift, "other")
				}
				n, err := s.StatBlob(t.Context(), "app", sha([]byte("blob")))
				if err != nil || n != 4 {
					t.Fatalf("stat: %d, %v", n, err)
				}
				o, err := newObject("app", blobKind, sha([]byte("blob")))
				must(t, err)
				_, err = d.Stat(t.Context(), o.in(s.Generation()))
				want := test.copied || slices.Contains(test.held, 0)
				if (err == nil) != want {
					t.Errorf("in today's generation: %v, want %v", err, want)
				}
			})
		})
	}
}

func TestAStatOfADocumentCopiesItWithItsBlobs(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		putBlobOn(t, s, c, -3, "statement")
		m := Manifest{MediaType: "x/y", Bytes: []byte("{}"), Blobs: []string{sha([]byte("statement")), sha([]byte("upstream"))}}
		c.shift(-2)
		must(t, s.PutManifest(t.Context(), "app", sha(m.Bytes), m))
		signature := Manifest{MediaType: "x/signature", Bytes: []byte("{} ")}
		must(t, s.PutManifest(t.Context(), "app", sha(signature.Bytes), signature))
		must(t, s.PutAbout(t.Context(), "app", sha(m.Bytes), sha(signature.Bytes)))
		c.shift(2)
		if _, err := s.Manifest(t.Context(), "app", sha(m.Bytes)); err != nil {
			t.Fatal(err)
		}
		if got := objectstest.Paths(t, d, "/quarantine/"+s.Generation()); len(got) > 0 {
			t.Errorf("reading alone has copied %v", got)
		}
		if err := s.StatManifest(t.Context(), "app", sha(m.Bytes)); err != nil {
			t.Fatal(err)
		}
		c.shift(2)
		if _, err := s.Sweep(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		// ModTime is real, so nothing was swept for its age; take the old ones away as a sweep in two days would.
		for _, g := range []string{c.day(-5), c.day(-4)} {
			must(t, d.Delete(t.Context(), "/quarantine/"+g))
		}
		if got, err := s.Manifest(t.Context(), "app", sha(m.Bytes)); err != nil || !cmp.Equal(got, m) {
			t.Errorf("manifest: %v, %v", got, err)
		}
		if got, err := s.About(t.Context(), "app", sha(m.Bytes)); err != nil || !slices.Equal(got, []string{sha(signature.Bytes)}) {
			t.Errorf("about it: %v, %v", got, err)
		}
		if got, err := s.Manifest(t.Context(), "app", sha(signature.Bytes)); err != nil || !cmp.Equal(got, signature) {
			t.Errorf("its signature: %v, %v", got, err)
		}
		if got := readBlob(t, s, "app", sha([]byte("statement"))); string(got) != "statement" {
			t.Errorf("statement: %s", got)
		}
	})
}

func TestADamagedBlobIsNotCopiedButAskedForAgain(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		putBlobOn(t, s, c, -2, "blob")
		must(t, d.PutContent(t.Context(), objectstest.Paths(t, d, "/quarantine")[0], []byte("blo")))
		if _, err := s.StatBlob(t.Context(), "app", sha([]byte("blob"))); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		putBlobOn(t, s, c, 0, "blob")
		if n, err := s.StatBlob(t.Context(), "app", sha([]byte("blob"))); err != nil || n != 4 {
			t.Errorf("sent again: %d, %v", n, err)
		}
	})
}

// Drivers stamp with the real time, so "days later" is a Store whose clock is ahead.
func TestAGenerationGoesWhenItsNewestObjectIsOldEnough(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		c.at = c.at.Add(-time.Second) // Linux stamps files with a clock that stands still for milliseconds
		s := newStore(t, d, c)        // retention: 2 days
		began := s.Generation()
		putBlobOn(t, s, c, -9, "of a clock that is behind")
		putBlobOn(t, s, c, 0, "today")
		must(t, d.PutContent(t.Context(), "/quarantine/lost.found/x", nil)) // not ours
		for later := range 3 {
			swept, err := s.Sweep(t.Context(), nil)
			if err != nil || len(swept.Generations) > 0 {
				t.Errorf("after %d days: swept %v, %v", later, swept, err)
			}
			c.shift(1)
		}
		// Three days later by the clock that the Store had when the objects were written, which was before they were.
		if swept, err := s.Sweep(t.Context(), nil); err != nil || len(swept.Generations) > 0 {
			t.Errorf("a moment before three days: swept %v, %v", swept, err)
		}
		c.shift(1)
		tomorrow := c.day(1)
		putBlobOn(t, s, c, 1, "of a clock that is ahead")
		putBlobOn(t, s, c, -1, "yesterday")
		swept, err := s.Sweep(t.Context(), nil)
		must(t, err)
		want := Swept{Generations: []string{c.day(-4 - 9), began}, Objects: 2, Bytes: int64(len("of a clock that is behind" + "today"))}
		if d := cmp.Diff(want, swept); d != "" {
			t.Error(d)
		}
		generations, err := s.generations(t.Context())
		if err != nil || !slices.Equal(generations, []string{tomorrow, c.day(-1)}) {
			t.Errorf("left: %v, %v", generations, err)
		}
		if left := objectstest.Paths(t, d, "/quarantine/lost.found"); len(left) != 1 {
			t.Error("something that is no generation was swept")
		}
	})
}

func TestTodayAndYesterdayAreNeverSweptHoweverOldTheyLook(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		c.shift(100) // the storage's clock is a hundred days behind
		for _, shift := range []int{1, 0, -1} {
			putBlobOn(t, s, c, shift, "blob")
		}
		if swept, err := s.Sweep(t.Context(), nil); err != nil || len(swept.Generations) > 0 {
			t.Errorf("swept %v, %v", swept, err)
		}
	})
}

func TestBeforeAGenerationGoesItsManifestsAreOffered(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		put := func(repo, body string) Manifest {
			m := Manifest{MediaType: "x/" + body, Bytes: []byte(body), Blobs: []string{sha([]byte("statement"))}}
			must(t, s.PutBlob(t.Context(), repo, sha([]byte("statement")), []byte("statement")))
			must(t, s.PutManifest(t.Context(), repo, sha(m.Bytes), m))
			return m
		}
		one, two := put("app", "one"), put("team/app", "two")
		both := put("app", "in two generations")
		must(t, s.PutOriginal(t.Context(), "app", sha(one.Bytes), one))
		put("app", "damaged")
		o, err := newObject("app", manifestKind, sha([]byte("damaged")))
		must(t, err)
		must(t, d.PutContent(t.Context(), o.in(s.Generation()), []byte("x/y\ndam")))
		c.shift(4)
		put("app", "in two generations")

		var mu sync.Mutex // several are offered at once
		offered := map[string]Manifest{}
		refuse := errors.New("no room")
		keep := func(ctx context.Context, repo, digest string, m Manifest) error {
			if got := readBlob(t, s, repo, m.Blobs[0]); string(got) != "statement" {
				t.Errorf("the statement cannot be read any more: %s", got)
			}
			if refuse != nil {
				return refuse
			}
			mu.Lock()
			defer mu.Unlock()
			offered[repo+"@"+digest] = m
			return nil
		}
		swept, err := s.Sweep(t.Context(), keep)
		if !errors.Is(err, refuse) || !strings.Contains(err.Error(), "app") || len(swept.Generations) > 0 {
			t.Fatalf("when one cannot be kept: swept %v, %v", swept, err)
		}
		if _, err := s.Manifest(t.Context(), "app", sha(one.Bytes)); err != nil {
			t.Errorf("the generation was not spared: %v", err)
		}
		refuse = nil
		swept, err = s.Sweep(t.Context(), keep)
		must(t, err)
		if len(swept.Generations) != 1 || swept.Manifests != 2 || swept.Damaged != 1 {
			t.Errorf("swept %+v", swept)
		}
		want := map[string]Manifest{"app@" + sha(one.Bytes): one, "team/app@" + sha(two.Bytes): two}
		if d := cmp.Diff(want, offered); d != "" {
			t.Error(d)
		}
		c.shift(3) // by now the copy is as old, and it is offered as well
		if _, err = s.Sweep(t.Context(), keep); err != nil {
			t.Fatal(err)
		}
		if _, ok := offered["app@"+sha(both.Bytes)]; !ok {
			t.Error("what was in two generations was never offered")
		}
	})
}

func TestASweepThatIsStoppedSparesWhatItHasNotOffered(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		for i := range 3 * rescuers {
			m := Manifest{MediaType: "x/y", Bytes: content(fmt.Sprint(i), 50)}
			must(t, s.PutManifest(t.Context(), "app", sha(m.Bytes), m))
		}
		c.shift(4)
		ctx, stop := context.WithCancel(t.Context())
		_, err := s.Sweep(ctx, func(context.Context, string, string, Manifest) error {
			stop() // the program is about to end; this one was kept all the same
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error: %v", err)
		}
		if left := objectstest.Paths(t, d, "/quarantine"); len(left) != 3*rescuers {
			t.Errorf("%d of %d manifests are left", len(left), 3*rescuers)
		}
	})
}

func TestSweepersDoNotDisturbEachOther(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		var all []string
		for shift := range 4 {
			c.shift(-shift)
			for _, repo := range []string{"app", "team/app", "team/x/y"} {
				m := Manifest{Bytes: content(repo+c.day(0), 50)}
				must(t, s.PutManifest(t.Context(), repo, sha(m.Bytes), m))
				all = append(all, repo+"@"+sha(m.Bytes))
			}
			c.shift(shift)
		}
		c.shift(4)
		putBlobOn(t, s, c, 0, "blob")
		var mu sync.Mutex
		var kept []string
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				_, err := newStore(t, d, c).Sweep(t.Context(), func(_ context.Context, repo, digest string, _ Manifest) error {
					mu.Lock()
					defer mu.Unlock()
					kept = append(kept, repo+"@"+digest)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := s.Sweep(t.Context(), nil); err != nil { // one that met another's work waits for the next time
			t.Fatal(err)
		}
		if left := objectstest.Paths(t, d, "/quarantine"); len(left) != 1 {
			t.Errorf("left: %v, want today's blob", left)
		}
		slices.Sort(kept)
		slices.Sort(all)
		if got := slices.Compact(kept); !slices.Equal(got, all) {
			t.Errorf("kept %d of %d", len(got), len(all))
		}
	})
}
