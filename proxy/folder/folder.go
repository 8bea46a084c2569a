package folder

import (
	"context"
	"strings"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

// How many calls may be under way at once, as in distribution's driver: each may hold a thread of the operating system.
const (
	defaultThreads = 100
	leastThreads   = 25
)

// Driver keeps objects below a folder. It is safe for concurrent use.
type Driver struct {
	*filesystem.Driver        // what is not done here
	root               string // without a slash at its end
	slots              chan struct{}
}

var _ storagedriver.StorageDriver = (*Driver)(nil)

// New keeps objects below root, which is made with the first of them. threads is how many calls may be under way at
// once, 25 at least; below 1 it is distribution's 100.
func New(root string, threads int) *Driver {
	if threads < 1 {
		threads = defaultThreads
	}
	threads = max(threads, leastThreads)
	return &Driver{
		Driver: filesystem.New(filesystem.DriverParameters{RootDirectory: root, MaxThreads: uint64(threads)}),
		root:   strings.TrimRight(root, "/"),
		slots:  make(chan struct{}, threads),
	}
}

// Immediate says that asking takes no longer than passing the question on to another goroutine, so that several
// questions may as well be asked one after another.
func (d *Driver) Immediate() bool { return true }

// valid is storagedriver.PathRegexp, ^(/[A-Za-z0-9._-]+)+$, without components that mean another folder.
func valid(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	start := 1
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			if c := path[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && c != '.' && c != '_' && c != '-' {
				return false
			}
			continue
		}
		if part := path[start:i]; part == "" || part == "." || part == ".." {
			return false
		}
		start = i + 1
	}
	return true
}

// Name is distribution's: what is on the disk is the same.
func (d *Driver) Name() string { return "filesystem" }

func (d *Driver) enter(ctx context.Context) error {
	select {
	case d.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return storagedriver.Error{DriverName: d.Name(), Detail: ctx.Err()}
	}
}

func (d *Driver) leave() { <-d.slots }

// failed gives an error of the system the form that drivers' errors have.
func (d *Driver) failed(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case notThere(err):
		return storagedriver.PathNotFoundError{Path: path, DriverName: d.Name()}
	}
	return storagedriver.Error{DriverName: d.Name(), Detail: err}
}
