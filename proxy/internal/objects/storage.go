// Package objects keeps content-addressed objects in a storage driver of the distribution registry, without locks: the
// names they may have, and the few operations on them that mean the same over every driver.
//
// An object appears as a whole or not at all. Errors say whose they are: ErrInvalid and ErrDigest are the caller's,
// ErrStorage the driver's; that something is not there is none of these, and found by Absent. An error of a reader that
// the caller gave, and of its context, is passed on as it is.
package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"path"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

var (
	// ErrInvalid says that a repository, tag, digest or other name is outside its grammar.
	ErrInvalid = errors.New("invalid")
	// ErrDigest says that content does not have the digest, or the size, that was announced; the message names both.
	ErrDigest = errors.New("digest mismatch")
	// ErrStorage says that the storage driver failed, and not the client and not the data: `on_storage_error` applies.
	ErrStorage = errors.New("storage failed")
)

// Small is what is kept in memory and written in one call. In a bucket that is one request instead of three, and
// every driver makes PutContent visible as a whole. It bounds the memory of one operation.
const Small = 256 << 10

// Storage gives the driver's calls one meaning of "not there", and marks its failures with ErrStorage.
type Storage struct {
	Driver storagedriver.StorageDriver
	Small  int64 // 0: the constant. Tests of large objects are faster when less is large.
}

// IsSmall says whether n bytes are written and read in one call.
func (s Storage) IsSmall(n int64) bool { return n < s.small() }

func (s Storage) small() int64 {
	if s.Small > 0 {
		return s.Small
	}
	return Small
}

// Absent: drivers say PathNotFoundError, but the filesystem one also passes on what the system says when a folder goes
// while it is read, inside an error that does not unwrap.
func Absent(err error) bool {
	if err == nil {
		return false
	}
	if _, is := errors.AsType[storagedriver.PathNotFoundError](err); is || errors.Is(err, fs.ErrNotExist) {
		return true
	}
	other, is := errors.AsType[storagedriver.Error](err)
	return is && Absent(other.Detail)
}

