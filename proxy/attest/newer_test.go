package attest

import (
	"strings"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

// During a rollout, and after one that was taken back, a newer program has written here too. What it says more than this one
// knows is left alone, and what belongs to that is kept.

func TestWhatANewerProgramNamesInARecordIsKeptAsLongAsTheRecord(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		r := record("statement")
		must(t, store(t.Context(), s, "app", r, "statement", "about the statement", "about all", "about nothing"))
		places, err := r.places("app")
		must(t, err)
		newer := func(b string) string {
			b = strings.Replace(b, `"predicateType":`, `"log":{"entry":"`+sha("about the statement")+`"},"predicateType":`, 1)
			return `{"bundles":["` + sha("about all") + `"],` + b[1:]
		}
		for _, p := range places {
			b, err := d.GetContent(t.Context(), p)
			must(t, err)
			must(t, d.PutContent(t.Context(), p, []byte(newer(string(b)))))
		}
		want, err := d.GetContent(t.Context(), places[0])
		must(t, err)

		// What is read and written again, as an expiry does that a push crosses, says the same.
		read, err := s.ByTag(t.Context(), "app", "v1")
		if err != nil || len(read) != 1 || read[0].Attestation != r.Attestation {
			t.Fatalf("%v, %v", read, err)
		}
		must(t, s.PutRecord(t.Context(), "app", read[0]))
		if b, err := d.GetContent(t.Context(), places[0]); err != nil || string(b) != string(want) {
			t.Errorf("written again it is %s, %v, and was %s", b, err, want)
		}

		left := func(bodies ...string) {
			t.Helper()
			for _, body := range []string{"statement", "about the statement", "about all", "about nothing"} {
				p, err := digestPath("app", blobKind, sha(body))
				must(t, err)
				if _, err := d.Stat(t.Context(), p); (err == nil) != strings.Contains(strings.Join(bodies, ","), body) {
					t.Errorf("%q: %v", body, err)
				}
			}
		}
		for days := 10; days < 16; days += 2 {
			sweepAfter(t, d, days, nil)
		}
		left("statement", "about the statement", "about all")
		if n, err := storeAfter(d, 20).Expire(t.Context(), start.Add(day)); n != 1 || err != nil {
			t.Errorf("%d expire, %v", n, err)
		}
		for days := 20; days < 26; days += 2 {
			sweepAfter(t, d, days, nil)
		}
		left()
	})
}

func TestASweepLeavesKindsOfObjectsAloneThatANewerProgramHas(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s, hex := newStore(d), strings.TrimPrefix(sha("x"), "sha256:")
		must(t, s.PutBlob(t.Context(), "app", sha("x"), strings.NewReader("x"), 1)) // which goes
		today := start.Format(dayFormat)
		strange := []string{
			"/attestations/app/_bundles/sha256/" + hex,
			"/attestations/app/_bundles/" + today + "/x.tmp",
			"/attestations/app/_aside/" + today + "/bundles/sha256/" + hex,
			"/attestations/app/_aside/" + today + "/bundles/" + hex,
			"/attestations/_index/" + hex,
			"/logs/" + hex,
		}
		for _, p := range strange {
			must(t, d.PutContent(t.Context(), p, []byte("x")))
		}
		must(t, d.PutContent(t.Context(), "/attestations/app/_aside/"+today+"/blobs/sha256/"+hex, []byte("x")))
		if n, err := storeAfter(d, 9).Expire(t.Context(), start.Add(9*day)); n != 0 || err != nil {
			t.Errorf("%d expire, %v", n, err)
		}
		for days := 10; days < 16; days += 2 {
			sweepAfter(t, d, days, nil)
		}
		for _, p := range strange {
			if _, err := d.Stat(t.Context(), p); err != nil {
				t.Error(err)
			}
		}
		if got := objectstest.Paths(t, d, "/attestations/app/_blobs"); len(got) > 0 {
			t.Errorf("left: %v", got)
		}
	})
}

func TestWhatANewerProgramSaysBesideAMediaTypeIsLeftThere(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		const packed = "x/y\tof a newer program\nbody"
		p, err := digestPath("app", documentKind, sha("body"))
		must(t, err)
		must(t, d.PutContent(t.Context(), p, []byte(packed)))
		s := storeAfter(d, 10)
		must(t, s.StatDocument(t.Context(), "app", sha("body"))) // it is old, and written again
		if mediaType, b, err := s.Document(t.Context(), "app", sha("body")); err != nil || mediaType != "x/y" || string(b) != "body" {
			t.Errorf("%q, %s, %v", mediaType, b, err)
		}
		if b, err := d.GetContent(t.Context(), p); err != nil || string(b) != packed {
			t.Errorf("it is %q now, %v", b, err)
		}
	})
}
