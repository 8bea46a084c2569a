package quarantine

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/google/go-cmp/cmp"

	"sluice/proxy/internal/objects/objectstest"
)

func TestAliasesAreListedNewestFirstAndThenByDigest(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		s := newStore(t, d, c)
		at := time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)
		original := sha([]byte("original"))
		alias := func(forwarded string, at time.Time) Alias {
			return Alias{
				Original: original, OriginalMediaType: "x/index", Forwarded: forwarded, ForwardedMediaType: "x/manifest",
				ForwardedSize: 480, Action: "store", Unwrap: "auto", Rule: "team/**", At: at,
			}
		}
		same := []string{"sha256:" + strings.Repeat("1", 64), "sha256:" + strings.Repeat("2", 64), "sha512:" + strings.Repeat("0", 128)}
		newest := alias("sha256:"+strings.Repeat("f", 64), at.Add(time.Nanosecond))
		want := []Alias{newest, alias(same[0], at), alias(same[1], at), alias(same[2], at)}
		for _, i := range []int{2, 0, 3, 1} {
			must(t, s.PutAlias(t.Context(), "app", want[i]))
		}
		must(t, s.PutAlias(t.Context(), "app/x", want[0])) // another repository
		got, err := s.Aliases(t.Context(), "app", original)
		must(t, err)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		c.shift(10000)
		if _, err := s.Sweep(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Aliases(t.Context(), "app", original); err != nil || len(got) != len(want) {
			t.Errorf("aliases are kept for good: %d are left, %v", len(got), err)
		}
		again := want[1]
		again.At = at.Add(time.Hour)
		must(t, s.PutAlias(t.Context(), "app", again))
		if got, err := s.Aliases(t.Context(), "app", original); err != nil || len(got) != 4 || !cmp.Equal(got[0], again) {
			t.Errorf("the same pair again takes the place of the first: %v, %v", got, err)
		}
		must(t, s.DeleteAliases(t.Context(), "app", original))
		must(t, s.DeleteAliases(t.Context(), "app", original))
		if got, err := s.Aliases(t.Context(), "app", original); err != nil || len(got) > 0 {
			t.Errorf("deleted: %v, %v", got, err)
		}
		if got, err := s.Aliases(t.Context(), "app/x", original); err != nil || len(got) != 1 {
			t.Errorf("another repository's: %v, %v", got, err)
		}
	})
}

func TestAMalformedRecordIsAnErrorThatNamesItsPath(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		a, b := sha([]byte("a")), sha([]byte("b"))
		must(t, s.PutAlias(t.Context(), "app", Alias{Original: a, Forwarded: b}))
		must(t, s.PutTag(t.Context(), "app", "v1", b, a))
		for _, p := range objectstest.Paths(t, d, "/aliases") {
			for _, damage := range []string{
				"", "{", "null", "[]", `{"original":1}`, `{"original":"x","forwarded":"y"}`,
				`{"tag":"v1","original":"../../x","forwarded":"` + b + `"}`,
			} {
				must(t, d.PutContent(t.Context(), p, []byte(damage)))
				var err error
				if strings.Contains(p, "_tags") {
					_, err = s.TagOriginal(t.Context(), "app", "v1", b)
					if errors.Is(err, ErrNotFound) && (damage == "null" || strings.HasPrefix(damage, `{"original"`)) {
						continue // it is not about this tag
					}
				} else {
					_, err = s.Aliases(t.Context(), "app", a)
				}
				if err == nil || !strings.Contains(err.Error(), p) || !errors.Is(err, ErrStorage) {
					t.Errorf("%s with %q: got %v", p, damage, err)
				}
			}
		}
	})
}

func TestWhatADriverLeftBehindIsNoRecord(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		a, b := sha([]byte("a")), sha([]byte("b"))
		must(t, s.PutAlias(t.Context(), "app", Alias{Original: a, Forwarded: b}))
		_, err := s.SealKeys(t.Context())
		must(t, err)
		for _, p := range append(objectstest.Paths(t, d, "/aliases"), objectstest.Paths(t, d, "/keys")...) {
			must(t, d.PutContent(t.Context(), p+".01a1fa84-f3ab-735f-9bfb-260e731f0fe2.tmp", []byte("half")))
		}
		if got, err := s.Aliases(t.Context(), "app", a); err != nil || len(got) != 1 {
			t.Errorf("aliases: %v, %v", got, err)
		}
		if got, err := s.SealKeys(t.Context()); err != nil || len(got) != 1 {
			t.Errorf("keys: %d, %v", len(got), err)
		}
	})
}

