package attest

import (
	"context"
	"errors"
	"io"
	"sync"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

var errInjected = errors.New("injected")

type failure int

const (
	failBefore failure = iota // the call has no effect
	failAfter                 // it has its effect and the answer is lost
	failOn                    // it has no effect and neither has any later one: the process has died
)

func (f failure) String() string { return [...]string{"refused", "answer lost", "dead"}[f] }

// failing is a driver whose nth call fails, from 1.
type failing struct {
	storagedriver.StorageDriver
	mu    sync.Mutex
	calls int
	nth   int
	how   failure
}

func (f *failing) call(do func() error) error {
	f.mu.Lock()
	f.calls++
	n := f.calls
	f.mu.Unlock()
	if n < f.nth || n > f.nth && f.how != failOn {
		return do()
	}
	if f.how == failAfter {
		_ = do()
	}
	return errInjected
}

func (f *failing) fired() bool { return f.calls >= f.nth }

func (f *failing) GetContent(ctx context.Context, p string) (b []byte, err error) {
	err = f.call(func() error { b, err = f.StorageDriver.GetContent(ctx, p); return err })
	return b, err
}

func (f *failing) PutContent(ctx context.Context, p string, b []byte) error {
	return f.call(func() error { return f.StorageDriver.PutContent(ctx, p, b) })
}

func (f *failing) Reader(ctx context.Context, p string, offset int64) (rc io.ReadCloser, err error) {
	err = f.call(func() error { rc, err = f.StorageDriver.Reader(ctx, p, offset); return err })
	return rc, err
}

func (f *failing) Stat(ctx context.Context, p string) (fi storagedriver.FileInfo, err error) {
	err = f.call(func() error { fi, err = f.StorageDriver.Stat(ctx, p); return err })
	return fi, err
}

func (f *failing) List(ctx context.Context, p string) (l []string, err error) {
	err = f.call(func() error { l, err = f.StorageDriver.List(ctx, p); return err })
	return l, err
}

func (f *failing) Move(ctx context.Context, from, to string) error {
	return f.call(func() error { return f.StorageDriver.Move(ctx, from, to) })
}

func (f *failing) Delete(ctx context.Context, p string) error {
	return f.call(func() error { return f.StorageDriver.Delete(ctx, p) })
}

func (f *failing) Walk(ctx context.Context, p string, fn storagedriver.WalkFn, o ...func(*storagedriver.WalkOptions)) error {
	return storagedriver.WalkFallback(ctx, f, p, fn, o...)
}

func (f *failing) Writer(ctx context.Context, p string, appending bool) (w storagedriver.FileWriter, err error) {
	err = f.call(func() error { w, err = f.StorageDriver.Writer(ctx, p, appending); return err })
	if err != nil {
		if w != nil {
			_ = w.Close()
		}
		return nil, err
	}
	return &failingWriter{w, f}, nil
}

type failingWriter struct {
	storagedriver.FileWriter
	f *failing
}

func (w *failingWriter) Write(p []byte) (n int, err error) {
	err = w.f.call(func() error { n, err = w.FileWriter.Write(p); return err })
	return n, err
}

func (w *failingWriter) Commit(ctx context.Context) error {
	return w.f.call(func() error { return w.FileWriter.Commit(ctx) })
}

func (w *failingWriter) Close() error {
	return w.f.call(func() error { return w.FileWriter.Close() })
}
