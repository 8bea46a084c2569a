package reread

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// replace gives the name to another file, as editors and Kubernetes' secret mounts do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func joined(contents [][]byte) (string, error) {
	if s := string(bytes.Join(contents, []byte("+"))); !strings.Contains(s, "bad") {
		return s, nil
	}
	return "", errors.New("cannot be parsed")
}

func TestAChangedFileIsReadAgainAndABadOneKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	replace(t, a, "one")
	replace(t, b, "two")
	var log bytes.Buffer
	f, err := Open(slog.New(slog.NewTextHandler(&log, nil)), joined, a, b)
	if err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		if got := f.Get(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	is("one+two")
	replace(t, b, "three")
	is("one+three")
	replace(t, a, "bad")
	is("one+three")
	is("one+three")
	if n := strings.Count(log.String(), "cannot be used"); n != 1 {
		t.Errorf("the bad file is reported %d times: %s", n, log.String())
	}
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	is("one+three")
	replace(t, a, strings.Repeat("x", maxFile+1))
	is("one+three")
	replace(t, a, "four")
	is("four+three")
	// The same length and stamp, as an edit in place within the clock's grain.
	info, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a, []byte("five"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(a, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	is("five+three")
}

func TestAnOldFileIsReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	replace(t, path, "one")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	reads := 0
	f, err := Open(nil, func(c [][]byte) (string, error) { reads++; return joined(c) }, path)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f.Get()
	}
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
}

func TestTheFirstReadMustSucceed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if _, err := Open(nil, joined, path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	replace(t, path, "bad")
	if _, err := Open(nil, joined, path); err == nil {
		t.Error("a bad file was accepted")
	}
}
