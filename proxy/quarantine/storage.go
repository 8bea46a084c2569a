package quarantine

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// small is what is kept in memory and written in one call. In a bucket that is one request instead of three, and
// every driver makes PutContent visible as a whole. It bounds the memory of one operation.
const small = 256 << 10

// errDamaged says that what is stored does not have its digest any more.
var errDamaged = errors.New("damaged in the storage")

// storage gives the driver's calls one meaning of "not there", and marks its failures with ErrStorage.
type storage struct {
	driver storagedriver.StorageDriver
}

// absent: drivers say PathNotFoundError, but the filesystem one also passes on what the system says when a folder goes
// while it is read, inside an error that does not unwrap.
func absent(err error) bool {
	var notFound storagedriver.PathNotFoundError
	var other storagedriver.Error
	return errors.As(err, &notFound) || errors.Is(err, fs.ErrNotExist) || errors.As(err, &other) && absent(other.Detail)
}

// failed marks a driver's error, except that something is not there and that the caller gave up. Drivers hide the
// context's error in one of their own that does not unwrap, so the context is asked.
func failed(ctx context.Context, err error) error {
	switch {
	case err == nil || absent(err):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", ErrStorage, err)
}

func (s storage) get(ctx context.Context, path string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.driver.GetContent(ctx, path)
	return b, failed(ctx, err)
}

func (s storage) put(ctx context.Context, path string, content []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.driver.PutContent(ctx, path, content)
	if absent(err) { // what is written need not be there
		return fmt.Errorf("%w: %v", ErrStorage, err)
	}
	return failed(ctx, err)
}

// size of the object at path. A folder is not an object.
func (s storage) size(ctx context.Context, path string) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	fi, err := s.driver.Stat(ctx, path)
	if err != nil {
		return 0, failed(ctx, err)
	}
	if fi.IsDir() {
		return 0, storagedriver.PathNotFoundError{Path: path, DriverName: s.driver.Name()}
	}
	return fi.Size(), nil
}

// list returns the names below path; none when there is no such folder, since buckets have no empty ones.
func (s storage) list(ctx context.Context, dir string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	paths, err := s.driver.List(ctx, dir)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, failed(ctx, err)
	}
	names := make([]string, 0, len(paths))
	for _, p := range paths {
		names = append(names, path.Base(p))
	}
	return names, nil
}

// remove deletes path and all below it. That it is not there is what was wanted.
func (s storage) remove(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.driver.Delete(ctx, path); !absent(err) {
		return failed(ctx, err)
	}
	return nil
}

// open reads the object at path, which has the given size. The in-memory driver lets a Reader see later writes half
// done, so small objects are taken in one call, which for a bucket is one request either way.
func (s storage) open(ctx context.Context, path string, size, offset int64) (io.ReadCloser, error) {
	if size <= small {
		b, err := s.get(ctx, path)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(b[min(offset, int64(len(b))):])), nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rc, err := s.driver.Reader(ctx, path, offset)
	if err != nil {
		return nil, failed(ctx, err)
	}
	return storedReader{ReadCloser: rc, ctx: ctx}, nil
}

// storedReader marks read errors as the storage's.
type storedReader struct {
	io.ReadCloser
	ctx context.Context
}

func (r storedReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = failed(r.ctx, err)
	}
	return n, err
}

// save writes what r gives to path, as a whole or not at all, and only if it passes check, which is called after the
// last byte was read. Large content goes to staging first: Writer is not atomic in any driver, Move is in the
// filesystem one, and a bucket shows the destination when it is complete. What a crash leaves in staging goes with
// its generation.
func (s storage) save(ctx context.Context, path, staging string, r io.Reader, check func() error) (int64, error) {
	head, more, err := readHead(ctx, r)
	if err != nil {
		return 0, err
	}
	if !more {
		if err := check(); err != nil {
			return 0, err
		}
		return int64(len(head)), s.put(ctx, path, head)
	}
	n, err := s.stage(ctx, staging, io.MultiReader(bytes.NewReader(head), r))
	if err != nil {
		return 0, err
	}
	if err := check(); err != nil {
		s.discard(ctx, staging)
		return 0, err
	}
	if err := s.driver.Move(ctx, staging, path); err != nil {
		s.discard(ctx, staging)
		return 0, failed(ctx, err)
	}
	return n, nil
}

// readHead reads at most small bytes; more says that there may be others.
func readHead(ctx context.Context, r io.Reader) (head []byte, more bool, err error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(contextReader{ctx, r}, small))
	if err != nil {
		return nil, false, err
	}
	return b.Bytes(), n == small, nil
}

func (s storage) stage(ctx context.Context, path string, r io.Reader) (n int64, err error) {
	w, err := s.driver.Writer(ctx, path, false)
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
		s.discard(ctx, path)
		return 0, err
	}
	return n, nil
}

// discard removes what nobody refers to. It is garbage if that fails, and swept.
func (s storage) discard(ctx context.Context, path string) {
	cleanup, cancel := afterwards(ctx)
	defer cancel()
	_ = s.driver.Delete(cleanup, path)
}

// afterwards is a context to clean up in, when the request's own may be what ended the work.
func afterwards(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
}

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

// stagingPath is a fresh name: two writers of the same thing do not write into one file.
func stagingPath(generation, repo string) string {
	return below(quarantineRoot+"/"+generation, repo, stagingKind, rand.Text())
}

func newHash(digest string) hash.Hash {
	if strings.HasPrefix(digest, "sha512:") {
		return sha512.New()
	}
	return sha256.New()
}

// checkSum compares, and names both digests: a client's log then shows which one is on its side.
func checkSum(h hash.Hash, digest string) error {
	algorithm, want, _ := strings.Cut(digest, ":")
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("%w: the content is %s:%s and not %s", ErrDigest, algorithm, got, digest)
	}
	return nil
}
