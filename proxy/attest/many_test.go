package attest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/internal/objects"
	"sluice/proxy/internal/objects/objectstest"
)

// A bucket lists objects in the order of their names, page by page, and so keeps no list of them in this process. It notes
// how much memory is in use while it is asked.
type bucket struct {
	storagedriver.StorageDriver
	paths []string

	mu    sync.Mutex
	calls int
	reads int
	most  uint64
}

func newBucket(t *testing.T, d storagedriver.StorageDriver) *bucket {
	b := &bucket{StorageDriver: d, paths: objectstest.Paths(t, d, "/")}
	slices.Sort(b.paths)
	return b
}

func (b *bucket) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls++; b.calls%1000 == 0 {
		b.most = max(b.most, inUse())
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func (b *bucket) GetContent(ctx context.Context, path string) ([]byte, error) {
	b.look()
	b.mu.Lock()
	b.reads++
	b.mu.Unlock()
	return b.StorageDriver.GetContent(ctx, path)
}

func (b *bucket) Walk(ctx context.Context, from string, visit storagedriver.WalkFn, _ ...func(*storagedriver.WalkOptions)) error {
	skipped := ""
	i, _ := slices.BinarySearch(b.paths, from)
	for _, p := range b.paths[i:] {
		rest, ok := strings.CutPrefix(p, from+"/")
		if !ok {
			break
		}
		if skipped != "" && strings.HasPrefix(p, skipped) {
			continue
		}
		b.look()
		skipped = ""
		for at := range rest { // the folders above it
			if folder := p[:len(from)+1+at]; rest[at] == '/' {
				dir := storagedriver.FileInfoInternal{FileInfoFields: storagedriver.FileInfoFields{Path: folder, IsDir: true}}
				if errors.Is(visit(dir), storagedriver.ErrSkipDir) {
					skipped = folder + "/"
					break
				}
			}
		}
		if skipped != "" {
			continue
		}
		fi, err := b.Stat(ctx, p)
		if objects.Absent(err) {
			continue // it was deleted since newBucket
		}
		if err == nil {
			err = visit(fi)
		}
		switch {
		case errors.Is(err, storagedriver.ErrFilledBuffer):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// With `store.retention: forever` there is no end to what is stored, and every replica looks at it each day.
func TestWhatLooksAtEverythingRemembersLittle(t *testing.T) {
	const pushes, bytesEach = 2000, 1000
	d := inmemory.New()
	s := newStore(d)
	nth := func(i int) Record {
		r := record(fmt.Sprint("sbom", i), fmt.Sprint("provenance", i))
		r.Subject, r.Tag = sha(fmt.Sprint("image", i)), fmt.Sprint("v", i)
		r.Derived, r.Needs = sha(fmt.Sprint("derived", i)), []string{sha(fmt.Sprint("config", i))}
		return r
	}
	for i := range pushes {
		r := nth(i)
		must(t, store(t.Context(), s, "app", r, fmt.Sprint("sbom", i), fmt.Sprint("provenance", i), fmt.Sprint("config", i)))
		must(t, s.PutDocument(t.Context(), "app", r.Derived, "x/derived", fmt.Append(nil, "derived", i)))
	}
	for name, do := range map[string]func(s *Store) error{
		"Sweep": func(s *Store) error {
			swept, err := s.Sweep(t.Context(), s.now().Add(-3*day), nil)
			if swept != (Swept{}) {
				t.Errorf("swept %+v, and everything is named", swept)
			}
			return err
		},
		"Expire": func(s *Store) error {
			n, err := s.Expire(t.Context(), start.Add(-day))
			if n != 0 {
				t.Errorf("%d expired", n)
			}
			return err
		},
		"AlsoPlaced": func(s *Store) error {
			r := nth(7)
			r.Repository, r.Placed = "elsewhere", r.Derived
			_, _, err := s.AlsoPlaced(t.Context(), "other", r, onePlace)
			return err
		},
		"Delete": func(s *Store) error { return s.Delete(t.Context(), "app", nth(7).Attestation) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBucket(t, d)
			before := inUse()
			must(t, do(storeAfter(b, 10)))
			if b.most == 0 {
				t.Fatalf("nothing was measured in %d calls", b.calls)
			}
			each := (int64(b.most) - int64(before)) / pushes
			t.Logf("%d bytes for each of %d attestations, and %d reads", each, pushes, b.reads)
			if b.reads > pushes+10 {
				t.Errorf("%d reads of %d records", b.reads, pushes)
			}
			if each > bytesEach {
				t.Errorf("%d bytes for each attestation that is stored, want at most %d", each, bytesEach)
			}
		})
	}
}

func TestMoreStepsThanAreRememberedAreTakenOnceEach(t *testing.T) {
	const n = 2*stepsAtOnce + 7
	taken := map[string]int{}
	gone := map[string]bool{}
	err := inSteps(func(next nextStep) error {
		for i := range n {
			p := fmt.Sprint(i)
			if gone[p] {
				continue
			}
			err := next(p, func() error {
				taken[p]++
				if gone[p] = i%3 != 0; gone[p] { // the others stay listed
					return nil
				}
				if i%(n/10) == 0 {
					return fmt.Errorf("no %d", i)
				}
				return nil
			})
			if err != nil {
				return ignoreFilled(err)
			}
		}
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "no 0") {
		t.Errorf("the failures are not told: %v", err)
	}
	for i := range n {
		if got := taken[fmt.Sprint(i)]; got != 1 {
			t.Fatalf("step %d was taken %d times", i, got)
		}
	}
}

// ignoreFilled is what a driver's Walk makes of it.
func ignoreFilled(err error) error {
	if errors.Is(err, storagedriver.ErrFilledBuffer) {
		return nil
	}
	return err
}

func TestAStorageThatFailsIsNotAskedForEachOfMillions(t *testing.T) {
	asked := 0
	err := inSteps(func(next nextStep) error {
		for i := range 10 * failuresAtOnce {
			if err := next(fmt.Sprint(i), func() error { asked++; return fmt.Errorf("down") }); err != nil {
				return ignoreFilled(err)
			}
		}
		return nil
	})
	if err == nil || asked != failuresAtOnce {
		t.Errorf("asked %d times, want %d; %v", asked, failuresAtOnce, err)
	}
}

func TestRepositoriesAreFoundWithoutListingWhatIsInThem(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		for _, repo := range []string{"a", "a/b", "deep/er/one"} {
			must(t, s.PutDocument(t.Context(), repo, sha("index"), "x/index", []byte("index")))
		}
		for _, stray := range []string{"/attestations/notes", "/attestations/a/b/readme", "/attestations/No/Name"} {
			must(t, d.PutContent(t.Context(), stray, []byte("somebody's")))
		}
		got, err := s.repositories(t.Context())
		if want := []string{"a", "a/b", "deep/er/one"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("found %v, %v, want %v", got, err, want)
		}
		if got, err := newStore(inmemory.New()).repositories(t.Context()); err != nil || len(got) > 0 {
			t.Errorf("in an empty storage %v, %v", got, err)
		}
	})
}
