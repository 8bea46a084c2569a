package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-cmp/cmp"

	"sluice/proxy/internal/objects"
	"sluice/proxy/internal/objects/objectstest"
	"sluice/proxy/proxytest"
)

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
	nothingHeld := func(t *testing.T, _ *Store, d storagedriver.StorageDriver) {
		if left := objectstest.Paths(t, d, "/quarantine"); len(left) > 0 {
			t.Errorf("left: %v", left)
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
		{
			"DropParts", written(tiny, large), func(ctx context.Context, s *Store) error { return s.DropParts(ctx, generation, "app", "id") },
			nothingHeld,
		},
		{
			"PutManifest with old blobs", old(tiny, large),
			func(ctx context.Context, s *Store) error { return s.PutManifest(ctx, "app", sha(doc.Bytes), doc) }, docToday(manifestKind),
		},
		{
			"StatManifest that copies", oldDocs,
			func(ctx context.Context, s *Store) error { return s.StatManifest(ctx, "app", sha(doc.Bytes)) }, docToday(manifestKind),
		},
		{
			"Original that copies", oldDocs,
			func(ctx context.Context, s *Store) error {
				_, err := s.Original(ctx, "app", sha(doc.Bytes))
				return err
			}, docToday(originalKind),
		},
		{
			"DeleteOriginal", func(s *Store, c *clock) {
				oldDocs(s, c)
				must(t, s.PutOriginal(ctx, "app", sha(doc.Bytes), doc))
			}, func(ctx context.Context, s *Store) error { return s.DeleteOriginal(ctx, "app", sha(doc.Bytes)) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if _, err := s.Original(ctx, "app", sha(doc.Bytes)); !errors.Is(err, ErrNotFound) {
					t.Errorf("got %v, want ErrNotFound", err)
				}
			},
		},
		{
			"DeleteBlob", old(tiny),
			func(ctx context.Context, s *Store) error { return s.DeleteBlob(ctx, "app", sha(tiny)) }, nothingHeld,
		},
		{
			"DeleteManifest", func(s *Store, _ *clock) { must(t, s.PutManifest(ctx, "app", sha(doc.Bytes), doc)) },
			func(ctx context.Context, s *Store) error { return s.DeleteManifest(ctx, "app", sha(doc.Bytes)) }, nothingHeld,
		},
		{
			"PutAlias", none, func(ctx context.Context, s *Store) error { return s.PutAlias(ctx, "app", alias) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if got, err := s.Aliases(ctx, "app", alias.Original); err != nil || !cmp.Equal(got, []Alias{alias}) {
					t.Errorf("got %v, %v", got, err)
				}
			},
		},
		{
			"Aliases", func(s *Store, _ *clock) { must(t, s.PutAlias(ctx, "app", alias)) },
			func(ctx context.Context, s *Store) error { _, err := s.Aliases(ctx, "app", alias.Original); return err },
			func(*testing.T, *Store, storagedriver.StorageDriver) {},
		},
		{
			"DeleteAliases", func(s *Store, _ *clock) { must(t, s.PutAlias(ctx, "app", alias)) },
			func(ctx context.Context, s *Store) error { return s.DeleteAliases(ctx, "app", alias.Original) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if got, err := s.Aliases(ctx, "app", alias.Original); err != nil || len(got) > 0 {
					t.Errorf("got %v, %v", got, err)
				}
			},
		},
		{
			"PutTag", none, func(ctx context.Context, s *Store) error { return s.PutTag(ctx, "app", "v1", sha(large), sha(tiny)) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if got, err := s.TagOriginal(ctx, "app", "v1", sha(large)); err != nil || got != sha(tiny) {
					t.Errorf("got %v, %v", got, err)
				}
			},
		},
		{
			"PutReferrer", none, func(ctx context.Context, s *Store) error { return s.PutReferrer(ctx, "app", sha(large), note("a")) },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if got := referrers(t, s, "app", sha(large)); !slices.Equal(got, []string{"a"}) {
					t.Errorf("got %v", got)
				}
			},
		},
		{
			"Referrers", func(s *Store, _ *clock) { must(t, s.PutReferrer(ctx, "app", sha(large), note("a"))) },
			func(ctx context.Context, s *Store) error { _, err := s.Referrers(ctx, "app", sha(large)); return err },
			func(*testing.T, *Store, storagedriver.StorageDriver) {},
		},
		{
			"DeleteTag", func(s *Store, _ *clock) { must(t, s.PutTag(ctx, "app", "v1", sha(large), sha(tiny))) },
			func(ctx context.Context, s *Store) error { return s.DeleteTag(ctx, "app", "v1") },
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				if _, err := s.TagOriginal(ctx, "app", "v1", sha(large)); !errors.Is(err, ErrNotFound) {
					t.Errorf("got %v, want ErrNotFound", err)
				}
			},
		},
		{
			"SealKeys", none, func(ctx context.Context, s *Store) error {
				keys, err := s.SealKeys(ctx)
				if err == nil && len(keys) == 0 {
					err = errors.New("no key and no error")
				}
				return err
			},
			func(t *testing.T, s *Store, _ storagedriver.StorageDriver) {
				a, err := s.SealKeys(ctx)
				must(t, err)
				if b, err := s.SealKeys(ctx); err != nil || !bytes.Equal(bytes.Join(a, nil), bytes.Join(b, nil)) {
					t.Errorf("two calls give two sets of keys, %v", err)
				}
			},
		},
		{"Sweep", func(s *Store, c *clock) {
			oldDocs(s, c)
			c.shift(10)
		}, func(ctx context.Context, s *Store) error {
			_, err := s.Sweep(ctx, func(context.Context, string, string, Manifest) error { return nil })
			return err
		}, nothingHeld},
	}
}

