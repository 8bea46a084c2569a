package session

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzOpen: no token opens but those that were sealed, for whom they were sealed.
func FuzzOpen(f *testing.F) {
	s := newSealer(f, &clock{start}, testKey(1), testKey(2))
	s.random = rand.NewChaCha8([32]byte([]byte(strings.Repeat("seed", 8)))) // fuzzing runs in several processes
	sealed := map[string]State{}
	for _, change := range []func(*State){
		func(*State) {},
		func(st *State) { *st = State{Repository: "a"} },
		func(st *State) { st.Mode, st.Location = Held, "" },
		func(st *State) { st.Repository, st.Identity = "team/app/ci", "" },
	} {
		st := full()
		change(&st)
		token := mustSeal(f, s, st)
		sealed[token] = st
		f.Add(token, st.Repository, st.Identity)
		f.Add(token[:len(token)-1], st.Repository, st.Identity)
		f.Add(token+"A", st.Repository, st.Identity)
		f.Add(token, st.Repository+"/", st.Identity)
		f.Add(strings.ToLower(token), st.Repository, st.Identity)
	}
	f.Add("", "", "")
	f.Add("AQ", "team/app", "ci")

	f.Fuzz(func(t *testing.T, token, repository, identity string) {
		got, err := s.Open(token, repository, identity)
		st, ours := sealed[token]
		if ours && st.Repository == repository && st.Identity == identity {
			if err != nil {
				t.Fatalf("a genuine token was refused: %v", err)
			}
			return
		}
		if err == nil {
			t.Fatalf("token %q opened for %q and %q: %+v", token, repository, identity, got)
		}
		if !errors.Is(err, ErrForged) {
			t.Fatalf("got %v, want ErrForged", err)
		}
	})
}
