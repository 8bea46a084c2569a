package attest

import (
	"bytes"
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
	"pgregory.net/rapid"
)

func TestABlobIsKeptAsItWasSent(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		for _, size := range []int{0, 1, small - 1, small, 2*small + 3} {
			body := content(size)
			for _, digest := range []string{sha(body), sha512d(body)} {
				must(t, s.PutBlob(t.Context(), "app", digest, strings.NewReader(body), int64(size)))
				must(t, s.PutBlob(t.Context(), "app", digest, unread{t}, int64(size)))
				n, err := s.StatBlob(t.Context(), "app", digest)
				if err != nil || n != int64(size) {
					t.Errorf("stat: %d, %v", n, err)
				}
				for _, offset := range []int{0, size / 3, size} {
					rc, n, err := s.OpenBlob(t.Context(), "app", digest, int64(offset))
					must(t, err)
					got, err := io.ReadAll(rc)
					rc.Close()
					if err != nil || n != int64(size) || string(got) != body[offset:] {
						t.Errorf("from %d of %d: %d bytes, %v", offset, size, len(got), err)
					}
				}
				if _, _, err := s.OpenBlob(t.Context(), "app", digest, int64(size)+1); !errors.Is(err, ErrInvalid) {
					t.Errorf("beyond the end: %v", err)
				}
			}
		}
		must(t, s.PutBlob(t.Context(), "app", sha("unknown size"), strings.NewReader("unknown size"), -1))
		for _, p := range allPaths(t, d) {
			if strings.Contains(p, string(stagingKind)) {
				t.Errorf("%s was left", p)
			}
		}
	})
}

type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("a blob that is there already was read again")
	return 0, io.EOF
}

func TestABlobThatIsNotWhatItSaysIsRefusedAndLeavesNothing(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		for _, size := range []int{100, 2 * small} {
			body := content(size)
			for name, try := range map[string]error{
				"another digest": s.PutBlob(t.Context(), "app", sha("x"), strings.NewReader(body), int64(size)),
				"too short":      s.PutBlob(t.Context(), "app", sha(body), strings.NewReader(body[1:]), int64(size)),
				"too long":       s.PutBlob(t.Context(), "app", sha(body), strings.NewReader(body+"x"), int64(size)),
				"endless":        s.PutBlob(t.Context(), "app", sha(body), zeros{}, int64(size)),
				"a document":     s.PutDocument(t.Context(), "app", sha("x"), "x/y", []byte(body)),
			} {
				if !errors.Is(try, ErrDigest) || errors.Is(try, ErrStorage) || !strings.Contains(try.Error(), "app") {
					t.Errorf("%s: got %v, want ErrDigest that names the repository", name, try)
				}
			}
			hungUp := errors.New("hung up")
			err := s.PutBlob(t.Context(), "app", sha(body), io.MultiReader(strings.NewReader(body[1:]), failingReader{hungUp}), int64(size))
			if !errors.Is(err, hungUp) || errors.Is(err, ErrStorage) {
				t.Errorf("a reader that fails: %v", err)
			}
		}
		if left := allPaths(t, d); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestADocumentKeepsItsBytesAndItsMediaType(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		for mediaType, body := range map[string]string{"x/y": "{}", "": "\n{}\n", "x/empty": ""} {
			must(t, s.PutDocument(t.Context(), "app", sha512d(body), mediaType, []byte(body)))
			got, b, err := newStore(d).Document(t.Context(), "app", sha512d(body)) // after a restart
			if err != nil || got != mediaType || string(b) != body {
				t.Errorf("got %q %q, %v", got, b, err)
			}
		}
		p := allPaths(t, d)[0]
		must(t, d.PutContent(t.Context(), p, []byte("x/y\ndamaged")))
		damaged := 0
		for _, body := range []string{"{}", "\n{}\n", ""} {
			if _, _, err := s.Document(t.Context(), "app", sha512d(body)); errors.Is(err, ErrNotFound) && strings.Contains(err.Error(), "damaged") {
				damaged++
			}
		}
		if damaged != 1 {
			t.Errorf("%d documents are called damaged, want 1", damaged)
		}
	})
}

