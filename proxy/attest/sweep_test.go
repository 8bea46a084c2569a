package attest

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-cmp/cmp"

	"sluice/proxy/internal/objects/objectstest"
	"sluice/proxy/proxytest"
)

// sweepAfter sweeps with a clock that is days ahead and a retention of two.
func sweepAfter(t *testing.T, d storagedriver.StorageDriver, days int, keep func(context.Context, string, string) (bool, error)) Swept {
	t.Helper()
	s := storeAfter(d, days)
	swept, err := s.Sweep(t.Context(), s.now().Add(-3*day), keep)
	must(t, err)
	return swept
}

// unnamed stores what a push that did not come to its end leaves, and something that a record names.
func unnamed(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	r := record("recorded", content(small+1))
	r.Needs, r.Derived = []string{sha("config"), sha("nested")}, sha("derived")
	must(t, s.PutDocument(ctx, "app", sha("nested"), "x/index", []byte("nested")))
	must(t, s.PutDocument(ctx, "app", sha("derived"), "x/derived", []byte("derived")))
	must(t, store(ctx, s, "app", r, "recorded", content(small+1), "config"))
	for _, repo := range []string{"app", "team/app"} {
		must(t, s.PutBlob(ctx, repo, sha("orphan"), strings.NewReader("orphan"), 6))
		must(t, s.PutBlob(ctx, repo, sha512d(content(2*small)), strings.NewReader(content(2*small)), 2*small))
		must(t, s.PutDocument(ctx, repo, sha("of no push"), "x/attestation", []byte("of no push")))
		must(t, s.PutDocument(ctx, repo, sha("original"), "x/index", []byte("original")))
	}
	must(t, s.PutUnclaimedBlob(ctx, "app", sha("unclaimed"), sha(content(small+1)), strings.NewReader(content(small+1)), small+1))
	must(t, s.PutUnclaimed(ctx, "app", sha("unclaimed"), "x/y", []byte("unclaimed")))
}

func keepOriginal(_ context.Context, repo, digest string) (bool, error) {
	return repo == "app" && digest == sha("original"), nil
}

func TestWhatNoRecordNamesGoesInTwoStepsADayApart(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		unnamed(t, s)
		before := objectstest.Paths(t, d, "/")
		for _, step := range []struct {
			days int
			want Swept
		}{
			{0, Swept{}},
			{2, Swept{}},
			{4, Swept{Aside: 7}},
			{4, Swept{}}, // again, or another replica
			{5, Swept{}},
			{6, Swept{Documents: 3, Blobs: 4, Bytes: int64(2*len("orphan") + 2*2*small + 2*len("x/attestation\nof no push") + len("x/index\noriginal"))}},
			{7, Swept{}},
		} {
			if diff := cmp.Diff(step.want, sweepAfter(t, d, step.days, keepOriginal)); diff != "" {
				t.Errorf("after %d days: %s", step.days, diff)
			}
		}
		want := slices.DeleteFunc(before, func(p string) bool {
			return strings.HasPrefix(p, "/attestations/team/") || strings.Contains(p, sha("orphan")[7:]) || strings.Contains(p, "/sha512/") ||
				strings.Contains(p, sha("of no push")[7:])
		})
		got := objectstest.Paths(t, d, "/")
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		whatIsFoundCanBeRead(t, s)
		if rest, err := d.List(t.Context(), "/attestations/team/app/_aside"); err == nil && len(rest) > 0 {
			t.Errorf("empty folders were left: %v", rest)
		}
	})
}

