package proxytest

import (
	"context"
	"io"
	"sync"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// Interrupted is a storage driver before one call of which something else happens, such as what another replica does at
// that moment with the same storage. A scenario that runs for every n sees it between any two steps.
type Interrupted struct {
	storagedriver.StorageDriver
	mu   sync.Mutex // also while it happens: no other call overtakes
	left int
	do   func()
	done bool
}

// Interrupt has do happen before the nth call from now on; do must not call the Interrupted itself.
func Interrupt(d storagedriver.StorageDriver, n int, do func()) *Interrupted {
	return &Interrupted{StorageDriver: d, left: n, do: do}
}

// Done says whether there were so many calls.
func (d *Interrupted) Done() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.done
}

func (d *Interrupted) call() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left--; d.left == 0 {
		d.do()
		d.done = true
	}
}

// GetContent is a call.
func (d *Interrupted) GetContent(ctx context.Context, path string) ([]byte, error) {
	d.call()
	return d.StorageDriver.GetContent(ctx, path)
}

// PutContent is a call.
func (d *Interrupted) PutContent(ctx context.Context, path string, content []byte) error {
	d.call()
	return d.StorageDriver.PutContent(ctx, path, content)
}

// Reader is a call.
func (d *Interrupted) Reader(ctx context.Context, path string, offset int64) (io.ReadCloser, error) {
	d.call()
	return d.StorageDriver.Reader(ctx, path, offset)
}

// Writer is a call.
func (d *Interrupted) Writer(ctx context.Context, path string, more bool) (storagedriver.FileWriter, error) {
	d.call()
	return d.StorageDriver.Writer(ctx, path, more)
}

// Stat is a call.
func (d *Interrupted) Stat(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	d.call()
	return d.StorageDriver.Stat(ctx, path)
}

// List is a call.
func (d *Interrupted) List(ctx context.Context, path string) ([]string, error) {
	d.call()
	return d.StorageDriver.List(ctx, path)
}

// Move is a call.
func (d *Interrupted) Move(ctx context.Context, from, to string) error {
	d.call()
	return d.StorageDriver.Move(ctx, from, to)
}

// Delete is a call.
func (d *Interrupted) Delete(ctx context.Context, path string) error {
	d.call()
	return d.StorageDriver.Delete(ctx, path)
}

// Walk is a call.
func (d *Interrupted) Walk(ctx context.Context, path string, f storagedriver.WalkFn, options ...func(*storagedriver.WalkOptions)) error {
	d.call()
	return d.StorageDriver.Walk(ctx, path, f, options...)
}
