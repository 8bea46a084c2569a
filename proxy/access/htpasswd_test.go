package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

func line(t *testing.T, user, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(h) + "\n"
}

func write(t *testing.T, path, text string) {
	t.Helper()
	// As editors and secret mounts do: another file takes the name.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestHtpasswdLetsInWhoKnowsThePassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	// $2y$ is what Apache's htpasswd -B writes.
	write(t, path, "# users\n\n"+line(t, "bob", "secret")+strings.Replace(line(t, "ann", "p:w"), "$2a$", "$2y$", 1)+line(t, "nopass", ""))
	a := mustNew(t, Options{Mode: Htpasswd, Htpasswd: path})
	for _, tt := range []struct {
		name, authorization, want string
	}{
		{"the right password", basicAuth("bob", "secret"), "bob"},
		{"and again, from memory", basicAuth("bob", "secret"), "bob"},
		{"a password with a colon and a $2y$ hash", basicAuth("ann", "p:w"), "ann"},
		{"the wrong password", basicAuth("bob", "p:w"), ""},
		{"no password", basicAuth("bob", ""), ""},
		{"an empty password that is right", basicAuth("nopass", ""), "nopass"},
		{"nobody's password", basicAuth("eve", "secret"), ""},
		{"no user", basicAuth("", "secret"), ""},
		{"a comment is no user", basicAuth("# users", ""), ""},
		{"no credentials", "", ""},
		{"another scheme", "Bearer x", ""},
		{"not base64", "Basic %%%", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := a.Authenticate(request(tt.authorization))
			if tt.want == "" && !errors.Is(err, ErrUnauthenticated) {
				t.Errorf("got %+v, %v", id, err)
			}
			if tt.want != "" && (err != nil || id.Name != tt.want || id.Key == "" || id.Key == id.Name) {
				t.Errorf("got %+v, %v", id, err)
			}
		})
	}
}

func TestAChangedFileCountsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, line(t, "bob", "old"))
	a := mustNew(t, Options{Mode: Htpasswd, Htpasswd: path})
	check := func(password string, want bool) {
		t.Helper()
		_, err := a.Authenticate(request(basicAuth("bob", password)))
		if (err == nil) != want {
			t.Errorf("%s: %v", password, err)
		}
	}
	check("old", true)
	first, _ := a.Authenticate(request(basicAuth("bob", "old")))

	write(t, path, line(t, "bob", "new"))
	check("old", false)
	check("new", true)
	second, _ := a.Authenticate(request(basicAuth("bob", "new")))
	if first.Key != second.Key {
		t.Error("a new password cuts off the user's running uploads")
	}

	// The same length, inode and time stamp, as an edit in place within the clock's grain.
	info, _ := os.Stat(path)
	if err := os.WriteFile(path, []byte(line(t, "bob", "neu")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	check("new", false)
	check("neu", true)

	write(t, path, line(t, "eve", "neu"))
	check("neu", false)
}

func TestAFileThatHasNotChangedIsNotReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, line(t, "bob", "x"))
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	p, err := openPasswords(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	read := p.readAt
	for range 3 {
		if err := p.verify(context.Background(), "192.0.2.1:1", "bob", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if p.readAt != read {
		t.Error("read again")
	}
	if len(p.verified) != 1 {
		t.Errorf("%d passwords remembered, want 1", len(p.verified))
	}
}

func TestAFileThatCannotBeReadLetsNobodyIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	good := line(t, "bob", "x")
	write(t, path, good)
	a := mustNew(t, Options{Mode: Htpasswd, Htpasswd: path})
	check := func(name string, want func(error) bool) {
		t.Helper()
		if _, err := a.Authenticate(request(basicAuth("bob", "x"))); !want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	trouble := func(err error) bool { return err != nil && !errors.Is(err, ErrUnauthenticated) }
	fine := func(err error) bool { return err == nil }
	check("at first", fine)
	write(t, path, good+"garbage\n")
	check("with a broken line", trouble)
	write(t, path, good)
	check("repaired", fine)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	check("removed", trouble)
	write(t, path, good)
	check("back", fine)
}

func TestABadFileIsAnErrorAtStartThatHidesItsLines(t *testing.T) {
	for name, text := range map[string]string{
		"plain text":     "bob:hunter2\n",
		"apr1":           "bob:$apr1$hunter2$hunter2hunter2\n",
		"no colon":       "hunter2\n",
		"no user":        line(t, "", "hunter2"),
		"the user twice": line(t, "bob", "hunter2") + line(t, "bob", "hunter2"),
	} {
		path := filepath.Join(t.TempDir(), "users")
		write(t, path, text)
		_, err := New(Options{Mode: Htpasswd, Htpasswd: path})
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{Mode: Htpasswd, Htpasswd: "/nonexistent"}); err == nil {
		t.Error("accepted a missing file")
	}
}

func TestAnEmptyFileLetsNobodyIn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, "")
	a := mustNew(t, Options{Mode: Htpasswd, Htpasswd: path})
	if _, err := a.Authenticate(request(basicAuth("", ""))); !errors.Is(err, ErrUnauthenticated) {
		t.Error(err)
	}
	if _, err := bcrypt.Cost(nobody); err != nil {
		t.Errorf("the stand-in is no hash, so that its comparison takes no time: %v", err)
	}
}

func TestManyRequestsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, line(t, "bob", "x"))
	a := mustNew(t, Options{Mode: Htpasswd, Htpasswd: path})
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			password := "x"
			if i%4 == 0 {
				password = fmt.Sprint("wrong", i%8)
			}
			_, err := a.Authenticate(request(basicAuth("bob", password)))
			if (err == nil) != (password == "x") {
				t.Errorf("%s: %v", password, err)
			}
		})
	}
	wg.Wait()
	if n := len(a.mode.(*passwords).running); n != 0 {
		t.Errorf("%d comparisons still marked as running", n)
	}
	if n := len(a.mode.(*passwords).verified); n != 1 {
		t.Errorf("%d passwords remembered, want the right one only", n)
	}
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users")
	write(t, path, line(t, "bob", "x"))
	a := mustNew(t, Options{Mode: Htpasswd, Htpasswd: path})
	for i := range maxVerified {
		a.mode.(*passwords).verified[[32]byte{byte(i), byte(i >> 8), 1}] = struct{}{}
	}
	if _, err := a.Authenticate(request(basicAuth("bob", "x"))); err != nil {
		t.Fatal(err)
	}
	if n := len(a.mode.(*passwords).verified); n != 1 {
		t.Errorf("%d remembered", n)
	}
}

func TestAFileWithoutUsersIsWarnedOf(t *testing.T) {
	for content, want := range map[string]bool{"": true, "# nobody yet\n": true, line(t, "ann", "secret"): false} {
		path := filepath.Join(t.TempDir(), "users")
		write(t, path, content)
		var log strings.Builder
		if _, err := New(Options{Mode: Htpasswd, Htpasswd: path, Logger: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), "no users") && strings.Contains(log.String(), path); got != want {
			t.Errorf("%q is warned of: %t, want %t: %s", content, got, want, &log)
		}
	}
}
