//go:build unix

package main

import (
	"io/fs"
	"os"
	"syscall"
)

func ownedByThisUser(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid()
}
