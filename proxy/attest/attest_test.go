package attest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/proxy/internal/objects/objectstest"
)

func TestABlobIsKeptAsItWasSent(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
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
		for _, p := range objectstest.Paths(t, d, "/") {
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
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
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
		if left := objectstest.Paths(t, d, "/"); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func TestADocumentKeepsItsBytesAndItsMediaType(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		for mediaType, body := range map[string]string{"x/y": "{}", "": "\n{}\n", "x/empty": ""} {
			must(t, s.PutDocument(t.Context(), "app", sha512d(body), mediaType, []byte(body)))
			got, b, err := newStore(d).Document(t.Context(), "app", sha512d(body)) // after a restart
			if err != nil || got != mediaType || string(b) != body {
				t.Errorf("got %q %q, %v", got, b, err)
			}
		}
		p := objectstest.Paths(t, d, "/")[0]
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

func TestUnclaimedAttestationsAreKeptApartAndListed(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
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
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		ctx := t.Context()
		calls := func(repo, digest string) map[string]error {
			_, _, document := s.Document(ctx, repo, digest)
			_, _, open := s.OpenBlob(ctx, repo, digest, 0)
			_, stat := s.StatBlob(ctx, repo, digest)
			_, _, unclaimed := s.UnclaimedDocument(ctx, repo, digest)
			_, _, unclaimedBlob := s.OpenUnclaimedBlob(ctx, repo, digest, digest, 0)
			return map[string]error{
				"Document": document, "OpenBlob": open, "StatBlob": stat, "UnclaimedDocument": unclaimed,
				"OpenUnclaimedBlob": unclaimedBlob, "Delete": s.Delete(ctx, repo, digest),
			}
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
		if left := objectstest.Paths(t, d, "/"); len(left) > 0 {
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
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
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

func TestACancelledContextIsNoFailureOfTheStorage(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		r := record("x")
		must(t, store(t.Context(), s, "app", r, "x"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, unclaimed := s.Unclaimed(ctx, "")
		_, byTag := s.ByTag(ctx, "app", "v1")
		for name, err := range map[string]error{
			"store": store(ctx, s, "app", r, "y"), "delete": s.Delete(ctx, "app", r.Attestation),
			"unclaimed": unclaimed, "by tag": byTag,
		} {
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
