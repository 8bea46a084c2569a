package attest

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects"
)

// PutBlob keeps what r gives, as a stream, if it has the digest and the size; a size below 0 is not known. When the
// blob is there already, and was written less than a day ago, r is not read: an older one is written again, so that
// Sweep sees that it is in use.
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

// HasLately is true for a blob that this process has put here, and that was still there when StatBlob was last asked.
func (s *Store) HasLately(repo, digest string) bool {
	path, err := digestPath(repo, blobKind, digest)
	return err == nil && s.written.Has(path)
}

// AddBlob is PutBlob for a blob that StatBlob has just not found.
func (s *Store) AddBlob(ctx context.Context, repo, digest string, r io.Reader, size int64) error {
	path, err := digestPath(repo, blobKind, digest)
	if err == nil {
		err = s.addBlob(ctx, path, repo, digest, r, size)
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

// StatBlob is the size of a blob. When it answers, the blob stays for at least another day: whoever asks then does not
// send it.
func (s *Store) StatBlob(ctx context.Context, repo, digest string) (size int64, err error) {
	path, err := digestPath(repo, blobKind, digest)
	if err == nil {
		size, err = s.statBlob(ctx, path, repo, digest)
	}
	if err != nil {
		return 0, unanswered("look for", "stored blob", digest, repo, err)
	}
	return size, nil
}

// unanswered says what was asked for in vain, at little cost where it is not there.
func unanswered(doing, what, digest, repo string, err error) error {
	if err == ErrNotFound { //nolint:errorlint // wrapped it has more to say
		return &objects.Missing{Doing: doing, What: what, Digest: digest, Repository: repo, Err: err}
	}
	return fmt.Errorf("%s %s %s of repository %s: %w", doing, what, objects.Shortened(digest), repo, err)
}

func (s *Store) statBlob(ctx context.Context, path, repo, digest string) (int64, error) {
	look := s.storage.Look
	if s.written.Has(path) {
		look = s.storage.Stat // it is most likely there
	}
	there, err := look(ctx, path)
	if objects.Absent(err) {
		s.written.Forget(path)
		return 0, ErrNotFound
	}
	if err != nil {
		return 0, err
	}
	if s.fresh(there) {
		return there.Size(), nil
	}
	rc, err := s.storage.Open(ctx, path, there.Size(), 0)
	var size int64
	if err == nil {
		defer rc.Close()
		size, err = s.storage.Copy(ctx, path, stagingPath(repo), rc, digest)
	}
	if objects.Absent(err) || errors.Is(err, ErrDigest) { // whoever needs it sends it again, which repairs it
		return 0, fmt.Errorf("%w any more: %s", ErrNotFound, err.Error())
	}
	return size, err
}

// fresh: it was written so recently that no sweep takes it before a push that begins now has come to its end.
func (s *Store) fresh(fi storagedriver.FileInfo) bool {
	return fi.ModTime().After(s.now().Add(-day))
}

func (s *Store) writeBlob(ctx context.Context, path, repo, digest string, r io.Reader, size int64) error {
	there, err := s.storage.Stat(ctx, path)
	if err == nil && (size < 0 || there.Size() == size) && s.fresh(there) {
		return nil
	}
	if err != nil && !objects.Absent(err) {
		return err
	}
	return s.addBlob(ctx, path, repo, digest, r, size)
}

func (s *Store) addBlob(ctx context.Context, path, repo, digest string, r io.Reader, size int64) error {
	content := &checked{r: r, digest: digest, size: size, hash: objects.NewHash(digest)}
	_, err := s.storage.Save(ctx, path, stagingPath(repo), objects.Sized{Reader: content, Size: size}, content.check)
	if objects.Absent(err) { // what was staged has gone
		return fmt.Errorf("%w: %s", ErrStorage, err.Error())
	}
	if err == nil {
		s.written.Put(s.storage, path)
	}
	return err
}

func (s *Store) openBlob(ctx context.Context, path string, offset int64) (io.ReadCloser, int64, error) {
	size, err := s.storage.Size(ctx, path)
	if err == nil && (offset < 0 || offset > size) {
		return nil, 0, fmt.Errorf("%w offset %d, there are %d bytes", ErrInvalid, offset, size)
	}
	var rc io.ReadCloser
	if err == nil {
		rc, err = s.storage.Open(ctx, path, size, offset)
	}
	if objects.Absent(err) {
		return nil, 0, ErrNotFound
	}
	return rc, size, err
}

// checked is content that is to have a digest, and a size unless that is negative.
type checked struct {
	r      io.Reader
	digest string
	size   int64
	hash   hash.Hash // of what was read
	n      int64
}

func (c *checked) Read(p []byte) (int, error) {
	if c.size >= 0 { // one more, to see that there is more
		if c.n > c.size {
			return 0, io.EOF
		}
		p = p[:min(int64(len(p)), c.size+1-c.n)]
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.hash.Write(p[:n])
	return n, err
}

func (c *checked) check() error {
	if c.size >= 0 && c.n != c.size {
		more := ""
		if c.n > c.size {
			more = " or more"
		}
		return fmt.Errorf("%w: the content has %d%s bytes, not %d", ErrDigest, c.n, more, c.size)
	}
	return objects.CheckSum(c.hash, c.digest)
}
