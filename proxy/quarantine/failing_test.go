package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

var errInjected = errors.New("injected")

type failure int

const (
	failBefore failure = iota // the call has no effect
	failAfter                 // it has its effect and the answer is lost
	failOn                    // it has no effect and neither has any later one: the process has died
)

func (f failure) String() string { return [...]string{"refused", "answer lost", "dead"}[f] }

// failing is a driver whose nth call fails, from 1.
type failing struct {
	storagedriver.StorageDriver
	mu    sync.Mutex
	calls int
	nth   int
	how   failure
}

func (f *failing) call(do func() error) error {
	f.mu.Lock()
	f.calls++
	n := f.calls
	f.mu.Unlock()
	if n < f.nth || n > f.nth && f.how != failOn {
		return do()
	}
	if f.how == failAfter {
		_ = do()
	}
	return errInjected
}

func (f *failing) fired() bool { return f.calls >= f.nth }

func (f *failing) GetContent(ctx context.Context, p string) (b []byte, err error) {
	err = f.call(func() error { b, err = f.StorageDriver.GetContent(ctx, p); return err })
	return b, err
}

func (f *failing) PutContent(ctx context.Context, p string, b []byte) error {
	return f.call(func() error { return f.StorageDriver.PutContent(ctx, p, b) })
}

func (f *failing) Reader(ctx context.Context, p string, offset int64) (rc io.ReadCloser, err error) {
	err = f.call(func() error { rc, err = f.StorageDriver.Reader(ctx, p, offset); return err })
	return rc, err
}

func (f *failing) Stat(ctx context.Context, p string) (fi storagedriver.FileInfo, err error) {
	err = f.call(func() error { fi, err = f.StorageDriver.Stat(ctx, p); return err })
	return fi, err
}

func (f *failing) List(ctx context.Context, p string) (l []string, err error) {
	err = f.call(func() error { l, err = f.StorageDriver.List(ctx, p); return err })
	return l, err
}

func (f *failing) Move(ctx context.Context, from, to string) error {
	return f.call(func() error { return f.StorageDriver.Move(ctx, from, to) })
}

func (f *failing) Delete(ctx context.Context, p string) error {
	return f.call(func() error { return f.StorageDriver.Delete(ctx, p) })
}

func (f *failing) Walk(ctx context.Context, p string, fn storagedriver.WalkFn, o ...func(*storagedriver.WalkOptions)) error {
	return storagedriver.WalkFallback(ctx, f, p, fn, o...)
}

func (f *failing) Writer(ctx context.Context, p string, appending bool) (w storagedriver.FileWriter, err error) {
	err = f.call(func() error { w, err = f.StorageDriver.Writer(ctx, p, appending); return err })
	if err != nil {
		if w != nil {
			_ = w.Close()
		}
		return nil, err
	}
	return &failingWriter{w, f}, nil
}

type failingWriter struct {
	storagedriver.FileWriter
	f *failing
}

func (w *failingWriter) Write(p []byte) (n int, err error) {
	err = w.f.call(func() error { n, err = w.FileWriter.Write(p); return err })
	return n, err
}

func (w *failingWriter) Commit(ctx context.Context) error {
	return w.f.call(func() error { return w.FileWriter.Commit(ctx) })
}

func (w *failingWriter) Close() error {
	return w.f.call(func() error { return w.FileWriter.Close() })
}

// operation is one call on a storage that was prepared, and what must hold when it has succeeded.
type operation struct {
	name    string
	prepare func(s *Store, c *clock)
	do      func(ctx context.Context, s *Store) error
	check   func(t *testing.T, s *Store, d storagedriver.StorageDriver)
}

