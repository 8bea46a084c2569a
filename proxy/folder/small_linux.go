package folder

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// Plain system calls instead of os.File: that makes a finalizer and asks the poller about every file, which no file of
// a disk can be waited for with.

func notThere(err error) bool { return errors.Is(err, syscall.ENOENT) }

// problem is what the system said, in the form of package os.
func problem(call, path string, err error) error {
	return &os.PathError{Op: call, Path: path, Err: err}
}

// GetContent reads a whole object.
func (d *Driver) GetContent(ctx context.Context, path string) ([]byte, error) {
	file, err := d.file(path)
	if err != nil {
		return nil, err
	}
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	fd, err := open(file, syscall.O_RDONLY, 0)
	if err != nil {
		return nil, d.failed(path, err)
	}
	defer func() { _ = syscall.Close(fd) }() // nothing was written
	b, err := readAll(fd)
	if err != nil {
		return nil, d.failed(path, problem("read", file, err))
	}
	return b, nil
}

func readAll(fd int) ([]byte, error) {
	var st syscall.Stat_t
	if err := again(func() error { return syscall.Fstat(fd, &st) }); err != nil {
		return nil, err
	}
	// One more than there is, so that the last call, which finds the end, needs no other place.
	b := make([]byte, 0, max(st.Size, 0)+1)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := syscall.Read(fd, b[len(b):cap(b)])
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return b, nil
		}
		b = b[:len(b)+n]
	}
}

// Stat describes an object or a folder.
func (d *Driver) Stat(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	if path == "/" { // which the expression for paths does not take, and distribution's driver looks after
		return d.Driver.Stat(ctx, path)
	}
	file, err := d.file(path)
	if err != nil {
		return nil, err
	}
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	defer d.leave()
	var st syscall.Stat_t
	if err := again(func() error { return syscall.Stat(file, &st) }); err != nil {
		if !notThere(err) {
			err = problem("stat", file, err)
		}
		return nil, d.failed(path, err)
	}
	fi := storagedriver.FileInfoFields{Path: path, ModTime: modified(&st), IsDir: st.Mode&syscall.S_IFMT == syscall.S_IFDIR}
	if !fi.IsDir {
		fi.Size = st.Size
	}
	return storagedriver.FileInfoInternal{FileInfoFields: fi}, nil
}

func modified(st *syscall.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()) }

// List is distribution's where there is something: the answer that most look-ups get takes one system call.
func (d *Driver) List(ctx context.Context, path string) ([]string, error) {
	file, err := d.file(path)
	if path == "/" || err != nil {
		return d.Driver.List(ctx, path)
	}
	var st syscall.Stat_t
	if err := again(func() error { return syscall.Stat(file, &st) }); notThere(err) {
		return nil, d.failed(path, err)
	}
	return d.Driver.List(ctx, path)
}

// PutContent writes a whole object: to another name beside it first, so that it appears as a whole, and to the disk
// before it says so.
func (d *Driver) PutContent(ctx context.Context, path string, content []byte) error {
	file, err := d.file(path)
	if err != nil {
		return err
	}
	if err := d.enter(ctx); err != nil {
		return err
	}
	defer d.leave()
	return d.failed(path, write(file, content))
}

func write(file string, content []byte) error {
	unfinished := file + "." + rand.Text() + ".tmp"
	dir := path.Dir(file)
	fd, err := create(unfinished, dir)
	if err != nil {
		return err
	}
	call, err := "write", writeAll(fd, content)
	if err == nil {
		call, err = "fsync", again(func() error { return syscall.Fsync(fd) })
	}
	if cerr := syscall.Close(fd); err == nil && cerr != nil && !errors.Is(cerr, syscall.EINTR) { // closed all the same (close(2))
		call, err = "close", cerr
	}
	if err == nil {
		call, err = "rename", again(func() error { return syscall.Rename(unfinished, file) })
	}
	if err != nil {
		_ = syscall.Unlink(unfinished) // it may be that this is why: the folder has gone
		return problem(call, file, err)
	}
	return syncDir(dir)
}

// create makes a file, and the folders above it when they are not there. A sweep may take them away in between.
func create(file, dir string) (fd int, err error) {
	const flags = syscall.O_WRONLY | syscall.O_CREAT | syscall.O_EXCL
	for try := 0; ; try++ {
		if fd, err = open(file, flags, 0o666); !notThere(err) || try == 3 {
			if err != nil {
				err = problem("open", file, err)
			}
			return fd, err
		}
		if err := os.MkdirAll(dir, 0o777); err != nil {
			return -1, err
		}
	}
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Write(fd, b)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		b = b[n:]
	}
	return nil
}

// syncDir makes a new name in a folder durable. That the folder has gone meanwhile is somebody's wish.
func syncDir(dir string) error {
	fd, err := open(dir, syscall.O_RDONLY, 0)
	if notThere(err) {
		return nil
	}
	if err == nil {
		err = again(func() error { return syscall.Fsync(fd) })
		if cerr := syscall.Close(fd); err == nil && cerr != nil && !errors.Is(cerr, syscall.EINTR) {
			err = cerr
		}
	}
	if err != nil {
		return fmt.Errorf("sync folder: %w", problem("fsync", dir, err))
	}
	return nil
}

func open(file string, flags int, mode uint32) (fd int, err error) {
	err = again(func() (err error) {
		fd, err = syscall.Open(file, flags|syscall.O_CLOEXEC, mode)
		return err
	})
	return fd, err
}

// again repeats what a signal has interrupted.
func again(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
