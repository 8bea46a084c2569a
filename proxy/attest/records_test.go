package attest

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/google/go-cmp/cmp"

	"sluice/proxy/internal/objects/objectstest"
)

func TestRecordsAreFoundByImageOriginalAndTag(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
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
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		must(t, s.PutRecord(t.Context(), "app", record("x")))
		paths := objectstest.Paths(t, d, "/")
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
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
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
			{"app", "shared", true},
			{"app", "config", true},
			{"app", "of two", true},
			{"app", "of one", false},
			{"team/app", "shared", true},
			{"team/app", "of one", true},
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
		for _, p := range objectstest.Paths(t, d, "/") {
			if strings.HasPrefix(p, "/attestations/app/") && !strings.Contains(p, sha("index")[7:]) {
				t.Errorf("%s was left", p)
			}
		}
	})
}
