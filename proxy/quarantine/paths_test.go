package quarantine

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"pgregory.net/rapid"

	"sluice/proxy/internal/objects"
	"sluice/proxy/internal/objects/objectstest"
)

var (
	repositories = rapid.StringMatching(`[a-z0-9]{1,3}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,3}((\.|_|__|-)[a-z0-9]{1,3}){0,2}){0,3}`)
	tags         = rapid.StringMatching(`[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`)
	digests      = rapid.StringMatching(`sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}`)
	uploads      = rapid.StringMatching(`[A-Za-z0-9_-]{1,128}`)
	days         = rapid.SampledFrom([]string{"2026-11-19", "2026-11-20", "2027-01-01"})
	kinds        = []kind{blobKind, manifestKind, originalKind, partKind, stagingKind, aliasKind, tagKind}
)

// place draws a path of the given kind, with the prefix that belongs to the repository and the kind alone.
func place(t *rapid.T, repo string, k kind) (prefix, p string) {
	generation, digest := days.Draw(t, "generation"), digests.Draw(t, "digest")
	root := quarantineRoot + "/" + generation
	var err error
	switch k {
	case partKind:
		p, err = uploadPath(generation, repo, uploads.Draw(t, "upload"))
		p = partPath(p, rapid.IntRange(0, MaxParts).Draw(t, "part"))
	case stagingKind:
		p = stagingPath(generation, repo)
	case aliasKind:
		root = aliasRoot
		p, err = aliasFolder(repo, digest)
	case tagKind:
		root = aliasRoot
		p, err = tagFolder(repo, tags.Draw(t, "tag"))
	default:
		var o object
		o, err = newObject(repo, k, digest)
		p = o.in(generation)
	}
	if err != nil {
		t.Fatal(err)
	}
	return "/" + root + "/" + repo + "/" + string(k) + "/", p
}

func TestNoTwoRepositoriesOrKindsShareAStoragePrefixAndNoPathEscapes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		repo1 := repositories.Draw(t, "repository")
		repo2 := rapid.OneOf(repositories, rapid.Just(repo1), rapid.Map(repositories, func(r string) string { return repo1 + "/" + r }),
			rapid.Map(repositories, func(r string) string { return repo1 + r })).Draw(t, "other repository")
		kind1, kind2 := rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.SampledFrom(kinds).Draw(t, "other kind")
		prefix1, path1 := place(t, repo1, kind1)
		prefix2, path2 := place(t, repo2, kind2)
		for _, p := range []string{path1, path2} {
			if !storagedriver.PathRegexp.MatchString(p) {
				t.Fatalf("no driver accepts %s", p)
			}
			if path.Clean(p) != p {
				t.Fatalf("%s is not canonical", p)
			}
		}
		if !strings.HasPrefix(path1, prefix1) || !strings.HasPrefix(path2, prefix2) {
			t.Fatalf("%s or %s escapes from %s or %s", path1, path2, prefix1, prefix2)
		}
		same := repo1 == repo2 && kind1 == kind2
		if !same && (strings.HasPrefix(path1, prefix2) || strings.HasPrefix(path2, prefix1)) {
			t.Fatalf("(%s, %s) and (%s, %s) share a prefix: %s and %s", repo1, kind1, repo2, kind2, path1, path2)
		}
		if repo1 != repo2 && (strings.HasPrefix(path1, path2+"/") || path1 == path2) {
			t.Fatalf("%s of %s is below %s of %s", path1, repo1, path2, repo2)
		}
	})
}

// The proof for held things: there is a way back, so the way there is injective.
func TestAPathSaysWhatItHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		generation := days.Draw(t, "generation")
		want, err := newObject(repositories.Draw(t, "repository"), rapid.SampledFrom(kinds[:3]).Draw(t, "kind"), digests.Draw(t, "digest"))
		if err != nil {
			t.Fatal(err)
		}
		g, got, ok := parseHeld(want.in(generation))
		if !ok || g != generation || got != want {
			t.Fatalf("%s is read as %v %s %v", want.in(generation), ok, g, got)
		}
	})
}

func TestPathsThatHoldNothing(t *testing.T) {
	hex := strings.Repeat("a", 64)
	for name, p := range map[string]string{
		"a temporary file of the filesystem driver": "/quarantine/2026-11-20/app/_manifests/sha256/" + hex + ".01a1fa84.tmp",
		"a part":                               "/quarantine/2026-11-20/app/_parts/id/0",
		"an upload that is called like a kind": "/quarantine/2026-11-20/app/_parts/_manifests/sha256/" + hex,
		"something staged":                     "/quarantine/2026-11-20/app/_staging/" + hex,
		"no repository":                        "/quarantine/2026-11-20/_manifests/sha256/" + hex,
		"no generation":                        "/quarantine/app/_manifests/sha256/" + hex,
		"an impossible day":                    "/quarantine/2026-02-30/app/_manifests/sha256/" + hex,
		"another root":                         "/attestations/2026-11-20/app/_manifests/sha256/" + hex,
		"another digest":                       "/quarantine/2026-11-20/app/_manifests/md5/" + hex,
	} {
		if g, o, ok := parseHeld(p); ok {
			t.Errorf("%s is read as %s in %s", name, o, g)
		}
	}
}

