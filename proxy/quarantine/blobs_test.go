package quarantine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

func TestABlobIsReadAsItWasPut(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		for name, size := range map[string]int{
			"empty": 0, "tiny": 1, "just below what is kept in memory": small - 1, "exactly that": small, "larger": 3*small + 17,
		} {
			t.Run(name, func(t *testing.T) {
				b := content(name, size)
				for _, digest := range []string{sha(b), sha512d(b)} {
					for range 2 { // again: the same state
						must(t, s.PutBlob(t.Context(), "team/app", digest, b))
					}
					if got := readBlob(t, s, "team/app", digest); !bytes.Equal(got, b) {
						t.Errorf("%d bytes came back differently", size)
					}
					if n, err := s.StatBlob(t.Context(), "team/app", digest); err != nil || n != int64(size) {
						t.Errorf("stat: %d, %v", n, err)
					}
					for _, offset := range []int{size / 2, size} {
						rc, n, err := s.OpenBlob(t.Context(), "team/app", digest, int64(offset))
						must(t, err)
						got, err := io.ReadAll(rc)
						rc.Close()
						if err != nil || n != int64(size) || !bytes.Equal(got, b[offset:]) {
							t.Errorf("from %d: %d bytes of %d, %v", offset, len(got), n, err)
						}
					}
					if _, _, err := s.OpenBlob(t.Context(), "team/app", digest, int64(size)+1); !errors.Is(err, ErrInvalid) {
						t.Errorf("beyond the end: got %v, want ErrInvalid", err)
					}
				}
			})
		}
	})
}

func TestWhatIsNotHeldIsNotFoundAndTheErrorSaysWhatWhere(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		b := []byte("held in another repository")
		must(t, s.PutBlob(t.Context(), "team/app", sha(b), b))
		for name, look := range map[string]func(repo string) error{
			"OpenBlob":     func(repo string) error { _, _, err := s.OpenBlob(t.Context(), repo, sha(b), 0); return err },
			"StatBlob":     func(repo string) error { _, err := s.StatBlob(t.Context(), repo, sha(b)); return err },
			"Manifest":     func(repo string) error { _, err := s.Manifest(t.Context(), repo, sha(b)); return err },
			"StatManifest": func(repo string) error { return s.StatManifest(t.Context(), repo, sha(b)) },
			"Original":     func(repo string) error { _, err := s.Original(t.Context(), repo, sha(b)); return err },
			"TagOriginal":  func(repo string) error { _, err := s.TagOriginal(t.Context(), repo, "v1", sha(b)); return err },
			"Assemble": func(repo string) error {
				_, err := s.Assemble(t.Context(), s.Generation(), repo, "id", 1, sha(b))
				return err
			},
		} {
			for _, repo := range []string{"team", "team/app2", "team/app/x"} {
				err := look(repo)
				if !errors.Is(err, ErrNotFound) || errors.Is(err, ErrStorage) {
					t.Errorf("%s in %s: got %v, want ErrNotFound", name, repo, err)
				} else if !strings.Contains(err.Error(), sha(b)) || !strings.Contains(err.Error(), repo) {
					t.Errorf("%s in %s: the error names not both repository and digest: %v", name, repo, err)
				}
			}
		}
	})
}

func TestPartsBecomeABlob(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		for name, sizes := range map[string][]int{
			"no part":           {},
			"one":               {100},
			"one empty":         {0},
			"small ones":        {10, 0, 30},
			"large ones":        {small, small + 1, 2 * small},
			"together at limit": {small / 2, small / 2},
		} {
			t.Run(name, func(t *testing.T) {
				var parts [][]byte
				for i, n := range sizes {
					parts = append(parts, content(strings.Repeat("x", i), n))
				}
				all := bytes.Join(parts, nil)
				for _, digest := range []string{sha(all), sha512d(all)} {
					writeParts(t, s, s.Generation(), "app", "-upload_1", parts...)
					for range 2 { // the second finds no parts, as after an answer that was lost
						n, err := s.Assemble(t.Context(), s.Generation(), "app", "-upload_1", len(parts), digest)
						if err != nil || n != int64(len(all)) {
							t.Fatalf("assemble: %d bytes, %v", n, err)
						}
					}
					if got := readBlob(t, s, "app", digest); !bytes.Equal(got, all) {
						t.Error("the blob differs from its parts")
					}
				}
			})
		}
		for _, p := range objectstest.Paths(t, d, "/quarantine") {
			if strings.Contains(p, "_parts") || strings.Contains(p, "_staging") {
				t.Errorf("%s was left", p)
			}
		}
	})
}

func TestAnUploadThatBeganYesterdayEndsToday(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		began := s.Generation()
		b := content("midnight", 100)
		writeParts(t, s, began, "app", "id", b[:50])
		c.shift(1)
		if _, err := s.WritePart(t.Context(), began, "app", "id", 1, bytes.NewReader(b[50:]), 50); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Assemble(t.Context(), began, "app", "id", 2, sha(b)); err != nil {
			t.Fatal(err)
		}
		if got := objectstest.Paths(t, d, "/quarantine/"+s.Generation()); len(got) != 1 {
			t.Errorf("today's generation holds %v, want the blob", got)
		}
	})
}

