package access

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Whoever has not been let in yet waits for comparisons of passwords, which take long on purpose. A queue that
// everybody shares would be as long as somebody who guesses wants it to be.
func TestWhoGuessesPasswordsHoldsUpNobodyElse(t *testing.T) {
	for name, guess := range map[string]func(i int) (user, from string){
		"of users that there are not, from everywhere": func(i int) (string, string) { return fmt.Sprint("user", i), fmt.Sprintf("203.0.113.%d:1", i) },
		"of users that there are not, nearby":          func(i int) (string, string) { return fmt.Sprint("user", i), "192.0.2.1:1" },
		"of somebody else":                             func(int) (string, string) { return "bob", "203.0.113.9:1" },
		"of the same user, from elsewhere":             func(int) (string, string) { return "alice", "203.0.113.1:1" },
		"of the same user, from one network":           func(i int) (string, string) { return "alice", fmt.Sprintf("[2001:db8::%x]:1", i) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "users")
				write(t, path, line(t, "alice", "secret")+line(t, "bob", "secret"))
				p, err := openPasswords(path, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				clear(p.mac) // who shares a lane is chance, and here always the same
				p.slots = make(chan struct{}, 1)
				p.slots <- struct{}{} // until all are waiting
				var guesses atomic.Int64
				var all sync.WaitGroup
				for i := range 20 {
					user, from := guess(i)
					all.Go(func() {
						if p.verify(t.Context(), from, user, fmt.Sprint("guess", i)) == nil {
							t.Error("a guess was right")
						}
						guesses.Add(1)
					})
				}
				synctest.Wait()
				all.Go(func() {
					if err := p.verify(t.Context(), "192.0.2.1:2", "alice", "secret"); err != nil {
						t.Error(err)
					}
					if n := guesses.Load(); n > 2 {
						t.Errorf("%d guesses came before a user", n)
					}
				})
				synctest.Wait()
				<-p.slots
				all.Wait()
			})
		})
	}
}
