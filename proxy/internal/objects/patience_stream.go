package objects

import (
	"context"
	"io"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// atOnce is how much one call reads or writes: what is on its way must be a copy, since the caller has its buffer back when
// the call is given up.
const atOnce = 64 << 10

// patientReader reads an object. After a call that was given up nothing more is read, and the object is closed when that
// call comes back.
type patientReader struct {
	p      *Patient
	ctx    context.Context
	cancel context.CancelFunc
	rc     io.ReadCloser
	path   string
	buf    []byte
	broken error
}

func (r *patientReader) Read(b []byte) (int, error) {
	if r.broken != nil {
		return 0, r.broken
	}
	b = b[:min(len(b), atOnce)]
	if len(r.buf) < len(b) {
		r.buf = make([]byte, len(b))
	}
	own := r.buf[:len(b)]
	given := false
	n, err := run(r.ctx, r.p, call[int]{
		what: "read " + r.path,
		do:   func(context.Context) (int, error) { return r.rc.Read(own) },
		late: func(int, error) { _ = r.rc.Close() },
		gone: &given,
	})
	if given {
		r.broken, r.buf = err, nil
		r.cancel()
	}
	copy(b, own[:n])
	return n, err
}

func (r *patientReader) Close() error {
	if r.broken != nil {
		return nil
	}
	r.broken = io.ErrClosedPipe
	defer r.cancel()
	_, err := run(r.ctx, r.p, call[struct{}]{
		what: "close " + r.path, must: true,
		do: func(context.Context) (struct{}, error) { return struct{}{}, r.rc.Close() },
	})
	return err
}

// patientWriter writes an object, with the same consequence.
type patientWriter struct {
	p      *Patient
	ctx    context.Context
	cancel context.CancelFunc
	w      storagedriver.FileWriter
	path   string
	buf    []byte
	size   int64
	broken error
}

func (w *patientWriter) Size() int64 { return w.size }

func (w *patientWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var m int
		m, err = w.writeSome(b[:min(len(b), atOnce)])
		n += m
		b = b[m:]
	}
	return n, err
}

func (w *patientWriter) writeSome(b []byte) (int, error) {
	w.buf = append(w.buf[:0], b...)
	own := w.buf
	n, err := step(w, "write "+w.path, false, func(context.Context) (int, error) {
		n, err := w.w.Write(own)
		if err == nil && n < len(own) {
			err = io.ErrShortWrite
		}
		return n, err
	}, abandon)
	w.size += int64(n)
	return n, err
}

func (w *patientWriter) Commit(context.Context) error {
	_, err := step(w, "commit "+w.path, false, func(ctx context.Context) (struct{}, error) { return struct{}{}, w.w.Commit(ctx) }, closeOnly)
	return err
}

// Cancel has a context of its own, since the writer's may be what ended the work.
func (w *patientWriter) Cancel(ctx context.Context) error {
	w.ctx = ctx
	_, err := step(w, "cancel "+w.path, true, func(ctx context.Context) (struct{}, error) { return struct{}{}, w.w.Cancel(ctx) }, closeOnly)
	return err
}

func (w *patientWriter) Close() error {
	_, err := step(w, "close "+w.path, true, func(context.Context) (struct{}, error) { return struct{}{}, w.w.Close() }, func(storagedriver.FileWriter) {})
	w.cancel()
	return err
}

func step[T any](w *patientWriter, what string, must bool, do func(context.Context) (T, error), late func(storagedriver.FileWriter)) (T, error) {
	var none T
	if w.broken != nil {
		return none, w.broken
	}
	given := false
	value, err := run(w.ctx, w.p, call[T]{
		what: what, must: must, do: do, gone: &given,
		late: func(T, error) { late(w.w) },
	})
	if given {
		w.broken, w.buf = err, nil
		w.cancel()
	}
	return value, err
}

// abandon ends a writer that nobody waits for any more.
func abandon(w storagedriver.FileWriter) {
	_ = w.Cancel(context.Background())
	_ = w.Close()
}

func closeOnly(w storagedriver.FileWriter) { _ = w.Close() }