func TestContentWithAnotherDigestIsRefusedAndCanBeSentAgain(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		for name, size := range map[string]int{"small": 100, "large": 2 * small} {
			t.Run(name, func(t *testing.T) {
				good, bad := content("good", size), content("bad", size)
				writeParts(t, s, s.Generation(), "app", name, bad)
				_, err := s.Assemble(t.Context(), s.Generation(), "app", name, 1, sha(good))
				if !errors.Is(err, ErrDigest) || errors.Is(err, ErrStorage) {
					t.Fatalf("got %v, want ErrDigest", err)
				}
				for _, want := range []string{sha(good), sha(bad), "app"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("the error does not name %s: %v", want, err)
					}
				}
				if _, err := s.StatBlob(t.Context(), "app", sha(good)); !errors.Is(err, ErrNotFound) {
					t.Errorf("something is held under the wrong digest: %v", err)
				}
				writeParts(t, s, s.Generation(), "app", name, good)
				_, err = s.Assemble(t.Context(), s.Generation(), "app", name, 1, sha(good))
				must(t, err)
			})
		}
	})
}

func TestAPartMayHaveAsManyBytesAsAllowedAndNotOneMore(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		for _, max := range []int64{0, 10, small - 1, small, small + 1, 3 * small} {
			b := content("x", int(max)+1)
			if n, err := s.WritePart(t.Context(), s.Generation(), "app", "id", 0, bytes.NewReader(b[:max]), max); err != nil || n != max {
				t.Errorf("%d of %d bytes: %d, %v", max, max, n, err)
			}
			must(t, s.DropParts(t.Context(), s.Generation(), "app", "id"))
			_, err := s.WritePart(t.Context(), s.Generation(), "app", "id", 0, bytes.NewReader(b), max)
			if !errors.Is(err, ErrTooLarge) || errors.Is(err, ErrStorage) {
				t.Errorf("%d of %d bytes: got %v, want ErrTooLarge", max+1, max, err)
			}
			if left := objectstest.Paths(t, d, "/quarantine"); len(left) > 0 {
				t.Errorf("after %d of %d bytes there is %v", max+1, max, left)
			}
		}
	})
}

// brokenReader is a client that hangs up.
type brokenReader struct{ left int }

var errHungUp = errors.New("client hung up")

func (r *brokenReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, errHungUp
	}
	n := min(len(p), r.left)
	r.left -= n
	return n, nil
}

func TestAClientThatHangsUpIsNoFailureOfTheStorageAndLeavesNothing(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		for _, n := range []int{0, 100, 3 * small} {
			_, err := s.WritePart(t.Context(), s.Generation(), "app", "id", 0, &brokenReader{n}, 1<<30)
			if !errors.Is(err, errHungUp) || errors.Is(err, ErrStorage) {
				t.Errorf("after %d bytes: got %v", n, err)
			}
			if left := objectstest.Paths(t, d, "/quarantine"); len(left) > 0 {
				t.Errorf("after %d bytes there is %v", n, left)
			}
		}
	})
}

func TestManyAtOnceWriteAssembleAndReadTheSame(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		for _, size := range []int{1000, 2 * small} {
			b := content("shared", size)
			var wg sync.WaitGroup
			for i := range 6 {
				wg.Go(func() {
					id := string(rune('a' + min(i, 3))) // three have an upload of their own, three share one
					for range 5 {
						// Who shares an upload may find that another has ended it.
						if _, err := s.WritePart(t.Context(), s.Generation(), "app", id, 0, bytes.NewReader(b), 1<<30); err != nil && id != "d" {
							t.Error(err)
						}
						if err := s.PutBlob(t.Context(), "app", sha(b), b); err != nil {
							t.Error(err)
						}
						if _, err := s.Assemble(t.Context(), s.Generation(), "app", id, 1, sha(b)); err != nil {
							t.Error(err)
						}
						rc, _, err := s.OpenBlob(t.Context(), "app", sha(b), 0)
						if err != nil {
							t.Error(err)
							continue
						}
						got, err := io.ReadAll(rc)
						rc.Close()
						if err != nil || !bytes.Equal(got, b) {
							t.Errorf("read %d of %d bytes, %v", len(got), len(b), err)
						}
					}
				})
			}
			wg.Wait()
		}
	})
}

func TestLargeBlobsNeedLittleMemory(t *testing.T) {
	s := newStore(t, objectstest.Filesystem(t), newClock())
	s.storage.Small = 0
	const size = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.WritePart(t.Context(), s.Generation(), "app", "id", 0, io.LimitReader(zeros{}, size), size)
	must(t, err)
	// sha256 of 64 MiB of zeros
	const digest = "sha256:3b6a07d0d404fab4e23b6d34bc6696a6a312dd92821332385e5af7c01c421351"
	n, err := s.Assemble(t.Context(), s.Generation(), "app", "id", 1, digest)
	if err != nil || n != size {
		t.Fatalf("%d bytes, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d MiB were allocated in all for a blob of %d MiB", grown>>20, size>>20)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestACancelledContextIsNoFailureOfTheStorage(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, o := range operations(t) {
			err := o.do(ctx, s)
			if !errors.Is(err, context.Canceled) || errors.Is(err, ErrStorage) {
				t.Errorf("%s: got %v, want context.Canceled", o.name, err)
			}
		}
	})
}