func TestRecordsAreFoundByImageOriginalAndTag(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		ctx := t.Context()
		older, newer := record("provenance"), record("provenance", "sbom")
		newer.At = start.Add(time.Second)
		newer.Derived = sha512d("derived")
		newer.Needs = []string{sha("config")}
		otherTag := older
		otherTag.Tag, otherTag.At = "_V2.x", start.Add(-time.Second)
		bare := Record{Attestation: sha("bare")}
		for _, r := range []Record{older, otherTag, newer, bare, newer} { // one of them twice
			must(t, s.PutRecord(ctx, "app", r))
		}
		must(t, s.PutRecord(ctx, "app/x", older))
		for _, c := range []struct {
			name string
			find func() ([]Record, error)
			want []Record
		}{
			{"by image, newest first", func() ([]Record, error) { return s.BySubject(ctx, "app", sha("image")) }, []Record{newer, older, otherTag}},
			{"by original", func() ([]Record, error) { return s.ByOriginal(ctx, "app", sha("index")) }, []Record{newer, older, otherTag}},
			{"by tag", func() ([]Record, error) { return s.ByTag(ctx, "app", "v1") }, []Record{newer, older}},
			{"by the other tag", func() ([]Record, error) { return s.ByTag(ctx, "app", "_V2.x") }, []Record{otherTag}},
			{"in another repository", func() ([]Record, error) { return s.BySubject(ctx, "app/x", sha("image")) }, []Record{older}},
			{"none in a third", func() ([]Record, error) { return s.BySubject(ctx, "a", sha("image")) }, nil},
			{"none about another image", func() ([]Record, error) { return s.BySubject(ctx, "app", sha("index")) }, nil},
			{"none by an unknown tag", func() ([]Record, error) { return s.ByTag(ctx, "app", "v") }, nil},
		} {
			got, err := c.find()
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s: %s", c.name, d)
			}
		}
	})
}

func TestARecordWithoutATimeGetsOne(t *testing.T) {
	s := newStore(inmemory.New())
	r := record("x")
	r.At = time.Time{}
	must(t, s.PutRecord(t.Context(), "app", r))
	got, err := s.ByTag(t.Context(), "app", "v1")
	if err != nil || len(got) != 1 || !got[0].At.Equal(start) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAMalformedRecordIsAnErrorThatNamesItsPath(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		must(t, s.PutRecord(t.Context(), "app", record("x")))
		paths := allPaths(t, d)
		for _, p := range paths { // what a crash of the filesystem driver leaves is no record
			must(t, d.PutContent(t.Context(), p+".01a1fa84-f3ab-735f-9bfb-260e731f0fe2.tmp", []byte("half")))
		}
		if got, err := s.ByTag(t.Context(), "app", "v1"); err != nil || len(got) != 1 {
			t.Fatalf("got %v, %v", got, err)
		}
		for _, p := range paths {
			whole, err := d.GetContent(t.Context(), p)
			must(t, err)
			for _, damage := range []string{"", "{", "null", "[]", `{"attestation":"../x"}`, strings.Replace(string(whole), `"v1"`, `"v2"`, 1)} {
				must(t, d.PutContent(t.Context(), p, []byte(damage)))
				_, err1 := s.BySubject(t.Context(), "app", sha("image"))
				_, err2 := s.ByOriginal(t.Context(), "app", sha("index"))
				_, err3 := s.ByTag(t.Context(), "app", "v1")
				err4 := s.Delete(t.Context(), "app", sha("another"))
				err := errors.Join(err1, err2, err3)
				if strings.Contains(p, string(recordKind)) {
					err = err4
				}
				if err == nil || !strings.Contains(err.Error(), p) || !errors.Is(err, ErrStorage) {
					t.Errorf("%s with %q: got %v", p, damage, err)
				}
			}
			must(t, d.PutContent(t.Context(), p, whole))
		}
	})
}