// failed marks a driver's error, except that something is not there and that the caller gave up. Drivers hide the
// context's error in one of their own that does not unwrap, so the context is asked.
func failed(ctx context.Context, err error) error {
	switch {
	case err == nil || Absent(err):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return fmt.Errorf("%w: %w", ErrStorage, err)
}

// Get reads a whole object.
func (s Storage) Get(ctx context.Context, path string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b, err := s.Driver.GetContent(ctx, path)
	return b, failed(ctx, err)
}

// How often a write is tried that meets something else at the same place, and how long it waits at most, times the try.
const (
	writes        = 5
	conflictPause = 50 * time.Millisecond
)

// conflicts is true for a bucket's 409: something else is happening there at this moment, and the request may be made again
// (S3, "Error responses": OperationAborted). Gateways over a file system say it while the last object of a folder goes, as
// versitygw with ExistingObjectIsDirectory. The SDK does not repeat it.
func conflicts(err error) bool {
	if other, is := errors.AsType[storagedriver.Error](err); is { // which does not unwrap
		err = other.Detail
	}
	var answer interface{ StatusCode() int } // awserr.RequestFailure
	return errors.As(err, &answer) && answer.StatusCode() == http.StatusConflict
}

// alone makes a call that writes, again where it meets something else.
func alone(ctx context.Context, do func() error) error {
	err := do()
	for try := 1; try < writes && conflicts(err) && ctx.Err() == nil; try++ {
		time.Sleep(rand.N(time.Duration(try) * conflictPause))
		err = do()
	}
	return err
}

// Put writes a whole object.
func (s Storage) Put(ctx context.Context, path string, content []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := alone(ctx, func() error { return s.Driver.PutContent(ctx, path, content) })
	if Absent(err) { // what is written need not be there
		return fmt.Errorf("%w: %s", ErrStorage, err.Error())
	}
	return failed(ctx, err)
}

// Stat describes the object at path. A folder is not an object.
func (s Storage) Stat(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	fi, err := s.Driver.Stat(ctx, path)
	if err != nil {
		return nil, failed(ctx, err)
	}
	if fi.IsDir() {
		return nil, storagedriver.PathNotFoundError{Path: path, DriverName: s.Driver.Name()}
	}
	return fi, nil
}

// Size of the object at path.
func (s Storage) Size(ctx context.Context, path string) (int64, error) {
	fi, err := s.Stat(ctx, path)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Immediate says that the driver answers at once: several questions may as well be asked one after another, since a
// goroutine for each of them would cost more than the answers.
func (s Storage) Immediate() bool {
	d, ok := s.Driver.(interface{ Immediate() bool })
	return ok && d.Immediate()
}

// Look is Stat for what is most likely not there. In a bucket that takes one request, and Stat would take two: the S3
// driver's Stat lists after HeadObject has found nothing, as there might be a folder.
func (s Storage) Look(ctx context.Context, path string) (storagedriver.FileInfo, error) {
	if s.Immediate() {
		return s.Stat(ctx, path)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := s.Driver.Reader(ctx, path, 0)
	if err != nil {
		return nil, failed(ctx, err)
	}
	_ = r.Close() // nothing was read
	return s.Stat(ctx, path)
}

// Move gives an object another name, in place of what has that name.
func (s Storage) Move(ctx context.Context, from, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return failed(ctx, alone(ctx, func() error { return s.Driver.Move(ctx, from, to) }))
}

// Remove deletes path and all below it. That it is not there is what was wanted.
func (s Storage) Remove(ctx context.Context, path string) error {
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := s.Driver.Delete(ctx, path)
		if Absent(err) {
			return nil
		}
		if !beaten(err) || try == removals {
			return failed(ctx, err)
		}
	}
}

// removals is how often Remove lists what is left when another removes the same.
const removals = 5

// beaten says that an object was gone when it was to be deleted, since another replica sweeps too. Amazon's S3 calls that
// deleted, versitygw an error, of which distribution's driver keeps the text.
func beaten(err error) bool {
	return err != nil && strings.Contains(err.Error(), "NoSuchKey")
}

// RemoveAll is Remove of so much that it may take long, for which no client waits.
func (s Storage) RemoveAll(ctx context.Context, path string) error {
	if p, ok := s.Driver.(*Patient); ok {
		s.Driver = p.patiently()
	}
	return s.Remove(ctx, path)
}

// Discard removes what nobody refers to, also when ctx has ended. It is garbage if that fails, and swept.
func (s Storage) Discard(ctx context.Context, path string) {
	cleanup, cancel := afterwards(ctx)
	defer cancel()
	_ = s.Driver.Delete(cleanup, path)
}

// List returns the names below a folder; none when there is no such folder, since buckets have no empty ones.
func (s Storage) List(ctx context.Context, dir string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	paths, err := s.Driver.List(ctx, dir)
	if Absent(err) {
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

// Walk visits everything below a folder. It is absent when a folder vanished under it: not everything was seen then.
func (s Storage) Walk(ctx context.Context, from string, visit storagedriver.WalkFn) error {
	err := s.Driver.Walk(ctx, from, func(fi storagedriver.FileInfo) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return visit(fi)
	})
	return failed(ctx, err)
}

// Each visits all objects below a folder, except in folders with a name that skip refuses; skip may be nil. What Walk did not
// see must not be taken for not there: it is repeated, and visits some more than once. An error of visit ends it,
// ErrFilledBuffer of the driver's as a success. After an error a walk that was given up may still be going on: what visit
// fills is then nobody's.
func (s Storage) Each(ctx context.Context, from string, skip func(name string) bool, visit storagedriver.WalkFn) error {
	for try := 0; ; try++ {
		err := s.Walk(ctx, from, func(fi storagedriver.FileInfo) error {
			switch {
			case !fi.IsDir():
				return visit(fi)
			case skip != nil && skip(path.Base(fi.Path())):
				return storagedriver.ErrSkipDir
			}
			return nil
		})
		if !Absent(err) {
			return err
		}
		top, err := s.List(ctx, from)
		if err != nil || len(top) == 0 {
			return err
		}
		if try == 9 {
			return fmt.Errorf("%w: %s changes all the time while it is listed, try again", ErrStorage, from)
		}
	}
}