func TestWhatIsRecordedJustAsItIsSweptIsPutBack(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		unnamed(t, s)
		sweepAfter(t, d, 4, nil)
		// A push that had relied on the blob comes to its end.
		r := record()
		r.Attestation, r.Original, r.Tag = sha("of no push"), sha("original"), "v2"
		r.Statements = []Statement{{Digest: sha("orphan")}}
		must(t, s.PutRecord(t.Context(), "team/app", r))
		if swept := sweepAfter(t, d, 8, nil); swept.Back != 3 {
			t.Errorf("swept %+v, want three put back", swept)
		}
		for _, digest := range []string{sha("of no push"), sha("original")} {
			if _, _, err := s.Document(t.Context(), "team/app", digest); err != nil {
				t.Error(err)
			}
		}
		rc, _, err := s.OpenBlob(t.Context(), "team/app", sha("orphan"), 0)
		must(t, err)
		defer rc.Close()
		if b, err := io.ReadAll(rc); err != nil || string(b) != "orphan" {
			t.Errorf("put back is %q, %v", b, err)
		}
		if _, err := s.StatBlob(t.Context(), "app", sha("orphan")); !errors.Is(err, ErrNotFound) {
			t.Errorf("in a repository where nothing names it: %v", err)
		}
	})
}

func TestWhatIsSentAgainWhileItIsAsideStays(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		put := func(s *Store) { must(t, s.PutBlob(t.Context(), "app", sha("x"), strings.NewReader("x"), 1)) }
		put(s)
		sweepAfter(t, d, 4, nil)
		put(s)
		r := record("x")
		must(t, store(t.Context(), s, "app", r))
		if swept := sweepAfter(t, d, 4, nil); swept != (Swept{}) {
			t.Errorf("swept %+v", swept)
		}
		if got := objectstest.Paths(t, d, "/attestations/app/_aside"); len(got) > 0 {
			t.Errorf("left: %v", got)
		}
		whatIsFoundCanBeRead(t, s)
	})
}

// A push that finds a blob does not send it, so a sweep in the next moment must not take it.
func TestWhatAPushReliesOnIsWrittenAgainWhenItIsOld(t *testing.T) {
	for name, rely := range map[string]func(t *testing.T, s *Store, body string){
		"StatBlob": func(t *testing.T, s *Store, body string) {
			if n, err := s.StatBlob(t.Context(), "app", sha(body)); err != nil || n != int64(len(body)) {
				t.Errorf("%d bytes, %v", n, err)
			}
		},
		"PutBlob": func(t *testing.T, s *Store, body string) {
			must(t, s.PutBlob(t.Context(), "app", sha(body), strings.NewReader(body), int64(len(body))))
		},
		"StatDocument": func(t *testing.T, s *Store, body string) {
			must(t, s.StatDocument(t.Context(), "app", sha(body)))
		},
		"PutDocument": func(t *testing.T, s *Store, body string) {
			must(t, s.PutDocument(t.Context(), "app", sha(body), "x/y", []byte(body)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
				for _, body := range []string{"x", content(2 * small)} {
					s := newStore(d)
					must(t, s.PutBlob(t.Context(), "app", sha(body), strings.NewReader(body), int64(len(body))))
					must(t, s.PutDocument(t.Context(), "app", sha(body), "x/y", []byte(body)))
					for days, again := range map[int]bool{0: false, 10: true} {
						k := blobKind
						if strings.HasSuffix(name, "Document") {
							k = documentKind
							again = again || name == "PutDocument"
						}
						p, err := digestPath("app", k, sha(body))
						must(t, err)
						calls := proxytest.NewFailingDriver(d)
						rely(t, storeAfter(calls, days), body)
						written := slices.ContainsFunc(calls.Log(), func(call string) bool {
							return call == "PutContent "+p || strings.HasPrefix(call, "Move ") && strings.HasSuffix(call, " "+p)
						})
						if written != again {
							t.Errorf("%d bytes after %d days: written again: %v, want %v", len(body), days, written, again)
						}
					}
				}
			})
		})
	}
}

func TestAnOldBlobThatIsDamagedIsAskedForAgain(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		must(t, s.PutBlob(t.Context(), "app", sha("whole"), strings.NewReader("whole"), 5))
		must(t, d.PutContent(t.Context(), objectstest.Paths(t, d, "/")[0], []byte("whol3")))
		later := storeAfter(d, 10)
		if _, err := later.StatBlob(t.Context(), "app", sha("whole")); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		must(t, later.PutBlob(t.Context(), "app", sha("whole"), strings.NewReader("whole"), 5))
		if _, err := later.StatBlob(t.Context(), "app", sha("whole")); err != nil {
			t.Errorf("sent again: %v", err)
		}
	})
}

