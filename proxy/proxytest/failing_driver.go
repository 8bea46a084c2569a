package proxytest

import (
	"context"
	"io"
	"net/http"
	"path"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// FailingDriver is a storage driver whose n-th call fails. Counted are all calls that reach the storage, those of readers
// and writers too; Name and RedirectURL are not. Not embedded: a method that the interface gains must be thought of here.
type FailingDriver struct {
	*Fault
	driver storagedriver.StorageDriver
}

var _ storagedriver.StorageDriver = (*FailingDriver)(nil)

// NewFailingDriver wraps a driver; nothing fails until Fail.
func NewFailingDriver(d storagedriver.StorageDriver) *FailingDriver {
	return &FailingDriver{Fault: &Fault{}, driver: d}
}

// try runs one call that has no halves.
func (d *FailingDriver) try(what string, do func() error) error {
	switch kind := d.call(what); kind {
	case "":
		return do()
	case FaultAfter, FaultCutAfter:
		if err := do(); err != nil {
			return err
		}
		return d.failure(what, kind)
	default:
		return d.failure(what, kind)
	}
}

func (d *FailingDriver) failure(what string, kind Kind) error {
	return storagedriver.Error{DriverName: d.driver.Name(), Detail: &Failure{Call: what, Kind: kind}}
}

// Name is the wrapped driver's.
func (d *FailingDriver) Name() string { return d.driver.Name() }

func (d *FailingDriver) GetContent(ctx context.Context, p string) (content []byte, err error) {
	err = d.try("GetContent "+p, func() error {
		content, err = d.driver.GetContent(ctx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return content, nil
}

// PutContent with FaultPartial leaves half of the content under a temporary name beside, as the filesystem driver killed
// between its write and its rename does: PutContent itself is all or nothing.
func (d *FailingDriver) PutContent(ctx context.Context, p string, content []byte) error {
	what := "PutContent " + p
	switch kind := d.call(what); kind {
	case "":
		return d.driver.PutContent(ctx, p, content)
	case FaultAfter, FaultCutAfter:
		if err := d.driver.PutContent(ctx, p, content); err != nil {
			return err
		}
		return d.failure(what, kind)
	case FaultPartial:
		if err := d.driver.PutContent(ctx, path.Join(path.Dir(p), ".tmp."+path.Base(p)), content[:len(content)/2]); err != nil {
			return err
		}
		return d.failure(what, kind)
	default:
		return d.failure(what, kind)
	}
}

func (d *FailingDriver) Reader(ctx context.Context, p string, offset int64) (r io.ReadCloser, err error) {
	err = d.try("Reader "+p, func() error {
		if r, err = d.driver.Reader(ctx, p, offset); err == nil {
			r = &failingReader{ReadCloser: r, driver: d, path: p}
		}
		return err
	})
	if err != nil {
		if r != nil {
			r.Close()
		}
		return nil, err
	}
	return r, nil
}

func (d *FailingDriver) Writer(ctx context.Context, p string, appending bool) (w storagedriver.FileWriter, err error) {
	err = d.try("Writer "+p, func() error {
		if w, err = d.driver.Writer(ctx, p, appending); err == nil {
			w = &failingWriter{writer: w, driver: d, path: p}
		}
		return err
	})
	if err != nil {
		if w != nil {
			w.(*failingWriter).writer.Close()
		}
		return nil, err
	}
	return w, nil
}

func (d *FailingDriver) Stat(ctx context.Context, p string) (info storagedriver.FileInfo, err error) {
	err = d.try("Stat "+p, func() error {
		info, err = d.driver.Stat(ctx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return info, nil
}

// List with FaultPartial returns the first half of the names, as a page of a bucket's listing is had before the next one fails.
func (d *FailingDriver) List(ctx context.Context, p string) (names []string, err error) {
	what := "List " + p
	kind := d.call(what)
	if kind == "" || kind == FaultPartial {
		if names, err = d.driver.List(ctx, p); err != nil {
			return nil, err
		}
	}
	if kind == "" {
		return names, nil
	}
	return names[:len(names)/2], d.failure(what, kind)
}

func (d *FailingDriver) Move(ctx context.Context, from, to string) error {
	return d.try("Move "+from+" "+to, func() error { return d.driver.Move(ctx, from, to) })
}

// Delete with FaultPartial removes the first of the children only, as an object store's delete of a prefix may.
func (d *FailingDriver) Delete(ctx context.Context, p string) error {
	what := "Delete " + p
	kind := d.call(what)
	if kind == FaultPartial {
		if names, err := d.driver.List(ctx, p); err == nil && len(names) > 0 {
			if err := d.driver.Delete(ctx, names[0]); err != nil {
				return err
			}
		}
		return d.failure(what, kind)
	}
	if kind != "" && kind != FaultAfter && kind != FaultCutAfter {
		return d.failure(what, kind)
	}
	if err := d.driver.Delete(ctx, p); err != nil || kind == "" {
		return err
	}
	return d.failure(what, kind)
}

// RedirectURL is not counted.
func (d *FailingDriver) RedirectURL(r *http.Request, p string) (string, error) {
	return d.driver.RedirectURL(r, p)
}

func (d *FailingDriver) Walk(ctx context.Context, p string, f storagedriver.WalkFn, options ...func(*storagedriver.WalkOptions)) error {
	return d.try("Walk "+p, func() error { return d.driver.Walk(ctx, p, f, options...) })
}

// failingReader counts each Read.
type failingReader struct {
	io.ReadCloser
	driver *FailingDriver
	path   string
}

func (r *failingReader) Read(b []byte) (int, error) {
	what := "Reader.Read " + r.path
	kind := r.driver.call(what)
	if kind == FaultPartial && len(b) > 1 {
		n, _ := r.ReadCloser.Read(b[:len(b)/2]) // the failure below is what counts
		return n, r.driver.failure(what, kind)
	}
	if kind != "" {
		return 0, r.driver.failure(what, kind)
	}
	return r.ReadCloser.Read(b)
}

// failingWriter counts Write, Commit, Cancel and Close.
type failingWriter struct {
	writer storagedriver.FileWriter
	driver *FailingDriver
	path   string
}

func (w *failingWriter) Size() int64 { return w.writer.Size() }

func (w *failingWriter) Write(b []byte) (int, error) {
	what := "Writer.Write " + w.path
	kind := w.driver.call(what)
	switch {
	case kind == "":
		return w.writer.Write(b)
	case kind == FaultPartial:
		n, err := w.writer.Write(b[:len(b)/2])
		if err != nil {
			return n, err
		}
		return n, w.driver.failure(what, kind)
	case kind == FaultAfter || kind == FaultCutAfter:
		n, err := w.writer.Write(b)
		if err != nil {
			return n, err
		}
		return n, w.driver.failure(what, kind)
	}
	return 0, w.driver.failure(what, kind)
}

func (w *failingWriter) Commit(ctx context.Context) error {
	return w.driver.try("Writer.Commit "+w.path, func() error { return w.writer.Commit(ctx) })
}

func (w *failingWriter) Cancel(ctx context.Context) error {
	return w.driver.try("Writer.Cancel "+w.path, func() error { return w.writer.Cancel(ctx) })
}

// Close always closes the wrapped writer, a test must not run out of file descriptors.
func (w *failingWriter) Close() error {
	what := "Writer.Close " + w.path
	kind := w.driver.call(what)
	if err := w.writer.Close(); err != nil || kind == "" {
		return err
	}
	return w.driver.failure(what, kind)
}