func TestATagRemembersTheLastOriginalOfWhatUpstreamHas(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		f1, f2, o1, o2 := sha([]byte("f1")), sha512d([]byte("f2")), sha([]byte("o1")), sha([]byte("o2"))
		must(t, s.PutTag(t.Context(), "app", "v1", f1, o2))
		must(t, s.PutTag(t.Context(), "app", "v1", f1, o1))
		must(t, s.PutTag(t.Context(), "app", "v1", f2, o2))
		must(t, s.PutTag(t.Context(), "app", "V1.", f1, o2))
		for _, c := range []struct{ tag, forwarded, want string }{
			{"v1", f1, o1}, {"v1", f2, o2}, {"V1.", f1, o2}, {"v2", f1, ""}, {"v1", o1, ""},
		} {
			got, err := s.TagOriginal(t.Context(), "app", c.tag, c.forwarded)
			if got != c.want || (c.want == "") != errors.Is(err, ErrNotFound) {
				t.Errorf("tag %s at %s: got %q, %v, want %q", c.tag, c.forwarded, got, err, c.want)
			}
		}
		must(t, s.DeleteTag(t.Context(), "app", "v1"))
		if _, err := s.TagOriginal(t.Context(), "app", "v1", f1); !errors.Is(err, ErrNotFound) {
			t.Errorf("deleted: %v", err)
		}
		if _, err := s.TagOriginal(t.Context(), "app", "V1.", f1); err != nil {
			t.Errorf("another tag: %v", err)
		}
	})
}

func TestReplicasThatStartTogetherEndUpWithOneKey(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		c := newClock()
		var mu sync.Mutex
		var got [][][]byte
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				keys, err := newStore(t, d, c).SealKeys(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				got = append(got, keys)
			})
		}
		wg.Wait()
		s := newStore(t, d, c)
		all, err := s.SealKeys(t.Context())
		must(t, err)
		for _, keys := range got {
			if len(keys) == 0 {
				t.Error("a replica has no key to seal with")
			}
			for _, key := range keys {
				if len(key) != 32 || bytes.Count(bytes.Join(all, nil), key) != 1 {
					t.Error("a replica has a key that the others do not find")
				}
			}
		}
		again, err := s.SealKeys(t.Context())
		if err != nil || !bytes.Equal(bytes.Join(again, nil), bytes.Join(all, nil)) {
			t.Errorf("the keys change from call to call: %v", err)
		}
	})
}

func TestADamagedKeyIsAnErrorThatNamesItsPath(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(t, d, newClock())
		_, err := s.SealKeys(t.Context())
		must(t, err)
		p := objectstest.Paths(t, d, "/keys")[0]
		must(t, d.PutContent(t.Context(), p, []byte("short secret")))
		if _, err := s.SealKeys(t.Context()); err == nil || !strings.Contains(err.Error(), p) || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	})
}

func TestTheFormatIsMarkedAndANewerOneRefused(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		newStore(t, d, newClock())
		if b, err := d.GetContent(t.Context(), "/format"); err != nil || string(b) != "sluice 1\n" {
			t.Fatalf("the mark is %q, %v", b, err)
		}
		newStore(t, d, newClock()) // again
		for mark, want := range map[string]string{
			"sluice 2\n": "newer Sluice", "sluice 10": "newer Sluice", "sluice 0": "not Sluice's", "sluice": "not Sluice's",
			"": "not Sluice's", "zot 1\n": "not Sluice's", "sluice x": "not Sluice's",
		} {
			must(t, d.PutContent(t.Context(), "/format", []byte(mark)))
			if _, err := New(d, Options{}); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: got %v", mark, err)
			}
			if b, err := d.GetContent(t.Context(), "/format"); err != nil || string(b) != mark {
				t.Errorf("%q was overwritten with %q, %v", mark, b, err)
			}
		}
	})
}