func TestNamesOutsideTheGrammarAreRefusedBeforeTheStorageIsAsked(t *testing.T) {
	good := sha([]byte("x"))
	s := &Store{storage: objects.Storage{}, retention: 2, now: newClock().now} // any call of the driver would panic
	ctx := t.Context()
	for _, repo := range []string{
		"", "/", "..", "../x", "a/../b", "a//b", "/a", "a/", "_a", "a/_blobs", ".a", "a.", "A", "a..b", "a/.b",
		"localhost:5000/a", "a b", "a\n", "ä", "a___b", strings.Repeat("a", 256),
	} {
		checkInvalid(t, fmt.Sprintf("repository %.40q", repo), map[string]error{
			"PutBlob":        s.PutBlob(ctx, repo, good, nil),
			"PutManifest":    s.PutManifest(ctx, repo, good, Manifest{}),
			"DeleteOriginal": s.DeleteOriginal(ctx, repo, good),
			"DropParts":      s.DropParts(ctx, "2026-11-20", repo, "id"),
			"PutAlias":       s.PutAlias(ctx, repo, Alias{Original: good, Forwarded: good}),
			"DeleteAliases":  s.DeleteAliases(ctx, repo, good),
			"PutTag":         s.PutTag(ctx, repo, "v1", good, good),
			"DeleteTag":      s.DeleteTag(ctx, repo, "v1"),
		})
	}
	for _, digest := range []string{
		"", "sha256", "sha256:", good[:70], good + "0", strings.ToUpper(good), "md5:" + good[7:], "sha512:" + good[7:],
		"sha256:" + strings.Repeat("../", 21) + "a", strings.Replace(good, ":", "/", 1), "sha256:" + strings.Repeat("g", 64),
	} {
		checkInvalid(t, fmt.Sprintf("digest %q", digest), map[string]error{
			"PutBlob":       s.PutBlob(ctx, "a", digest, nil),
			"PutManifest":   s.PutManifest(ctx, "a", digest, Manifest{}),
			"its blobs":     s.PutManifest(ctx, "a", sha(nil), Manifest{Blobs: []string{digest}}),
			"original":      s.PutAlias(ctx, "a", Alias{Original: digest, Forwarded: good}),
			"forwarded":     s.PutAlias(ctx, "a", Alias{Original: good, Forwarded: digest}),
			"tag forwarded": s.PutTag(ctx, "a", "v1", digest, good),
			"tag original":  s.PutTag(ctx, "a", "v1", good, digest),
		})
	}
	for _, tag := range []string{"", ".", "..", ".a", "-a", "a/b", "a:b", "a b", strings.Repeat("a", 129)} {
		checkInvalid(t, fmt.Sprintf("tag %q", tag), map[string]error{
			"PutTag": s.PutTag(ctx, "a", tag, good, good), "DeleteTag": s.DeleteTag(ctx, "a", tag),
		})
	}
	for _, id := range []string{"", ".", "..", "a/b", "a.b", strings.Repeat("a", 129)} {
		_, write := s.WritePart(ctx, "2026-11-20", "a", id, 0, nil, 0)
		checkInvalid(t, fmt.Sprintf("upload %q", id), map[string]error{"WritePart": write, "DropParts": s.DropParts(ctx, "2026-11-20", "a", id)})
	}
	for _, generation := range []string{"", "..", "2026-11-31", "2026-1-1", "20261120", "2026-11-20/a"} {
		_, write := s.WritePart(ctx, generation, "a", "id", 0, nil, 0)
		_, assemble := s.Assemble(ctx, generation, "a", "id", 0, good)
		checkInvalid(t, fmt.Sprintf("generation %q", generation), map[string]error{"WritePart": write, "Assemble": assemble})
	}
	_, negative := s.WritePart(ctx, "2026-11-20", "a", "id", -1, nil, 0)
	_, many := s.Assemble(ctx, "2026-11-20", "a", "id", MaxParts+1, good)
	checkInvalid(t, "number", map[string]error{"WritePart": negative, "Assemble": many})
	for _, mediaType := range []string{"a\nb", "a\tb", "a\x00", strings.Repeat("a", 256)} {
		checkInvalid(t, "media type", map[string]error{"PutManifest": s.PutManifest(ctx, "a", sha(nil), Manifest{MediaType: mediaType})})
	}
}

func checkInvalid(t *testing.T, what string, errs map[string]error) {
	t.Helper()
	for name, err := range errs {
		if err == nil || !strings.Contains(err.Error(), ErrInvalid.Error()) {
			t.Errorf("%s: %s gave %v, want ErrInvalid", what, name, err)
		}
	}
}

func TestNamesAtTheEdgeOfTheGrammarAreStored(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		long := strings.Repeat("a", objects.MaxRepository)
		for _, repo := range []string{"a", "0", "a.b", "a_b", "a__b", "a---b", "a/blobs", "quarantine", "aliases/x", "2026-11-20", long} {
			b := []byte(repo)
			must(t, s.PutBlob(t.Context(), repo, sha(b), b))
			must(t, s.PutAlias(t.Context(), repo, Alias{Original: sha512d(b), Forwarded: sha512d(b)}))
			must(t, s.PutManifest(t.Context(), repo, sha512d(b), Manifest{Bytes: b}))
			if got := readBlob(t, s, repo, sha(b)); string(got) != repo {
				t.Errorf("%s reads %s", repo, got)
			}
		}
		for _, tag := range []string{"_x", "_tags", "__", "a.", "a..b", "1.0.0_x-y", strings.Repeat("a", 128)} {
			must(t, s.PutTag(t.Context(), "a", tag, sha([]byte(tag)), sha([]byte(tag))))
		}
		for _, id := range []string{"_x", "-", "_parts"} {
			writeParts(t, s, s.Generation(), "a", id, []byte("x"))
		}
		names := objectstest.Paths(t, d, "/")
		slices.Sort(names)
		if len(slices.Compact(names)) != len(objectstest.Paths(t, d, "/")) {
			t.Error("two things share a path")
		}
	})
}
