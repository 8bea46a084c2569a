package attest

import (
	"context"
	"fmt"
	"io"
)

// PutBlob keeps what r gives, as a stream, if it has the digest and the size; a size below 0 is not known. When the
// blob is there already r is not read.
func (s *Store) PutBlob(ctx context.Context, repo, digest string, r io.Reader, size int64) error {
	path, err := digestPath(repo, blobKind, digest)
	if err == nil {
		err = s.writeBlob(ctx, path, repo, digest, r, size)
	}
	if err != nil {
		return fmt.Errorf("store blob %s of repository %s: %w", digest, repo, err)
	}
	return nil
}

// OpenBlob reads a blob from offset on; size is that of the whole blob. The caller closes rc.
func (s *Store) OpenBlob(ctx context.Context, repo, digest string, offset int64) (rc io.ReadCloser, size int64, err error) {
	path, err := digestPath(repo, blobKind, digest)
	if err == nil {
		rc, size, err = s.openBlob(ctx, path, offset)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read stored blob %s of repository %s: %w", digest, repo, err)
	}
	return rc, size, nil
}

// StatBlob is the size of a blob.
func (s *Store) StatBlob(ctx context.Context, repo, digest string) (size int64, err error) {
	path, err := digestPath(repo, blobKind, digest)
	if err == nil {
		size, err = s.storage.size(ctx, path)
	}
	if absent(err) {
		err = ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("look for stored blob %s of repository %s: %w", digest, repo, err)
	}
	return size, nil
}

func (s *Store) writeBlob(ctx context.Context, path, repo, digest string, r io.Reader, size int64) error {
	there, err := s.storage.size(ctx, path)
	if err == nil && (size < 0 || there == size) {
		return nil
	}
	if err != nil && !absent(err) {
		return err
	}
	h := newHash(digest)
	if size >= 0 {
		r = io.LimitReader(r, size+1) // one more, to see that there is more
	}
	counted := &counter{r: r}
	_, err = s.storage.save(ctx, path, stagingPath(repo), io.TeeReader(counted, h), func() error {
		if size >= 0 && counted.n != size {
			more := ""
			if counted.n > size {
				more = " or more"
			}
			return fmt.Errorf("%w: the content has %d%s bytes, not %d", ErrDigest, counted.n, more, size)
		}
		return checkSum(h, digest)
	})
	return err
}

func (s *Store) openBlob(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	size, err := s.storage.size(ctx, path)
	if err == nil && (offset < 0 || offset > size) {
		return nil, 0, fmt.Errorf("%w offset %d, there are %d bytes", ErrInvalid, offset, size)
	}
	var rc io.ReadCloser
	if err == nil {
		rc, err = s.storage.open(ctx, path, size, offset)
	}
	if absent(err) {
		return nil, 0, ErrNotFound
	}
	return rc, size, err
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