// I7: whichever call of the storage fails, and however, the operation fails with it or has succeeded; nothing is held
// under a digest that is not its own; and the same operation again makes everything right.
func TestI7WhicheverCallFailsARetryConverges(t *testing.T) {
	for _, o := range operations(t) {
		for _, how := range []proxytest.Kind{proxytest.FaultError, proxytest.FaultAfter, proxytest.FaultPartial, proxytest.FaultDead} {
			t.Run(fmt.Sprintf("%s/%s", o.name, how), func(t *testing.T) {
				t.Parallel()
				objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
					if d.Name() == "filesystem" && how != proxytest.FaultDead {
						return // it is slow, and the other ways say nothing new about the order of the calls
					}
					for n := 1; ; n++ {
						c := newClock()
						good := newStore(t, d, c)
						o.prepare(good, c)
						bad := proxytest.NewFailingDriver(d)
						flaky := &Store{storage: objects.Storage{Driver: bad, Small: small}, retention: good.retention, now: good.now}
						bad.Fail(n, how)
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
							t.Fatalf("call %d had failed: %s", n, bad.Failed())
						}
						if !bad.Fired() {
							if n == 1 {
								t.Fatal("the operation made no call at all")
							}
							return
						}
						for _, top := range []string{"/quarantine", "/aliases", "/keys"} {
							if err := d.Delete(t.Context(), top); err != nil && !objects.Absent(err) {
								t.Fatal(err)
							}
						}
					}
				})
			})
		}
	}
}

// What a sweep could not read is not what is gone: nothing goes that was not offered before.
func TestWhicheverCallOfASweepFailsNoManifestGoesThatWasNotOffered(t *testing.T) {
	for n := 1; ; n++ {
		d, c := inmemory.New(), newClock()
		good := newStore(t, d, c)
		m := Manifest{MediaType: "x/y", Bytes: []byte("attestation")}
		must(t, good.PutManifest(t.Context(), "app", sha(m.Bytes), m))
		c.shift(10)
		bad := proxytest.NewFailingDriver(d)
		flaky := &Store{storage: objects.Storage{Driver: bad, Small: small}, retention: good.retention, now: good.now}
		bad.Fail(n, proxytest.FaultError)
		offered := 0
		_, err := flaky.Sweep(t.Context(), func(context.Context, string, string, Manifest) error { offered++; return nil })
		if bad.Fired() != (err != nil) {
			t.Errorf("call %d, %s, failed: the sweep says %v", n, bad.Failed(), err)
		}
		if _, gone := good.Manifest(t.Context(), "app", sha(m.Bytes)); gone != nil && offered == 0 {
			t.Errorf("call %d, %s, failed: the manifest is gone and was not offered", n, bad.Failed())
		}
		if !bad.Fired() {
			return
		}
	}
}

func nothingIsHeldUnderAnotherDigest(t *testing.T, d storagedriver.StorageDriver) {
	t.Helper()
	for _, p := range objectstest.Paths(t, d, "/") {
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