func TestADocumentThatIsNotThereIsNotReliedOn(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		must(t, newStore(d).PutDocument(t.Context(), "app", sha("whole"), "x/y", []byte("whole")))
		must(t, d.PutContent(t.Context(), objectstest.Paths(t, d, "/")[0], []byte("x/y\nwhol3")))
		for _, body := range []string{"whole", "none"} { // the first is damaged
			if err := storeAfter(d, 10).StatDocument(t.Context(), "app", sha(body)); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: got %v, want ErrNotFound", body, err)
			}
		}
		if err := newStore(d).StatDocument(t.Context(), "app", "sha256:../x"); !errors.Is(err, ErrInvalid) {
			t.Errorf("got %v, want ErrInvalid", err)
		}
	})
}

func TestASweepNeverTakesWhatIsYoungerThanTwoDays(t *testing.T) {
	d := inmemory.New()
	must(t, newStore(d).PutBlob(t.Context(), "app", sha("x"), strings.NewReader("x"), 1))
	for days, aside := range map[int]int{1: 0, 3: 1} {
		s := storeAfter(d, days)
		if swept, err := s.Sweep(t.Context(), s.now(), nil); err != nil || swept.Aside != aside {
			t.Errorf("after %d days: %+v, %v", days, swept, err)
		}
	}
}

func TestWhatACrashLeftGoesAfterADay(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		p, err := digestPath("app", blobKind, sha("x"))
		must(t, err)
		for _, left := range []string{stagingPath("app"), stagingPath("team/app"), p + ".01a1fa84-f3ab-735f-9bfb-260e731f0fe2.tmp"} {
			must(t, d.PutContent(t.Context(), left, []byte("half")))
		}
		if swept := sweepAfter(t, d, 0, nil); swept != (Swept{}) {
			t.Errorf("at once: %+v", swept)
		}
		if swept := sweepAfter(t, d, 2, nil); swept != (Swept{Leftovers: 3}) {
			t.Errorf("after two days: %+v", swept)
		}
		if left := objectstest.Paths(t, d, "/"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestAnErrorSparesWhatItIsAbout(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		unnamed(t, s)
		down := errors.New("aliases cannot be read")
		later := storeAfter(d, 4)
		swept, err := later.Sweep(t.Context(), later.now().Add(-3*day), func(context.Context, string, string) (bool, error) { return false, down })
		if !errors.Is(err, down) || !strings.Contains(err.Error(), "team/app") || swept != (Swept{Aside: 4}) {
			t.Errorf("swept %+v, %v, want the blobs alone", swept, err)
		}
		records := objectstest.Paths(t, d, "/attestations/app/_records")
		must(t, d.PutContent(t.Context(), records[0], []byte("{")))
		later = storeAfter(d, 6)
		swept, err = later.Sweep(t.Context(), later.now().Add(-3*day), nil)
		if !errors.Is(err, ErrStorage) || swept.Documents+swept.Blobs != 2 || swept.Aside != 2 {
			t.Errorf("swept %+v, %v, want nothing of the repository with a record that says nothing", swept, err)
		}
	})
}