// operations are all that write, and those that read more than one object.
func operations(t *testing.T) []operation {
	ctx := context.Background()
	tiny, large := content("tiny", 100), content("large", small+5)
	doc := Manifest{MediaType: "application/vnd.oci.image.manifest.v1+json", Bytes: []byte("{}\n"), Blobs: []string{sha(tiny), sha(large)}}
	alias := Alias{Original: sha(tiny), Forwarded: sha(large)}
	generation := newClock().day(0)
	none := func(*Store, *clock) {}
	old := func(blobs ...[]byte) func(*Store, *clock) {
		return func(s *Store, c *clock) {
			c.shift(-2)
			for _, b := range blobs {
				must(t, s.PutBlob(ctx, "app", sha(b), b))
			}
			c.shift(2)
		}
	}
	oldDocs := func(s *Store, c *clock) {
		old(tiny, large)(s, c)
		c.shift(-2)
		must(t, s.PutManifest(ctx, "app", sha(doc.Bytes), doc))
		must(t, s.PutOriginal(ctx, "app", sha(doc.Bytes), doc))
		c.shift(2)
	}
	heldToday := func(digests ...string) func(*testing.T, *Store, storagedriver.StorageDriver) {
		return func(t *testing.T, s *Store, d storagedriver.StorageDriver) {
			for _, digest := range digests {
				o, err := newObject("app", blobKind, digest)
				must(t, err)
				if _, err := d.Stat(ctx, o.in(s.Generation())); err != nil {
					t.Errorf("not in today's generation: %v", err)
				}
				if got := sha(readBlob(t, s, "app", digest)); got != digest {
					t.Errorf("%s is held as %s", got, digest)
				}
			}
		}
	}
	docToday := func(k kind) func(*testing.T, *Store, storagedriver.StorageDriver) {
		return func(t *testing.T, s *Store, d storagedriver.StorageDriver) {
			heldToday(doc.Blobs...)(t, s, d)
			o, err := newObject("app", k, sha(doc.Bytes))
			must(t, err)
			if _, err := d.Stat(ctx, o.in(s.Generation())); err != nil {
				t.Errorf("not in today's generation: %v", err)
			}
		}
	}
	written := func(parts ...[]byte) func(*Store, *clock) {
		return func(s *Store, _ *clock) { writeParts(t, s, generation, "app", "id", parts...) }
	}
	stat := func(digest string) func(context.Context, *Store) error {
		return func(ctx context.Context, s *Store) error { _, err := s.StatBlob(ctx, "app", digest); return err }
	}
	assemble := func(parts int, digest string) func(context.Context, *Store) error {
		return func(ctx context.Context, s *Store) error {
			_, err := s.Assemble(ctx, generation, "app", "id", parts, digest)
			return err
		}
	}
	return []operation{
		{"PutBlob of a small one", none, func(ctx context.Context, s *Store) error { return s.PutBlob(ctx, "app", sha(tiny), tiny) }, heldToday(sha(tiny))},
		{"PutBlob of a large one", none, func(ctx context.Context, s *Store) error { return s.PutBlob(ctx, "app", sha(large), large) }, heldToday(sha(large))},
		{"StatBlob that copies a small one", old(tiny), stat(sha(tiny)), heldToday(sha(tiny))},
		{"StatBlob that copies a large one", old(large), stat(sha(large)), heldToday(sha(large))},
		{"OpenBlob", old(large), func(ctx context.Context, s *Store) error {
			rc, _, err := s.OpenBlob(ctx, "app", sha(large), 0)
			if err == nil {
				rc.Close()
			}
			return err
		}, func(*testing.T, *Store, storagedriver.StorageDriver) {}},
		{"WritePart and Assemble of a small one", none, func(ctx context.Context, s *Store) error {
			if _, err := s.WritePart(ctx, generation, "app", "id", 0, bytes.NewReader(tiny), 1<<20); err != nil {
				return err
			}
			return assemble(1, sha(tiny))(ctx, s)
		}, heldToday(sha(tiny))},
		{"WritePart and Assemble of a large one", none, func(ctx context.Context, s *Store) error {
			if _, err := s.WritePart(ctx, generation, "app", "id", 0, bytes.NewReader(large), 1<<20); err != nil {
				return err
			}
			return assemble(1, sha(large))(ctx, s)
		}, heldToday(sha(large))},
		{"Assemble of several parts", written(large[:10], large[10:small], large[small:]), assemble(3, sha(large)), heldToday(sha(large))},
		{"DropParts", written(tiny, large), func(ctx context.Context, s *Store) error { return s.DropParts(ctx, generation, "app", "id") },
			func(t *testing.T, _ *Store, d storagedriver.StorageDriver) {
				if left := allPaths(t, d, "/quarantine"); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}},
		{"PutManifest with old blobs", old(tiny, large),
			func(ctx context.Context, s *Store) error { return s.PutManifest(ctx, "app", sha(doc.Bytes), doc) }, docToday(manifestKind)},
		{"StatManifest that copies", oldDocs,
			func(ctx context.Context, s *Store) error {
				_, _, err := s.StatManifest(ctx, "app", sha(doc.Bytes))
				return err
			}, docToday(manifestKind)},
		{"StatOriginal that copies", oldDocs,
			func(ctx context.Context, s *Store) error {
				_, _, err := s.StatOriginal(ctx, "app", sha(doc.Bytes))
				return err
			}, docToday(originalKind)},
		{"DeleteOriginal", func(s *Store, c *clock) {
			oldDocs(s, c)
			must(t, s.PutOriginal(ctx, "app", sha(doc.Bytes), doc))
		}, func(ctx context.Context, s *Store) error { return s.DeleteOriginal(ctx, "app", sha(doc.Bytes)) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if _, err := s.Original(ctx, "app", sha(doc.Bytes)); !errors.Is(err, ErrNotFound) {
					t.Errorf("got %v, want ErrNotFound", err)
				}
			}},
		{"PutAlias", none, func(ctx context.Context, s *Store) error { return s.PutAlias(ctx, "app", alias) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if got, err := s.Aliases(ctx, "app", alias.Original); err != nil || !slices.Equal(got, []Alias{alias}) {
					t.Errorf("got %v, %v", got, err)
				}
			}},
		{"Aliases", func(s *Store, _ *clock) { must(t, s.PutAlias(ctx, "app", alias)) },
			func(ctx context.Context, s *Store) error { _, err := s.Aliases(ctx, "app", alias.Original); return err },
			func(*testing.T, *Store, storagedriver.StorageDriver) {}},
		{"DeleteAliases", func(s *Store, _ *clock) { must(t, s.PutAlias(ctx, "app", alias)) },
			func(ctx context.Context, s *Store) error { return s.DeleteAliases(ctx, "app", alias.Original) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if got, err := s.Aliases(ctx, "app", alias.Original); err != nil || len(got) > 0 {
					t.Errorf("got %v, %v", got, err)
				}
			}},
		{"PutTag", none, func(ctx context.Context, s *Store) error { return s.PutTag(ctx, "app", "v1", sha(large), sha(tiny)) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if got, err := s.TagOriginal(ctx, "app", "v1", sha(large)); err != nil || got != sha(tiny) {
					t.Errorf("got %v, %v", got, err)
				}
			}},
		{"DeleteTag", func(s *Store, _ *clock) { must(t, s.PutTag(ctx, "app", "v1", sha(large), sha(tiny))) },
			func(ctx context.Context, s *Store) error { return s.DeleteTag(ctx, "app", "v1") },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if _, err := s.TagOriginal(ctx, "app", "v1", sha(large)); !errors.Is(err, ErrNotFound) {
					t.Errorf("got %v, want ErrNotFound", err)
				}
			}},
		{"SealKey", none, func(ctx context.Context, s *Store) error { _, err := s.SealKey(ctx); return err },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				a, err := s.SealKey(ctx)
				must(t, err)
				if b, err := s.SealKey(ctx); err != nil || !bytes.Equal(a, b) {
					t.Errorf("two calls give two keys, %v", err)
				}
			}},
		{"Sweep", func(s *Store, c *clock) {
			oldDocs(s, c)
			c.shift(10)
		}, func(ctx context.Context, s *Store) error {
			_, err := s.Sweep(ctx, func(context.Context, string, string, Manifest) error { return nil })
			return err
		}, func(t *testing.T, _ *Store, d storagedriver.StorageDriver) {
			if left := allPaths(t, d, "/quarantine"); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		}},
	}
}

