package main

import (
	"bytes"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDataFolderIsForItsOwnerOnly(t *testing.T) {
	mark := func(text string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "format"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	owner := func(t *testing.T, dir string) {
		if os.Geteuid() != 0 {
			t.Skip("only root can give a folder away")
		}
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		mode   fs.FileMode // 0: there is none
		before func(*testing.T, string)
		want   fs.FileMode
		level  string // of the log line
		says   string
	}{
		{"a new one is made so", 0, nil, 0o700, "", ""},
		{"a private one stays", 0o700, mark("other"), 0o700, "", ""},
		{"an empty one is closed", 0o755, nil, 0o700, "INFO", "mode=0755"},
		{"Sluice's own is closed", 0o750, mark("sluice 1\n"), 0o700, "INFO", "mode=0750"},
		{"other bits stay", 0o775 | fs.ModeSetgid, nil, 0o700 | fs.ModeSetgid, "INFO", "mode=0775"},
		{"one with files of others is left alone", 0o755, mark("other"), 0o755, "WARN", "it holds files that are not Sluice's"},
		{"a shared one is left alone, though empty", 0o777 | fs.ModeSticky, nil, 0o777 | fs.ModeSticky, "WARN", "it is made to be shared"},
		{"another user's is left alone", 0o755, owner, 0o755, "WARN", "it belongs to another user"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "data")
			if tt.mode != 0 {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if tt.before != nil {
					tt.before(t, dir)
				}
				if err := os.Chmod(dir, tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			var log bytes.Buffer
			if err := privateFolder(dir, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(dir)
			if err != nil || info.Mode()&^fs.ModeDir != tt.want {
				t.Errorf("%v, %v, want %v", info.Mode(), err, tt.want)
			}
			said := log.String()
			if strings.Count(said, "\n") != len(tt.level)/4 || !strings.Contains(said, tt.level) || !strings.Contains(said, tt.says) {
				t.Errorf("log: %q, want one %s about %q", said, tt.level, tt.says)
			}
		})
	}
}

func TestADataFolderThatIsAFileIsAnErrorThatNamesIt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := privateFolder(file, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

func TestServeClosesAnOpenDataFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := startServe(t, "--data", dir)
	p.end(t)
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestTheSecondProcessOnADataFolderSaysSo(t *testing.T) {
	dir := t.TempDir()
	says := func() (string, func()) {
		var log bytes.Buffer
		release := occupy(dir, slog.New(slog.NewTextHandler(&log, nil)))
		return log.String(), release
	}
	first, release := says()
	second, releaseSecond := says()
	releaseSecond()
	release()
	third, releaseThird := says()
	releaseThird()
	if first != "" || third != "" || !strings.Contains(second, "level=WARN") || !strings.Contains(second, dir) {
		t.Errorf("the first says %q, the second beside it %q, one after both %q", first, second, third)
	}
}