func TestSweepersDoNotDisturbEachOtherNorAPush(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		unnamed(t, s)
		sweepers := func(days int) {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					s := storeAfter(d, days)
					if _, err := s.Sweep(context.Background(), s.now().Add(-3*day), nil); err != nil {
						t.Error(err)
					}
				})
			}
			// To the sweepers all that this push stores is old, even what it is writing, so they take it from under its
			// hands, and the client tries again.
			wg.Go(func() {
				var err error
				for range 50 {
					err = store(context.Background(), s, "app", record("orphan", "of this push"), "of this push", "orphan")
					if !errors.Is(err, ErrStorage) {
						break
					}
				}
				if err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
		}
		sweepers(4)
		sweepAfter(t, d, 4, nil) // puts back
		whatIsFoundCanBeRead(t, s)
		sweepers(6)
		sweepAfter(t, d, 6, nil)
		whatIsFoundCanBeRead(t, s)
		if got, err := s.ByTag(t.Context(), "app", "v1"); err != nil || len(got) != 2 {
			t.Errorf("%d records, %v, want 2", len(got), err)
		}
		if left := objectstest.Paths(t, d, "/attestations/team"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// Whichever call fails, a sweep loses nothing that is named, and the next ones end its work.
func TestWhicheverCallOfASweepFailsTheNextOnesEndItsWork(t *testing.T) {
	everyFault(t, func(t *testing.T, good *Store, d storagedriver.StorageDriver, bad *proxytest.FailingDriver) {
		unnamed(t, good)
		must(t, d.PutContent(t.Context(), stagingPath("app"), []byte("half")))
		for _, days := range []int{4, 6} {
			s := storeAfter(bad, days)
			if _, err := s.Sweep(t.Context(), s.now().Add(-3*day), keepOriginal); err != nil && !errors.Is(err, ErrStorage) {
				t.Errorf("the error is not the storage's: %v", err)
			}
			whatIsFoundCanBeRead(t, good)
		}
		for _, days := range []int{8, 10} {
			sweepAfter(t, d, days, keepOriginal)
		}
		whatIsFoundCanBeRead(t, good)
		if _, _, err := good.Document(t.Context(), "app", sha("original")); err != nil {
			t.Errorf("what was to be kept: %v", err)
		}
		for _, p := range objectstest.Paths(t, d, "/attestations") {
			if strings.Contains(p, "/team/") || strings.Contains(p, "_staging") || strings.Contains(p, "_aside") || strings.Contains(p, sha("orphan")[7:]) {
				t.Errorf("%s was left", p)
			}
		}
	})
}

// The same for what puts back, and for what is written again because it is old.
func TestWhicheverCallFailsWhileItIsPutBackOrWrittenAgainNothingIsLost(t *testing.T) {
	large := content(2 * small)
	everyFault(t, func(t *testing.T, good *Store, d storagedriver.StorageDriver, bad *proxytest.FailingDriver) {
		unnamed(t, good)
		sweepAfter(t, d, 4, nil)
		r := record("orphan", large)
		must(t, store(t.Context(), good, "app", r, large))
		later := storeAfter(bad, 5)
		_, swept := later.Sweep(t.Context(), later.now().Add(-3*day), keepOriginal)
		_, stat := later.StatBlob(t.Context(), "app", sha(large))
		for _, err := range []error{swept, stat} {
			if err != nil && !errors.Is(err, ErrStorage) {
				t.Errorf("the error is not the storage's: %v", err)
			}
		}
		sweepAfter(t, d, 5, keepOriginal)
		whatIsFoundCanBeRead(t, good)
		if _, err := storeAfter(d, 5).StatBlob(t.Context(), "app", sha(large)); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatIsWrittenAgainAfterASweepHasListedItStaysWhereItIs(t *testing.T) {
	d := inmemory.New() // whose objects have the time of time.Now; a file system's clock may be behind it
	put := func() { must(t, newStore(d).PutDocument(t.Context(), "app", sha("x"), "x/y", []byte("x"))) }
	put()
	fi, err := d.Stat(t.Context(), objectstest.Paths(t, d, "/")[0])
	must(t, err)
	olderThan := fi.ModTime().Add(1)
	for time.Now().Before(olderThan) {
		continue
	}
	for _, want := range []Swept{{}, {Aside: 1}} {
		again := want.Aside == 0
		swept, err := storeAfter(d, 4).Sweep(t.Context(), olderThan, func(context.Context, string, string) (bool, error) {
			if again {
				put()
			}
			return false, nil
		})
		if err != nil || swept != want {
			t.Errorf("written again: %v: swept %+v, %v, want %+v", again, swept, err, want)
		}
		olderThan = time.Now().Add(time.Nanosecond)
	}
}