func TestDeletingAnAttestationLeavesWhatOthersReferTo(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		ctx := t.Context()
		one, two := record("shared", "of one"), record("shared", "of two")
		one.Needs, two.Needs = []string{sha("config")}, []string{sha("config"), sha("outer")}
		one.Derived = sha("derived")
		second := one
		second.Tag = "v2"
		must(t, s.PutDocument(ctx, "app", sha("derived"), "x/derived", []byte("derived")))
		must(t, s.PutDocument(ctx, "app", sha("outer"), "x/index", []byte("outer")))
		for _, r := range []Record{one, second} {
			must(t, store(ctx, s, "app", r, "shared", "of one", "config"))
		}
		must(t, store(ctx, s, "app", two, "shared", "of two", "config"))
		must(t, store(ctx, s, "team/app", one, "shared", "of one", "config"))

		must(t, s.Delete(ctx, "app", one.Attestation))
		if err := s.Delete(ctx, "app", one.Attestation); !errors.Is(err, ErrNotFound) {
			t.Errorf("again: got %v, want ErrNotFound", err)
		}
		for _, tag := range []string{"v1", "v2"} {
			got, err := s.ByTag(ctx, "app", tag)
			if err != nil || slices.ContainsFunc(got, func(r Record) bool { return r.Attestation == one.Attestation }) {
				t.Errorf("tag %s: %v, %v", tag, got, err)
			}
		}
		for _, c := range []struct {
			repo, body string
			there      bool
		}{
			{"app", "shared", true}, {"app", "config", true}, {"app", "of two", true}, {"app", "of one", false},
			{"team/app", "shared", true}, {"team/app", "of one", true},
		} {
			if _, err := s.StatBlob(ctx, c.repo, sha(c.body)); (err == nil) != c.there {
				t.Errorf("%q in %s: %v, want %v", c.body, c.repo, err, c.there)
			}
		}
		for digest, there := range map[string]bool{one.Attestation: false, two.Attestation: true, sha("derived"): false, sha("index"): true, sha("outer"): true} {
			if _, _, err := s.Document(ctx, "app", digest); (err == nil) != there {
				t.Errorf("document %s: %v, want %v", digest, err, there)
			}
		}
		must(t, s.Delete(ctx, "app", two.Attestation))
		for _, p := range allPaths(t, d) {
			if strings.HasPrefix(p, "/attestations/app/") && !strings.Contains(p, sha("index")[7:]) {
				t.Errorf("%s was left", p)
			}
		}
	})
}

func TestUnclaimedAttestationsAreKeptApartAndListed(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		ctx := t.Context()
		if got, err := s.Unclaimed(ctx, ""); err != nil || len(got) > 0 {
			t.Errorf("nothing yet: %v, %v", got, err)
		}
		r := record("statement")
		must(t, store(ctx, s, "app", r, "statement"))
		var want []Unclaimed
		for _, repo := range []string{"app", "app/unclaimed", "team/app"} {
			must(t, s.PutUnclaimedBlob(ctx, repo, r.Attestation, sha("statement"), strings.NewReader("statement"), 9))
			if got, err := s.Unclaimed(ctx, repo); err != nil || len(got) > 0 {
				t.Errorf("before its manifest is there it is listed: %v, %v", got, err)
			}
			for range 2 {
				must(t, s.PutUnclaimed(ctx, repo, r.Attestation, "x/y", []byte(manifestOf(r))))
			}
			want = append(want, Unclaimed{repo, r.Attestation})
		}
		got, err := s.Unclaimed(ctx, "")
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if got, err := s.Unclaimed(ctx, "app"); err != nil || len(got) != 1 {
			t.Errorf("of one repository: %v, %v", got, err)
		}
		mediaType, b, err := s.UnclaimedDocument(ctx, "team/app", r.Attestation)
		if err != nil || mediaType != "x/y" || string(b) != manifestOf(r) {
			t.Errorf("got %q, %q, %v", mediaType, b, err)
		}
		rc, size, err := s.OpenUnclaimedBlob(ctx, "team/app", r.Attestation, sha("statement"), 5)
		must(t, err)
		if b, err := io.ReadAll(rc); err != nil || size != 9 || string(b) != "ment" {
			t.Errorf("got %q of %d, %v", b, size, err)
		}
		if _, _, err := s.Document(ctx, "team/app", r.Attestation); !errors.Is(err, ErrNotFound) {
			t.Errorf("it is among the claimed ones: %v", err)
		}
		must(t, s.Delete(ctx, "team/app", r.Attestation))
		if got, err := s.Unclaimed(ctx, "team/app"); err != nil || len(got) > 0 {
			t.Errorf("deleted: %v, %v", got, err)
		}
	})
}

