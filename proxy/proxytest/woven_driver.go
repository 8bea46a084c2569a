package proxytest

import (
	"context"
	"errors"
	"io"
	"net/http"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// WovenDriver is a storage driver whose calls are the steps of a Weave. A folder answers at once, and what reads or deletes a
// whole tree sees what others do meanwhile; in a bucket that is one call.
type WovenDriver struct {
	driver storagedriver.StorageDriver
	folder bool
}

var _ storagedriver.StorageDriver = (*WovenDriver)(nil)

// NewWovenDriver wraps a driver, which must not wait for anything itself.
func NewWovenDriver(d storagedriver.StorageDriver, folder bool) *WovenDriver {
	return &WovenDriver{driver: d, folder: folder}
}

// Immediate is objects.Storage's question.
func (d *WovenDriver) Immediate() bool { return d.folder }

// Name is the wrapped driver's.
func (d *WovenDriver) Name() string { return d.driver.Name() }

// RedirectURL is no step.
func (d *WovenDriver) RedirectURL(r *http.Request, path string) (string, error) {
	return d.driver.RedirectURL(r, path)
}

// GetContent is a step.
func (d *WovenDriver) GetContent(ctx context.Context, path string) ([]byte, error) {
	Step(ctx, "GetContent "+path)
	return d.driver.GetContent(ctx, path)
}

// PutContent is a step.
func (d *WovenDriver) PutContent(ctx context.Context, path string, content []byte) error {
	Step(ctx, "PutContent "+path)
	return d.driver.PutContent(ctx, path, content)
}

// Reader is a step; what is read of it is not.
func (d *WovenDriver) Reader(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	Step(ctx, "Reader "+path)
	return d.driver.Reader(ctx, path, offset)
}

// Writer is a step, and so is its Commit.
func (d *WovenDriver) Writer(ctx context.Context, path string, more bool) (storagedriver.FileWriter, error) {
	Step(ctx, "Writer "+path)
	w, err := d.driver.Writer(ctx, path, more)
	if err != nil {
		return nil, err
	}
	return wovenWriter{w, path}, nil
}

type wovenWriter struct {
	storagedriver.FileWriter
	path string
}

func (w wovenWriter) Commit(ctx context.Context) error {
	Step(ctx, "Commit "+w.path)
	return w.FileWriter.Commit(ctx)
}

// Stat is a step.
func (d *WovenDriver) Stat(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	Step(ctx, "Stat "+path)
	return d.driver.Stat(ctx, path)
}

// List is a step.
func (d *WovenDriver) List(ctx context.Context, path string) ([]string, error) {
	Step(ctx, "List "+path)
	return d.driver.List(ctx, path)
}

// Move is a step.
func (d *WovenDriver) Move(ctx context.Context, from, to string) error {
	Step(ctx, "Move "+from+" "+to)
	return d.driver.Move(ctx, from, to)
}

// Delete is a step, in a folder one for each file.
func (d *WovenDriver) Delete(ctx context.Context, path string) error {
	if d.folder {
		if names, err := d.driver.List(ctx, path); err == nil && len(names) > 0 {
			for _, name := range names {
				if err := d.Delete(ctx, name); err != nil && !errors.As(err, &storagedriver.PathNotFoundError{}) {
					return err
				}
			}
			if names, err := d.driver.List(ctx, path); err == nil && len(names) > 0 {
				return d.Delete(ctx, path) // as os.RemoveAll, which looks again
			}
			return d.driver.Delete(ctx, path)
		}
	}
	Step(ctx, "Delete "+path)
	return d.driver.Delete(ctx, path)
}

// Walk is a step, in a folder one for each look.
func (d *WovenDriver) Walk(ctx context.Context, path string, f storagedriver.WalkFn, options ...func(*storagedriver.WalkOptions)) error {
	if d.folder {
		return storagedriver.WalkFallback(ctx, d, path, f, options...)
	}
	Step(ctx, "Walk "+path)
	return d.driver.Walk(ctx, path, f, options...)
}
