//go:build linux && (amd64 || arm64)

package folder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// Plain system calls instead of os.File: that makes a finalizer and asks the poller about every file, which no file of
// a disk can be waited for with.

func notThere(err error) bool { return errors.Is(err, syscall.ENOENT) }

// problem is what the system said, in the form of package os.
func problem(call string, path []byte, err error) error {
	return &os.PathError{Op: call, Path: text(path), Err: err}
}

// begin is a call's turn, and the names that it is about.
func (d *Driver) begin(ctx context.Context, path string) (*names, error) {
	if !valid(path) { // unlike distribution's driver: it takes paths that leave the folder
		return nil, storagedriver.InvalidPathError{Path: path, DriverName: d.Name()}
	}
	if err := d.enter(ctx); err != nil {
		return nil, err
	}
	return d.names(path), nil
}

func (d *Driver) end(n *names) {
	d.leave()
	n.free()
}

// GetContent reads a whole object.
func (d *Driver) GetContent(ctx context.Context, path string) ([]byte, error) {
	n, err := d.begin(ctx, path)
	if err != nil {
		return nil, err
	}
	defer d.end(n)
	fd, err := open(workingDirectory, n.file, syscall.O_RDONLY, 0)
	if err != nil {
		return nil, d.failed(path, err)
	}
	defer func() { _ = syscall.Close(fd) }() // nothing was written
	b, err := readAll(fd)
	if err != nil {
		return nil, d.failed(path, problem("read", n.file, err))
	}
	return b, nil
}

func readAll(fd int) ([]byte, error) {
	var st syscall.Stat_t
	if err := describe(fd, &st); err != nil {
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
	st, err := d.look(ctx, path)
	if err != nil {
		return nil, err
	}
	fi := storagedriver.FileInfoFields{Path: path, ModTime: time.Unix(st.Mtim.Unix()), IsDir: st.Mode&syscall.S_IFMT == syscall.S_IFDIR}
	if !fi.IsDir {
		fi.Size = st.Size
	}
	return storagedriver.FileInfoInternal{FileInfoFields: fi}, nil
}

func (d *Driver) look(ctx context.Context, path string) (st syscall.Stat_t, err error) {
	n, err := d.begin(ctx, path)
	if err != nil {
		return st, err
	}
	defer d.end(n)
	if err = lookAt(n.file, &st); err != nil && !notThere(err) {
		err = problem("stat", n.file, err)
	}
	return st, d.failed(path, err)
}

// List is distribution's where there is something: the answer that most look-ups get takes one system call.
func (d *Driver) List(ctx context.Context, path string) ([]string, error) {
	if path != "/" && valid(path) {
		if _, err := d.look(ctx, path); err != nil {
			return nil, err
		}
	}
	return d.Driver.List(ctx, path)
}

// PutContent writes a whole object: to another name beside it first, so that it appears as a whole, and to the disk
// before it says so.
func (d *Driver) PutContent(ctx context.Context, path string, content []byte) error {
	n, err := d.begin(ctx, path)
	if err != nil {
		return err
	}
	defer d.end(n)
	return d.failed(path, n.write(content))
}

// write works below the folder, which is opened anyway: the way to it is long. A sweep may take it away in between.
func (n *names) write(content []byte) error {
	for try := 0; ; try++ {
		dir, err := n.openDir()
		if err != nil {
			return err
		}
		err = n.writeIn(dir, content)
		if cerr := syscall.Close(dir); err == nil && cerr != nil && !errors.Is(cerr, syscall.EINTR) { // closed all the same (close(2))
			err = problem("close", n.file, cerr)
		}
		if !notThere(err) || try == 3 {
			return err
		}
	}
}

func (n *names) writeIn(dir int, content []byte) error {
	_, name, join := n.split()
	defer join()
	n.invent(name)
	call := "open"
	fd, err := open(dir, n.unfinished, syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL, 0o666)
	if err == nil {
		call, err = "write", writeAll(fd, content)
		if err == nil {
			call, err = "fsync", persist(fd)
		}
		if cerr := syscall.Close(fd); err == nil && cerr != nil && !errors.Is(cerr, syscall.EINTR) {
			call, err = "close", cerr
		}
		if err == nil {
			call, err = "rename", rename(dir, n.unfinished, name)
		}
		if err != nil {
			unlink(dir, n.unfinished) // it may be that this is why: the folder has gone
		} else if err = persist(dir); err == nil { // the new name, too
			return nil
		}
	}
	join()
	return problem(call, n.file, err)
}

// openDir opens the folder of the object, and makes it when it is not there.
func (n *names) openDir() (fd int, err error) {
	for try := 0; ; try++ {
		dir, _, join := n.split()
		fd, err = open(workingDirectory, dir, syscall.O_RDONLY|syscall.O_DIRECTORY, 0)
		join()
		if err == nil {
			return fd, nil
		}
		if !notThere(err) || try == 3 {
			return -1, problem("open", n.file, err)
		}
		if err := makeDirs(n.file, bytes.LastIndexByte(n.file, '/')); err != nil {
			return -1, problem("mkdir", n.file, err)
		}
	}
}

// makeDirs makes the folder that ends before path[end], and those above it. That one of them goes again meanwhile shows
// when a file is made in it.
func makeDirs(path []byte, end int) error {
	err := mkdir(path, end)
	if notThere(err) {
		if above := bytes.LastIndexByte(path[:end], '/'); above > 0 {
			if err := makeDirs(path, above); err != nil {
				return err
			}
			if err = mkdir(path, end); notThere(err) {
				return nil
			}
		}
	}
	if errors.Is(err, syscall.EEXIST) {
		return nil
	}
	return err
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
