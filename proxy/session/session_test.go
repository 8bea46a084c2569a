package session

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var start = time.Date(2026, 11, 20, 23, 59, 0, 0, time.UTC)

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func testKey(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

func newSealer(t testing.TB, c *clock, keys ...[]byte) *Sealer {
	t.Helper()
	s, err := New(keys, time.Hour, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func full() State {
	return State{
		Repository: "team/app",
		Identity:   "ci",
		ID:         "k3JxP0m9Q2aZr8sT1uVw4A",
		Mode:       Upstream,
		Location:   "https://registry.example/v2/team/app/blobs/uploads/" + strings.Repeat("x", 349),
		Offset:     1 << 40,
		Peeked:     bytes.Repeat([]byte{0x1f}, 64),
		Parts:      9999,
		Generation: "2026-11-20",
		Started:    start.Add(-time.Minute),
	}
}

func mustSeal(t testing.TB, s *Sealer, st State) string {
	t.Helper()
	token, err := s.Seal(st)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestEveryFieldSurvivesAndTheTokenIsShort(t *testing.T) {
	s := newSealer(t, &clock{start}, testKey(1))
	want := full()
	if len(want.Location) != 400 {
		t.Fatalf("the location has %d characters, the test is about 400", len(want.Location))
	}
	token := mustSeal(t, s, want)
	if len(token) >= 900 {
		t.Errorf("the token has %d characters, want fewer than 900", len(token))
	}
	if !regexp.MustCompile(`^[A-Za-z0-9_-]+$`).MatchString(token) {
		t.Errorf("token %q does not fit into a path segment as it is", token)
	}
	got, err := s.Open(token, want.Repository, want.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestATokenShowsNothingOfWhatItCarries(t *testing.T) {
	s := newSealer(t, &clock{start}, testKey(1))
	a, b := mustSeal(t, s, full()), mustSeal(t, s, full())
	if a == b {
		t.Error("two seals of the same state are equal: the nonce is not fresh")
	}
	raw, err := base64.RawURLEncoding.DecodeString(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"registry.example", "team/app", "k3JxP0m9"} {
		if bytes.Contains(raw, []byte(secret)) {
			t.Errorf("%q can be read in the token", secret)
		}
	}
}

func TestWhoMayOpenWhat(t *testing.T) {
	st := full()
	for _, c := range []struct {
		name       string
		seal, open [][]byte // keys; nil: the same single key
		repository string
		identity   string
		later      time.Duration
		alter      func(string) string
		want       error
	}{
		{name: "the same key, repository and identity open it"},
		{name: "just before it expires it opens", later: time.Hour - time.Millisecond},
		{name: "when its time is over it has expired", later: time.Hour, want: ErrExpired},
		{name: "another repository is refused", repository: "team/other", want: ErrForged},
		{name: "another identity is refused", identity: "somebody", want: ErrForged},
		{name: "no identity is refused", identity: "-", want: ErrForged},
		{name: "moving the border between repository and identity is refused", repository: "team/appc", identity: "i", want: ErrForged},
		{name: "an expired token of another repository is forged, not expired", repository: "x", later: 2 * time.Hour, want: ErrForged},
		{name: "an unknown key is told apart", open: [][]byte{testKey(2)}, want: ErrUnknownKey},
		{name: "an unknown key is forged", open: [][]byte{testKey(2)}, want: ErrForged},
		{name: "a key that was moved behind a new one still opens", open: [][]byte{testKey(2), testKey(1)}},
		{name: "the first key seals", seal: [][]byte{testKey(2), testKey(1)}, open: [][]byte{testKey(2)}},
		{name: "the second key does not seal", seal: [][]byte{testKey(2), testKey(1)}, open: [][]byte{testKey(1)}, want: ErrUnknownKey},
		{name: "the empty token is refused", alter: func(string) string { return "" }, want: ErrForged},
		{name: "a shortened token is refused", alter: func(s string) string { return s[:len(s)-4] }, want: ErrForged},
		{name: "a lengthened token is refused", alter: func(s string) string { return s + "AAAA" }, want: ErrForged},
		{name: "a line break is refused", alter: func(s string) string { return s[:9] + "\n" + s[9:] }, want: ErrForged},
		{name: "a carriage return is refused", alter: func(s string) string { return s[:9] + "\r" + s[9:] }, want: ErrForged},
		{name: "padding is refused", alter: func(s string) string { return s + "=" }, want: ErrForged},
		{name: "a token of another version is refused", alter: func(s string) string { return "Ag" + s[2:] }, want: ErrForged},
		{name: "an endless token is refused", alter: func(s string) string { return strings.Repeat("A", 1<<20) }, want: ErrForged},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.seal == nil {
				c.seal = [][]byte{testKey(1)}
			}
			known := c.open == nil
			if known {
				c.open = c.seal
			}
			if c.repository == "" {
				c.repository = st.Repository
			}
			switch c.identity {
			case "":
				c.identity = st.Identity
			case "-":
				c.identity = ""
			}
			token := mustSeal(t, newSealer(t, &clock{start}, c.seal...), st)
			if c.alter != nil {
				token = c.alter(token)
			}
			got, err := newSealer(t, &clock{start.Add(c.later)}, c.open...).Open(token, c.repository, c.identity)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if known && errors.Is(err, ErrUnknownKey) {
				t.Error("a token of a known key would have the keys looked for in the storage")
			}
			if err != nil && token != "" && strings.Contains(err.Error(), token) {
				t.Errorf("the error shows the token: %v", err)
			}
			if err != nil && !cmp.Equal(got, State{}) {
				t.Errorf("a refused token still gave %+v", got)
			}
		})
	}
}

func TestEveryAlteredCharacterIsRefused(t *testing.T) {
	s := newSealer(t, &clock{start}, testKey(1))
	st := full()
	for _, peeked := range []int{0, 1, 2} { // three lengths, so that the last character has 6, 4 and 2 used bits
		st.Peeked = make([]byte, peeked)
		token := mustSeal(t, s, st)
		for i := range len(token) {
			for _, r := range []byte("AB_9") {
				if token[i] == r {
					continue
				}
				altered := token[:i] + string(r) + token[i+1:]
				if _, err := s.Open(altered, st.Repository, st.Identity); !errors.Is(err, ErrForged) {
					t.Fatalf("with character %d changed to %c: got %v, want ErrForged", i, r, err)
				}
			}
		}
		last := token[len(token)-1]
		for r := byte(33); r < 127; r++ {
			if _, err := s.Open(token[:len(token)-1]+string(r), st.Repository, st.Identity); (err == nil) != (r == last) {
				t.Fatalf("last character %q instead of %q: %v", r, last, err)
			}
		}
	}
}

func TestAKeyThatAnotherReplicaMadeIsLearned(t *testing.T) {
	ours, theirs := newSealer(t, &clock{start}, testKey(1)), newSealer(t, &clock{start}, testKey(2))
	st := full()
	token := mustSeal(t, theirs, st)
	if _, err := ours.Open(token, st.Repository, st.Identity); !errors.Is(err, ErrUnknownKey) {
		t.Fatalf("got %v, want ErrUnknownKey", err)
	}
	if err := ours.Renew([][]byte{testKey(1), testKey(2)}); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.Open(token, st.Repository, st.Identity); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeSealedIsRefused(t *testing.T) {
	s := newSealer(t, &clock{start}, testKey(1))
	for name, change := range map[string]func(*State){
		"no repository":         func(st *State) { st.Repository = "" },
		"negative offset":       func(st *State) { st.Offset = -1 },
		"negative parts":        func(st *State) { st.Parts = -1 },
		"more waits than came":  func(st *State) { st.Pending = st.Offset + 1 },
		"less than nothing":     func(st *State) { st.Pending = -1 },
		"unknown mode":          func(st *State) { st.Mode = 3 },
		"location beyond a URL": func(st *State) { st.Location = strings.Repeat("x", 8<<10) },
	} {
		t.Run(name, func(t *testing.T) {
			st := full()
			change(&st)
			if token, err := s.Seal(st); err == nil {
				t.Errorf("sealed as %q", token)
			}
		})
	}
}

func TestBadKeysAreRefusedWithoutShowingThem(t *testing.T) {
	for name, keys := range map[string][][]byte{
		"none":      nil,
		"too short": {[]byte("secret-secret")},
		"second":    {testKey(1), []byte("secret-secret")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(keys, time.Hour, nil)
			if err == nil || strings.Contains(err.Error(), "secret-secret") {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := New([][]byte{testKey(1)}, 0, nil); err == nil {
		t.Error("a session that expires at once was accepted")
	}
}

func TestAnyStateComesBack(t *testing.T) {
	s := newSealer(t, &clock{start}, testKey(1))
	rapid.Check(t, func(t *rapid.T) {
		want := State{
			Repository: rapid.StringN(1, 64, -1).Draw(t, "repository"),
			Identity:   rapid.String().Draw(t, "identity"),
			ID:         rapid.String().Draw(t, "id"),
			Mode:       Mode(rapid.IntRange(0, 2).Draw(t, "mode")),
			Location:   rapid.String().Draw(t, "location"),
			Offset:     rapid.Int64Range(0, math.MaxInt64).Draw(t, "offset"),
			Peeked:     rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "peeked"),
			Parts:      rapid.IntRange(0, math.MaxInt).Draw(t, "parts"),
			Generation: rapid.String().Draw(t, "generation"),
			Started:    time.UnixMilli(rapid.Int64Range(0, 1<<50).Draw(t, "started")).UTC(),
		}
		want.Pending = rapid.Int64Range(0, want.Offset).Draw(t, "pending")
		token, err := s.Seal(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Open(token, want.Repository, want.Identity)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestTruncatedPlainTextIsAnErrorAndNoPanic(t *testing.T) {
	plain := encode(nil, full(), start)
	for n := range len(plain) {
		if _, _, err := decode(plain[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(plain))
		}
	}
	if _, _, err := decode(append(plain, 0)); err == nil {
		t.Error("a trailing byte was accepted")
	}
}

func TestNothingIsSealedWithoutRandomBytes(t *testing.T) {
	s := newSealer(t, &clock{start}, testKey(1))
	s.random = strings.NewReader("too few")
	if token, err := s.Seal(full()); err == nil || token != "" {
		t.Errorf("sealed as %q", token)
	}
}

// Another version may have sealed, with a key of ours, what this one would take for something that cannot be.
func TestAStateThatCannotBeIsNotOpened(t *testing.T) {
	for name, change := range map[string]func(*State){
		"unknown mode":         func(st *State) { st.Mode = Held + 1 },
		"negative offset":      func(st *State) { st.Offset = -1 },
		"negative parts":       func(st *State) { st.Parts = -1 },
		"more waits than came": func(st *State) { st.Pending = st.Offset + 1 },
	} {
		st := full()
		change(&st)
		if got, _, err := decode(encode(nil, st, start)); err == nil {
			t.Errorf("%s: opened as %+v", name, got)
		}
	}
	zero := binary.AppendUvarint(encode(nil, full(), start), 0)
	negative := binary.AppendUvarint(encode(nil, full(), start), math.MaxUint64)
	for _, plain := range [][]byte{zero, negative} {
		if _, _, err := decode(plain); err == nil {
			t.Error("pending bytes that are none were taken")
		}
	}
}

// Keys that are not known here are looked for in the storage: an endless token must not come that far.
func TestATokenThatIsTooLongIsRefusedBeforeItsKeyIsLookedFor(t *testing.T) {
	s, st := newSealer(t, &clock{start}, testKey(1)), full()
	theirs := mustSeal(t, newSealer(t, &clock{start}, testKey(2)), st)
	long := theirs + strings.Repeat("A", MaxToken+4-len(theirs)&^3)
	if _, err := s.Open(long, st.Repository, st.Identity); !errors.Is(err, ErrForged) || errors.Is(err, ErrUnknownKey) {
		t.Errorf("got %v", err)
	}
}

func TestOneSealerServesManyAtOnce(t *testing.T) {
	s := newSealer(t, &clock{start}, testKey(1), testKey(2))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				st := full()
				token, err := s.Seal(st)
				if err == nil {
					_, err = s.Open(token, st.Repository, st.Identity)
				}
				if err == nil {
					err = s.Renew([][]byte{testKey(2), testKey(1)})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkSeal(b *testing.B) {
	s := newSealer(b, &clock{start}, testKey(1))
	st := full()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Seal(st); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	s := newSealer(b, &clock{start}, testKey(1))
	st := full()
	token := mustSeal(b, s, st)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Open(token, st.Repository, st.Identity); err != nil {
			b.Fatal(err)
		}
	}
}
