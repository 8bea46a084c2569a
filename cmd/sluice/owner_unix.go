//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

func ownedByThisUser(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid()
}

// lock is taken for as long as the file is open. Taken says that another process has it; what keeps no locks, as some
// network file systems, has none to take.
func lock(f *os.File) (taken bool) {
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}
