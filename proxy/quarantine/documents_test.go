package quarantine

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

func TestADocumentKeepsItsBytesAndItsMediaType(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		for name, want := range map[string]Manifest{
			"an index":                {MediaType: "application/vnd.oci.image.index.v1+json", Bytes: []byte(`{"schemaVersion":2}`)},
			"no media type":           {Bytes: []byte("{}")},
			"line feeds at both ends": {MediaType: "x/y", Bytes: []byte("\n\t{}\r\n\n")},
			"nothing":                 {MediaType: "x/y", Bytes: []byte{}},
			"4 MiB":                   {MediaType: "x/y", Bytes: bytes.Repeat([]byte("x"), 4<<20)},
			"with blobs":              {MediaType: "x/y", Bytes: []byte("b"), Blobs: []string{sha([]byte("1")), sha512d([]byte("2"))}},
		} {
			t.Run(name, func(t *testing.T) {
				digest := sha(want.Bytes)
				must(t, s.PutManifest(t.Context(), "app", digest, want))
				got, err := s.Manifest(t.Context(), "app", digest)
				must(t, err)
				if !equal(got, want) {
					t.Errorf("got %.200v, want %.200v", got, want)
				}
				if err := s.StatManifest(t.Context(), "app", digest); err != nil {
					t.Errorf("stat: %v", err)
				}
				if _, err := s.Original(t.Context(), "app", digest); !errors.Is(err, ErrNotFound) {
					t.Errorf("a manifest is no original, got %v", err)
				}
				must(t, s.PutOriginal(t.Context(), "app", sha512d(want.Bytes), want))
				if got, err = s.Original(t.Context(), "app", sha512d(want.Bytes)); err != nil || !equal(got, want) {
					t.Errorf("original: %v", err)
				}
			})
		}
	})
}

func TestADocumentIsRefusedUnderAnotherDigest(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		err := s.PutManifest(t.Context(), "app", sha([]byte("a")), Manifest{Bytes: []byte("b")})
		if !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), sha([]byte("a"))) || !strings.Contains(err.Error(), sha([]byte("b"))) {
			t.Errorf("got %v, want ErrDigest with both digests", err)
		}
	})
}

func TestADamagedDocumentIsNotFoundUntilItIsSentAgain(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		m := Manifest{MediaType: "x/y", Bytes: []byte("whole")}
		o, err := newObject("app", manifestKind, sha(m.Bytes))
		must(t, err)
		for name, b := range map[string]string{"cut": "x/y\nwhol", "empty": "", "altered": "x/y\nWhole"} {
			must(t, d.PutContent(t.Context(), o.in(s.Generation()), []byte(b)))
			_, err := s.Manifest(t.Context(), "app", sha(m.Bytes))
			if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%s: got %v, want ErrNotFound that says why", name, err)
			}
		}
		c.shift(-1) // another copy, in an older generation, does as well
		must(t, s.PutManifest(t.Context(), "app", sha(m.Bytes), m))
		c.shift(1)
		if got, err := s.Manifest(t.Context(), "app", sha(m.Bytes)); err != nil || !equal(got, m) {
			t.Errorf("got %v, %v", got, err)
		}
		must(t, s.PutManifest(t.Context(), "app", sha(m.Bytes), m))
		if b, err := d.GetContent(t.Context(), o.in(s.Generation())); err != nil || string(b) != "x/y\nwhole" {
			t.Errorf("sent again it is %q, %v", b, err)
		}
	})
}

// equal, since go-cmp takes seconds for megabytes.
func equal(a, b Manifest) bool {
	return a.MediaType == b.MediaType && bytes.Equal(a.Bytes, b.Bytes) && slices.Equal(a.Blobs, b.Blobs)
}
