package quarantine

import (
	"slices"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

// Everything that is held can be seen, in every generation, and nothing else: no record, and no write that has not ended.
func TestEachSeesWhatIsHeld(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		seen := func() (found []Held) {
			t.Helper()
			must(t, s.Each(t.Context(), func(h Held) { found = append(found, h) }))
			slices.SortFunc(found, func(a, b Held) int { return slices.Compare(a.list(), b.list()) })
			return found
		}
		if found := seen(); len(found) > 0 {
			t.Errorf("in an empty storage: %v", found)
		}
		yesterday := s.Generation()
		blob := content("blob", 100)
		must(t, s.PutBlob(t.Context(), "team/app", sha(blob), blob))
		writeParts(t, s, yesterday, "team/app", "upload", content("a", 10), content("b", 10))
		c.shift(1)
		today := s.Generation()
		manifest, original := []byte(`{"manifest":1}`), []byte(`{"original":1}`)
		must(t, s.PutManifest(t.Context(), "app", sha(manifest), Manifest{MediaType: "a/b", Bytes: manifest}))
		must(t, s.PutOriginal(t.Context(), "app", sha(original), Manifest{MediaType: "a/b", Bytes: original}))
		must(t, s.PutAlias(t.Context(), "app", Alias{Original: sha(original), Forwarded: sha(manifest)}))
		must(t, d.PutContent(t.Context(), stagingPath(today, "app"), []byte("half")))
		must(t, d.PutContent(t.Context(), below(quarantineRoot+"/"+yesterday, "team/app", partKind, "upload/2-HALF"), []byte("half")))
		want := []Held{
			{yesterday, "blob", "team/app", sha(blob)},
			{yesterday, "part", "team/app", "upload/0"},
			{yesterday, "part", "team/app", "upload/1"},
			{today, "manifest", "app", sha(manifest)},
			{today, "original", "app", sha(original)},
		}
		if found := seen(); !slices.Equal(found, want) {
			t.Errorf("seen %v, want %v", found, want)
		}
	})
}

func (h Held) list() []string { return []string{h.Generation, h.Kind, h.Repository, h.ID} }
