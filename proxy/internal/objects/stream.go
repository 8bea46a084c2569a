package objects

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// Open reads the object at path, which has the given size. The in-memory driver lets a Reader see later writes half
// done, so small objects are taken in one call, which for a bucket is one request either way.
func (s Storage) Open(ctx context.Context, path string, size, offset int64) (io.ReadCloser, error) {
	if s.IsSmall(size) {
		b, err := s.Get(ctx, path)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(b[min(offset, int64(len(b))):])), nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rc, err := s.Driver.Reader(ctx, path, offset)
	if err != nil {
		return nil, failed(ctx, err)
	}
	return storedReader{ReadCloser: rc, ctx: ctx}, nil
}

// Save writes what r gives to path, as a whole or not at all, and only if it passes check, which is called after the
// last byte was read; nil checks nothing. Large content goes to staging first, a name that nobody else uses: Writer is
// not atomic in any driver, Move is in the filesystem one, and a bucket shows the destination when it is complete. What
// a crash leaves in staging is for a sweep.
func (s Storage) Save(ctx context.Context, path, staging string, r io.Reader, check func() error) (int64, error) {
	if check == nil {
		check = func() error { return nil }
	}
	head, more, err := s.readHead(ctx, r)
	if err != nil {
		return 0, err
	}
	if !more {
		if err := check(); err != nil {
			return 0, err
		}
		return int64(len(head)), s.Put(ctx, path, head)
	}
	n, err := s.stage(ctx, staging, io.MultiReader(bytes.NewReader(head), r))
	if err != nil {
		return 0, err
	}
	err = check()
	if err == nil {
		err = s.Move(ctx, staging, path)
	}
	if err != nil {
		s.discardStaged(ctx, staging, err)
		return 0, err
	}
	return n, nil
}

// discardStaged leaves what a storage that hangs has to the sweep.
func (s Storage) discardStaged(ctx context.Context, staging string, cause error) {
	if !errors.Is(cause, ErrHung) {
		s.Discard(ctx, staging)
	}
}

// Copy saves a stored object, or several, under another name, if it has the digest.
func (s Storage) Copy(ctx context.Context, to, staging string, r io.Reader, digest string) (int64, error) {
	h := NewHash(digest)
	return s.Save(ctx, to, staging, io.TeeReader(r, h), func() error { return CheckSum(h, digest) })
}

// readHead reads what is kept in memory; more says that there may be others.
func (s Storage) readHead(ctx context.Context, r io.Reader) (head []byte, more bool, err error) {
	size := int64(512)
	if sized, ok := r.(Sized); ok && sized.Size >= 0 {
		size = sized.Size + 1
	}
	b := make([]byte, 0, min(size, s.small()))
	for int64(len(b)) < s.small() {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):min(int64(cap(b)), s.small())])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
	return b, true, nil
}

// Sized is content that says how much it is, so that it is read into one piece of memory. It may be wrong.
type Sized struct {
	io.Reader
	Size int64
}

// stage does not commit again what met something else: the S3 driver has given the upload up then.
func (s Storage) stage(ctx context.Context, path string, r io.Reader) (n int64, err error) {
	var w storagedriver.FileWriter
	err = alone(ctx, func() (err error) {
		w, err = s.Driver.Writer(ctx, path, false)
		return err
	})
	if err != nil {
		return 0, failed(ctx, err)
	}
	n, err = io.Copy(storedWriter{ctx, w}, contextReader{ctx, r})
	if err == nil {
		err = failed(ctx, w.Commit(ctx))
	}
	if err == nil {
		err = failed(ctx, w.Close())
	} else {
		cleanup, cancel := afterwards(ctx)
		defer cancel()
		_ = w.Cancel(cleanup)
	}
	if err != nil {
		s.discardStaged(ctx, path, err)
		return 0, err
	}
	return n, nil
}

// afterwards is a context to clean up in, when the request's own may be what ended the work.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
}

// storedReader marks errors as the storage's.
type storedReader struct {
	io.ReadCloser
	ctx context.Context
}

func (r storedReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failed(r.ctx, err)
	}
	return n, err
}

func (r storedReader) Close() error { return failed(r.ctx, r.ReadCloser.Close()) }

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

type storedWriter struct {
	ctx context.Context
	w   io.Writer
}

func (w storedWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	return n, failed(w.ctx, err)
}