// I7: whichever call of the storage fails, and however, the operation fails with it or has succeeded; nothing is held
// under a digest that is not its own; and the same operation again makes everything right.
func TestI7WhicheverCallFailsARetryConverges(t *testing.T) {
	for _, o := range operations(t) {
		for _, how := range []failure{failBefore, failAfter, failOn} {
			t.Run(fmt.Sprintf("%s/%s", o.name, how), func(t *testing.T) {
				t.Parallel()
				backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
					if d.Name() == "filesystem" && how != failOn {
						return // it syncs every file; the other two ways say nothing new about the order of the calls
					}
					for n := 1; ; n++ {
						c := newClock()
						good := newStore(t, d, c)
						o.prepare(good, c)
						bad := &failing{StorageDriver: d, nth: n, how: how}
						flaky := &Store{storage: storage{bad}, retention: good.retention, now: good.now}
						err := o.do(t.Context(), flaky)
						if err != nil && !errors.Is(err, ErrStorage) {
							t.Fatalf("call %d failed: the error is not the storage's: %v", n, err)
						}
						nothingIsHeldUnderAnotherDigest(t, d)
						if err != nil {
							if err := o.do(t.Context(), good); err != nil {
								t.Fatalf("after call %d failed, a retry failed: %v", n, err)
							}
						}
						o.check(t, good, d)
						nothingIsHeldUnderAnotherDigest(t, d)
						if t.Failed() {
							t.Fatalf("call %d had failed", n)
						}
						if !bad.fired() {
							if n == 1 {
								t.Fatal("the operation made no call at all")
							}
							return
						}
						for _, top := range []string{"/quarantine", "/aliases", "/keys"} {
							if err := d.Delete(t.Context(), top); err != nil && !absent(err) {
								t.Fatal(err)
							}
						}
					}
				})
			})
		}
	}
}

func nothingIsHeldUnderAnotherDigest(t *testing.T, d storagedriver.StorageDriver) {
	t.Helper()
	for _, p := range allPaths(t, d, "/") {
		_, o, ok := parseHeld(p)
		if !ok {
			continue
		}
		b, err := d.GetContent(t.Context(), p)
		must(t, err)
		if o.kind != blobKind {
			if _, err := unpackDocument(b, o.digest); err != nil {
				t.Errorf("%s: %v", p, err)
			}
		} else if sha(b) != o.digest {
			t.Errorf("%s holds %s", p, sha(b))
		}
	}
}