func TestWhatIsNotStoredIsNotFoundAndNamesOutsideTheGrammarAreRefused(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		ctx := t.Context()
		calls := func(repo, digest string) map[string]error {
			_, _, document := s.Document(ctx, repo, digest)
			_, _, open := s.OpenBlob(ctx, repo, digest, 0)
			_, stat := s.StatBlob(ctx, repo, digest)
			_, _, unclaimed := s.UnclaimedDocument(ctx, repo, digest)
			_, _, unclaimedBlob := s.OpenUnclaimedBlob(ctx, repo, digest, digest, 0)
			return map[string]error{"Document": document, "OpenBlob": open, "StatBlob": stat, "UnclaimedDocument": unclaimed,
				"OpenUnclaimedBlob": unclaimedBlob, "Delete": s.Delete(ctx, repo, digest)}
		}
		for name, err := range calls("app", sha("x")) {
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), sha("x")) || !strings.Contains(err.Error(), "app") {
				t.Errorf("%s: got %v, want ErrNotFound that says what and where", name, err)
			}
		}
		for _, repo := range []string{"", "..", "a/../b", "_a", "a/_blobs", "A", strings.Repeat("a", 256)} {
			for name, err := range calls(repo, sha("x")) {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("%s in %q: got %v, want ErrInvalid", name, repo, err)
				}
			}
		}
		for _, digest := range []string{"", "sha256:..", "md5:00", sha("x") + "0"} {
			for name, err := range calls("app", digest) {
				if !errors.Is(err, ErrInvalid) {
					t.Errorf("%s of %q: got %v, want ErrInvalid", name, digest, err)
				}
			}
			for name, change := range map[string]func(*Record){
				"attestation": func(r *Record) { r.Attestation = digest }, "statement": func(r *Record) { r.Statements[0].Digest = digest },
				"need": func(r *Record) { r.Needs = []string{digest} }, "tag": func(r *Record) { r.Tag = "../x" },
			} {
				r := record("x")
				change(&r)
				if err := s.PutRecord(ctx, "app", r); !errors.Is(err, ErrInvalid) {
					t.Errorf("record with %s %q: got %v, want ErrInvalid", name, digest, err)
				}
			}
		}
		if left := allPaths(t, d); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestNoTwoRepositoriesOrKindsShareAStoragePrefixAndNoPathEscapes(t *testing.T) {
	repositories := rapid.StringMatching(`[a-z0-9]{1,3}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,3}((\.|_|__|-)[a-z0-9]{1,3}){0,2}){0,3}`)
	kinds := []kind{documentKind, blobKind, recordKind, subjectKind, originalKind, tagKind, unclaimedKind, stagingKind}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(repo string) (prefix, p string) {
			k := rapid.SampledFrom(kinds).Draw(t, "kind")
			var err error
			switch k {
			case tagKind:
				p, err = tagPath(repo, rapid.StringMatching(`[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).Draw(t, "tag"))
			case stagingKind:
				p = stagingPath(repo)
			default:
				p, err = digestPath(repo, k, rapid.StringMatching(`sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}`).Draw(t, "digest"))
			}
			if err != nil {
				t.Fatal(err)
			}
			return "/attestations/" + repo + "/" + string(k) + "/", p
		}
		repo1 := repositories.Draw(t, "repository")
		repo2 := rapid.OneOf(repositories, rapid.Just(repo1), rapid.Map(repositories, func(r string) string { return repo1 + "/" + r })).Draw(t, "other")
		prefix1, path1 := draw(repo1)
		prefix2, path2 := draw(repo2)
		if !storagedriver.PathRegexp.MatchString(path1) || !strings.HasPrefix(path1, prefix1) || strings.Contains(path1, "/.") {
			t.Fatalf("%s escapes from %s", path1, prefix1)
		}
		if prefix1 != prefix2 && (strings.HasPrefix(path1, prefix2) || strings.HasPrefix(path2, prefix1)) {
			t.Fatalf("%s and %s share a prefix", path1, path2)
		}
	})
}

func TestManyAtOnceStoreTheSame(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		large := content(2 * small)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for range 3 {
					if err := store(t.Context(), s, "app", record("statement", large), "statement", large); err != nil {
						t.Error(err)
					}
					rc, _, err := s.OpenBlob(t.Context(), "app", sha(large), 0)
					if err != nil {
						t.Error(err)
						continue
					}
					b, err := io.ReadAll(rc)
					rc.Close()
					if err != nil || !bytes.Equal(b, []byte(large)) {
						t.Errorf("%d bytes, %v", len(b), err)
					}
					if got, err := s.ByTag(t.Context(), "app", "v1"); err != nil || len(got) != 1 {
						t.Errorf("%d records, %v", len(got), err)
					}
				}
			})
		}
		wg.Wait()
	})
}

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
		for _, how := range []failure{failBefore, failAfter, failOn} {
			t.Run(o.name+"/"+how.String(), func(t *testing.T) {
				t.Parallel()
				backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
					if d.Name() == "filesystem" && how != failOn {
						return // it syncs every file; the other two ways say nothing new about the order of the calls
					}
					for n := 1; ; n++ {
						good := newStore(d)
						o.prepare(t, good)
						bad := &failing{StorageDriver: d, nth: n, how: how}
						err := o.do(t.Context(), newStore(bad))
						if err != nil && !errors.Is(err, ErrStorage) {
							t.Fatalf("call %d failed: the error is not the storage's: %v", n, err)
						}
						whatIsFoundCanBeRead(t, good)
						if err != nil {
							if err := o.do(t.Context(), good); err != nil {
								t.Fatalf("after call %d failed, a retry failed: %v", n, err)
							}
						}
						o.check(t, good)
						whatIsFoundCanBeRead(t, good)
						if t.Failed() {
							t.Fatalf("call %d had failed", n)
						}
						if !bad.fired() {
							return
						}
						must(t, d.Delete(t.Context(), "/attestations"))
					}
				})
			})
		}
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

func TestACancelledContextIsNoFailureOfTheStorage(t *testing.T) {
	backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		r := record("x")
		must(t, store(t.Context(), s, "app", r, "x"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, unclaimed := s.Unclaimed(ctx, "")
		_, byTag := s.ByTag(ctx, "app", "v1")
		for name, err := range map[string]error{"store": store(ctx, s, "app", r, "y"), "delete": s.Delete(ctx, "app", r.Attestation),
			"unclaimed": unclaimed, "by tag": byTag} {
			if !errors.Is(err, context.Canceled) || errors.Is(err, ErrStorage) {
				t.Errorf("%s: got %v, want context.Canceled", name, err)
			}
		}
	})
}

func BenchmarkPutRecord(b *testing.B) {
	s := newStore(inmemory.New())
	r := record("provenance", "sbom")
	b.ReportAllocs()
	for b.Loop() {
		must(b, s.PutRecord(b.Context(), "team/app", r))
	}
}

func BenchmarkBySubject(b *testing.B) {
	s := newStore(inmemory.New())
	r := record("provenance", "sbom")
	must(b, s.PutRecord(b.Context(), "team/app", r))
	b.ReportAllocs()
	for b.Loop() {
		if got, err := s.BySubject(b.Context(), "team/app", r.Subject); err != nil || len(got) != 1 {
			b.Fatal(got, err)
		}
	}
}
