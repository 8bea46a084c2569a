//go:build linux && (amd64 || arm64)

package folder

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"
	"syscall"
	"unsafe"
)

// Package syscall copies every path to put a zero behind it. That would be most of what is allocated here: a path is
// made of two parts anyway, and so it is made in a buffer, with the zero, and given to the system as it is.

// names are the paths of one operation.
type names struct {
	file       []byte // with a zero at its end
	unfinished []byte // another name in the same folder, with a zero
	random     [12]byte
}

var namesPool = sync.Pool{New: func() any { return &names{} }}

// names of the object at path, which valid has seen.
func (d *Driver) names(path string) *names {
	n := namesPool.Get().(*names)
	n.file = append(append(append(n.file[:0], d.root...), path...), 0)
	return n
}

func (n *names) free() { namesPool.Put(n) }

// split is the folder, whose zero stands where the slash was, and the name in it. join ends that.
func (n *names) split() (dir, name []byte, join func()) {
	slash := bytes.LastIndexByte(n.file, '/')
	n.file[slash] = 0
	return n.file[:slash+1], n.file[slash+1:], func() { n.file[slash] = '/' }
}

// invent makes a name that nobody else uses.
func (n *names) invent(name []byte) {
	_, _ = rand.Read(n.random[:]) // never fails (crypto/rand)
	n.unfinished = append(append(n.unfinished[:0], name[:len(name)-1]...), '.')
	n.unfinished = hex.AppendEncode(n.unfinished, n.random[:])
	n.unfinished = append(n.unfinished, ".tmp\x00"...)
}

// text is a path for package os and for messages.
func text(path []byte) string { return string(path[:len(path)-1]) }

// workingDirectory is AT_FDCWD of <fcntl.h>: paths are what they say, and not below an open folder.
const workingDirectory = -100

func open(at int, path []byte, flags int, mode uint32) (int, error) {
	for {
		fd, _, e := syscall.Syscall6(syscall.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(&path[0])), uintptr(flags|syscall.O_CLOEXEC), uintptr(mode), 0, 0) //nolint:gosec // it ends with a zero
		switch e {
		case 0:
			return int(fd), nil
		case syscall.EINTR:
			continue
		}
		return -1, e
	}
}

func rename(at int, from, to []byte) error {
	for {
		_, _, e := syscall.Syscall6(syscall.SYS_RENAMEAT, uintptr(at), uintptr(unsafe.Pointer(&from[0])), uintptr(at), uintptr(unsafe.Pointer(&to[0])), 0, 0) //nolint:gosec // both end with a zero
		switch e {
		case 0:
			return nil
		case syscall.EINTR:
			continue
		}
		return e
	}
}

func unlink(at int, path []byte) {
	_, _, _ = syscall.Syscall(syscall.SYS_UNLINKAT, uintptr(at), uintptr(unsafe.Pointer(&path[0])), 0) //nolint:gosec // it ends with a zero
}

func lookAt(path []byte, st *syscall.Stat_t) error {
	for {
		at := workingDirectory
		_, _, e := syscall.Syscall6(statAt, uintptr(at), uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(st)), 0, 0, 0) //nolint:gosec // it ends with a zero
		switch e {
		case 0:
			return nil
		case syscall.EINTR:
			continue
		}
		return e
	}
}

// mkdir makes the folder that ends before path[end].
func mkdir(path []byte, end int) error {
	path[end] = 0
	defer func() { path[end] = '/' }()
	for {
		at := workingDirectory
		_, _, e := syscall.Syscall(syscall.SYS_MKDIRAT, uintptr(at), uintptr(unsafe.Pointer(&path[0])), 0o777) //nolint:gosec // it ends with a zero
		switch e {
		case 0:
			return nil
		case syscall.EINTR:
			continue
		}
		return e
	}
}

func persist(fd int) error {
	for {
		if err := syscall.Fsync(fd); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

func describe(fd int, st *syscall.Stat_t) error {
	for {
		if err := syscall.Fstat(fd, st); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
