package quarantine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

// During a rollout, and after one that was taken back, a newer program has written here too.
func TestWhatANewerProgramSaysMoreIsLeftAlone(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		blob, body := content("blob", 100), content("manifest", 100)
		must(t, s.PutBlob(t.Context(), "app", sha(blob), blob))
		must(t, s.PutManifest(t.Context(), "app", sha(body), Manifest{MediaType: "x/y", Bytes: body, Blobs: []string{sha(blob)}}))
		o, err := newObject("app", manifestKind, sha(body))
		must(t, err)
		packed := fmt.Sprintf("x/y\t%s\tof=a newer program\n%s", sha(blob), body)
		must(t, d.PutContent(t.Context(), o.in(c.day(0)), []byte(packed)))
		must(t, s.PutAlias(t.Context(), "app", Alias{Original: sha(body), Forwarded: sha(blob), Action: "strip"}))
		folder, err := aliasFolder("app", sha(body))
		must(t, err)
		alias := folder + "/" + strings.Replace(sha(blob), ":", "-", 1)
		b, err := d.GetContent(t.Context(), alias)
		must(t, err)
		must(t, d.PutContent(t.Context(), alias, []byte(strings.Replace(string(b), `"strip"`, `"seal","sealed":{"by":["a"]}`, 1))))

		c.shift(2) // its last day: whoever relies on it has it copied
		must(t, s.StatManifest(t.Context(), "app", sha(body)))
		m, err := s.Manifest(t.Context(), "app", sha(body))
		if err != nil || m.MediaType != "x/y" || !slices.Equal(m.Blobs, []string{sha(blob)}) {
			t.Errorf("%+v, %v", m, err)
		}
		if b, err := d.GetContent(t.Context(), o.in(c.day(0))); err != nil || string(b) != packed {
			t.Errorf("the copy is %q, %v", b, err)
		}
		if a, err := s.Aliases(t.Context(), "app", sha(body)); err != nil || len(a) != 1 || a[0].Forwarded != sha(blob) || a[0].Action != "seal" {
			t.Errorf("%+v, %v", a, err)
		}
		must(t, d.PutContent(t.Context(), "/keys/next", []byte("x")))
		if keys, err := s.SealKeys(t.Context()); err != nil || len(keys) != 1 {
			t.Errorf("%d keys, %v", len(keys), err)
		}
	})
}
