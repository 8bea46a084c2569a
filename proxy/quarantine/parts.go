package quarantine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"sluice/proxy/internal/objects"
)

// MaxParts bounds the parts of one upload. 128 MiB, the default of max_held_blob, in BuildKit's chunks are fewer.
const MaxParts = 100_000

// WritePart keeps part n of an upload, all that r gives, and returns how much that was. More than max bytes are
// ErrTooLarge, a number that no part may have is ErrTooMany, and nothing is kept; an error of r is returned as it is and nothing is kept either. Writing a part again
// replaces it. The generation is the one in which the upload began, and stays the same for all its parts.
func (s *Store) WritePart(ctx context.Context, generation, repo, id string, n int, r io.Reader, max int64) (int64, error) {
	upload, err := uploadPath(generation, repo, id)
	if err != nil {
		return 0, err
	}
	if n >= MaxParts {
		return 0, fmt.Errorf("upload %s to repository %s: %w: %d is the most", id, repo, ErrTooMany, MaxParts)
	}
	if n < 0 {
		return 0, fmt.Errorf("%w number %d of a part of upload %s to repository %s", ErrInvalid, n, id, repo)
	}
	limited := &limitedReader{r: r, left: max}
	part := partPath(upload, n)
	size, err := s.storage.Save(ctx, part, part+"-"+rand.Text(), limited, nil)
	if errors.Is(err, ErrTooLarge) {
		return 0, fmt.Errorf("part %d of upload %s to repository %s: %w: more than %d bytes", n, id, repo, ErrTooLarge, max)
	}
	if objects.Absent(err) { // a request of the same client, at the same time, has assembled or dropped the upload
		err = fmt.Errorf("%w any more, the upload has ended meanwhile: %s", ErrNotFound, err.Error())
	}
	if err != nil {
		return 0, fmt.Errorf("keep part %d of upload %s to repository %s: %w", n, id, repo, err)
	}
	return size, nil
}

// Assemble makes a held blob of the parts 0 to parts-1 if together they have the digest, and then removes them. The
// blob belongs to today's generation. With ErrDigest the parts are still there. Repeating a call that succeeded, or
// whose answer was lost, succeeds.
func (s *Store) Assemble(ctx context.Context, generation, repo, id string, parts int, digest string) (size int64, err error) {
	upload, err := uploadPath(generation, repo, id)
	if err != nil {
		return 0, err
	}
	o, err := newObject(repo, blobKind, digest)
	if err != nil {
		return 0, err
	}
	if parts < 0 || parts > MaxParts {
		return 0, fmt.Errorf("%w number of parts %d of upload %s to repository %s", ErrInvalid, parts, id, repo)
	}
	// The parts are copied even when there is only one that could be moved: what was hashed is then what is kept,
	// also when the client writes the part again at the same time.
	today := s.Generation()
	all := &partsReader{ctx: ctx, storage: s.storage, upload: upload, parts: parts}
	defer all.Close()
	size, err = s.storage.Copy(ctx, o.in(today), stagingPath(today, repo), all, digest)
	if objects.Absent(err) {
		// A call before this one got as far as removing the parts.
		size, found := s.StatBlob(ctx, repo, digest)
		if found == nil {
			return size, nil
		}
		if !errors.Is(found, ErrNotFound) {
			return 0, found
		}
		return 0, fmt.Errorf("assemble %s: part %d of upload %s: %w: %s", o, all.next-1, id, ErrNotFound, err.Error())
	}
	if err != nil {
		return 0, fmt.Errorf("assemble %s from upload %s: %w", o, id, err)
	}
	s.written.Put(s.storage, o.in(today))
	s.storage.Discard(ctx, upload) // the blob is there, which is what was asked for; parts are swept at the latest
	return size, nil
}

// HasPart tells whether part n of an upload is there. It is not when the upload has been assembled or dropped.
func (s *Store) HasPart(ctx context.Context, generation, repo, id string, n int) (bool, error) {
	upload, err := uploadPath(generation, repo, id)
	if err != nil {
		return false, err
	}
	if _, err = s.storage.Size(ctx, partPath(upload, n)); objects.Absent(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for part %d of upload %s to repository %s: %w", n, id, repo, err)
	}
	return true, nil
}

// Parts reads the parts 0 to parts-1 of an upload one after the other.
func (s *Store) Parts(ctx context.Context, generation, repo, id string, parts int) (io.ReadCloser, error) {
	upload, err := uploadPath(generation, repo, id)
	if err != nil {
		return nil, err
	}
	if parts < 0 || parts > MaxParts {
		return nil, fmt.Errorf("%w number of parts %d of upload %s to repository %s", ErrInvalid, parts, id, repo)
	}
	return &partsReader{ctx: ctx, storage: s.storage, upload: upload, parts: parts}, nil
}

// DropParts forgets an upload.
func (s *Store) DropParts(ctx context.Context, generation, repo, id string) error {
	upload, err := uploadPath(generation, repo, id)
	if err != nil {
		return err
	}
	if err := s.storage.Remove(ctx, upload); err != nil {
		return fmt.Errorf("drop upload %s to repository %s: %w", id, repo, err)
	}
	return nil
}

// partsReader reads the parts of an upload one after the other, with one of them open at a time.
type partsReader struct {
	ctx     context.Context
	storage objects.Storage
	upload  string
	parts   int
	next    int
	current io.ReadCloser
}

func (r *partsReader) Read(p []byte) (int, error) {
	for {
		if r.current == nil {
			if r.next >= r.parts {
				return 0, io.EOF
			}
			r.next++
			path := partPath(r.upload, r.next-1)
			size, err := r.storage.Size(r.ctx, path)
			if err != nil {
				return 0, err
			}
			if r.current, err = r.storage.Open(r.ctx, path, size, 0); err != nil {
				r.current = nil
				return 0, err
			}
		}
		n, err := r.current.Read(p)
		if err != io.EOF {
			return n, err
		}
		if err := r.Close(); err != nil {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (r *partsReader) Close() error {
	if r.current == nil {
		return nil
	}
	err := r.current.Close()
	r.current = nil
	return err
}

// limitedReader is io.LimitReader with an error in place of the end, since a blob that was cut is not the blob.
type limitedReader struct {
	r    io.Reader
	left int64
}

func (l *limitedReader) Read(p []byte) (int, error) {
	if l.left < 0 {
		return 0, ErrTooLarge
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, ErrTooLarge
	}
	return n, err
}
