// Package reread keeps what was read from files that are replaced while the process runs: certificates,
// authorities, signing keys. Whoever asks gets the files as they are now, so that a rotation needs no restart.
// Files that cannot be used leave what was read before: a certificate and its key are two files, and between
// the two writes of a rotation they do not fit. That is for keys to check others with and to be known by;
// a list of users must not be kept that way, since one of them may have been taken out.
package reread

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	maxFile = 1 << 20 // of certificates and keys
	// A file system may stamp two writes within this time alike: files that changed less than this before
	// they were read are read again.
	stampGrain = 2 * time.Second
)

// Files are read together into one T. Safe for concurrent use.
type Files[T any] struct {
	paths []string
	parse func(contents [][]byte) (T, error)
	log   *slog.Logger

	mu     sync.Mutex
	value  T
	stamps []fs.FileInfo
	readAt time.Time
	failed string // the last complaint, so that it is logged once
}

// Open reads the files for the first time, when they must be good. The order of contents is that of paths.
func Open[T any](log *slog.Logger, parse func(contents [][]byte) (T, error), paths ...string) (*Files[T], error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f := &Files[T]{paths: paths, parse: parse, log: log}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

// Get is what the files hold now, or what they held when they could last be used: the same value
// until they are read again.
func (f *Files[T]) Get() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.stale() {
		return f.value
	}
	if err := f.read(); err != nil {
		if err.Error() != f.failed {
			f.failed = err.Error()
			f.log.Error("changed files cannot be used, what was read before stays", "files", f.paths, "reason", err)
		}
	}
	return f.value
}

func (f *Files[T]) stale() bool {
	if len(f.stamps) != len(f.paths) {
		return true
	}
	for i, path := range f.paths {
		info, err := os.Stat(path)
		old := f.stamps[i]
		if err != nil || !os.SameFile(info, old) || info.Size() != old.Size() || !info.ModTime().Equal(old.ModTime()) || f.readAt.Sub(old.ModTime()) <= stampGrain {
			return true
		}
	}
	return false
}

func (f *Files[T]) read() error {
	now := time.Now()
	stamps, contents := make([]fs.FileInfo, len(f.paths)), make([][]byte, len(f.paths))
	for i, path := range f.paths {
		var err error
		if contents[i], stamps[i], err = readFile(path); err != nil {
			return err
		}
	}
	value, err := f.parse(contents)
	if err != nil {
		return err
	}
	if f.failed != "" {
		f.log.Info("changed files can be used again", "files", f.paths)
	}
	f.value, f.stamps, f.readAt, f.failed = value, stamps, now, ""
	return nil
}

func readFile(path string) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, nil, err
	}
	if len(b) > maxFile {
		return nil, nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	return b, info, nil
}
