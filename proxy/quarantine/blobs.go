package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/proxy/internal/objects"
)

// PutBlob holds a blob whose digest the caller has checked.
func (s *Store) PutBlob(ctx context.Context, repo, digest string, content []byte) error {
	o, err := newObject(repo, blobKind, digest)
	if err != nil {
		return err
	}
	generation := s.Generation()
	if err := s.putBlob(ctx, o, generation, content); err != nil {
		return fmt.Errorf("hold %s: %w", o, err)
	}
	s.written.Put(s.storage, o.in(generation))
	return nil
}

func (s *Store) putBlob(ctx context.Context, o object, generation string, content []byte) error {
	if s.storage.IsSmall(int64(len(content))) {
		return s.storage.Put(ctx, o.in(generation), content)
	}
	size, err := s.storage.Size(ctx, o.in(generation))
	if err == nil && size == int64(len(content)) {
		return nil
	}
	if err != nil && !objects.Absent(err) {
		return err
	}
	_, err = s.storage.Save(ctx, o.in(generation), stagingPath(generation, o.repo), bytes.NewReader(content), nil)
	return err
}

// OpenBlob reads a held blob from offset on; size is that of the whole blob. The caller closes rc.
func (s *Store) OpenBlob(ctx context.Context, repo, digest string, offset int64) (rc io.ReadCloser, size int64, err error) {
	o, err := newObject(repo, blobKind, digest)
	if err != nil {
		return nil, 0, err
	}
	size, at, err := search(ctx, s, o, s.sizeOf)
	switch {
	case err != nil:
	case offset < 0 || offset > size:
		err = fmt.Errorf("%w offset %d, there are %d bytes", ErrInvalid, offset, size)
	default:
		if rc, err = s.storage.Open(ctx, o.in(at.generation), size, offset); objects.Absent(err) {
			err = fmt.Errorf("%w any more: %s", ErrNotFound, o)
		}
	}
	if err != nil {
		return nil, 0, o.unanswered("read", err)
	}
	return rc, size, nil
}

// FindBlob is StatBlob, and open reads the blob from where it was found, as OpenBlob does, without looking for it again.
func (s *Store) FindBlob(ctx context.Context, repo, digest string) (size int64, open func(ctx context.Context, offset int64) (io.ReadCloser, error), err error) {
	size, generation, err := s.statBlob(ctx, repo, digest)
	if err != nil {
		return 0, nil, err
	}
	return size, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		o, err := newObject(repo, blobKind, digest)
		if err == nil && (offset < 0 || offset > size) {
			err = fmt.Errorf("%w offset %d, there are %d bytes", ErrInvalid, offset, size)
		}
		if err != nil {
			return nil, err
		}
		rc, err := s.storage.Open(ctx, o.in(generation), size, offset)
		if objects.Absent(err) { // swept or deleted; another generation may have it
			rc, _, err = s.OpenBlob(ctx, repo, digest, offset)
		} else if err != nil {
			err = fmt.Errorf("read %s: %w", o, err)
		}
		return rc, err
	}, nil
}

// StatBlob is the size of a held blob. When it answers, the blob stays for at least another day.
func (s *Store) StatBlob(ctx context.Context, repo, digest string) (size int64, err error) {
	size, _, err = s.statBlob(ctx, repo, digest)
	return size, err
}

func (s *Store) statBlob(ctx context.Context, repo, digest string) (size int64, generation string, err error) {
	o, err := newObject(repo, blobKind, digest)
	if err != nil {
		return 0, "", err
	}
	size, at, err := search(ctx, s, o, s.sizeOf)
	if err == nil && at.dying {
		from := at.generation
		at.generation = s.Generation()
		size, err = s.copyBlob(ctx, o, from, at.generation)
	}
	if err != nil {
		return 0, "", o.unanswered("look for", err)
	}
	return size, at.generation, nil
}

func (s *Store) sizeOf(ctx context.Context, path string) (int64, error) {
	look := s.storage.Look
	if s.written.Has(path) {
		look = s.storage.Stat // it is most likely there
	}
	fi, err := look(ctx, path)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// copyBlob copies from one generation into another. A blob that was swept meanwhile or that is damaged is not found:
// the client then sends it.
func (s *Store) copyBlob(ctx context.Context, o object, from, to string) (int64, error) {
	size, err := s.storage.Size(ctx, o.in(from))
	if err == nil {
		var rc io.ReadCloser
		if rc, err = s.storage.Open(ctx, o.in(from), size, 0); err == nil {
			defer rc.Close()
			size, err = s.storage.Copy(ctx, o.in(to), stagingPath(to, o.repo), rc, o.digest)
		}
	}
	if objects.Absent(err) || errors.Is(err, ErrDigest) {
		return 0, fmt.Errorf("%w any more: %s", ErrNotFound, err.Error())
	}
	if err == nil {
		s.written.Put(s.storage, o.in(to))
		s.tellCopied(o, to)
	}
	return size, err
}

func (s *Store) tellCopied(o object, to string) {
	if s.copied != nil {
		s.copied(o.kind.noun(), o.repo, o.digest, to)
	}
}

// bring puts a blob into the generation, if any other holds it. A blob that is not held may be upstream.
func (s *Store) bring(ctx context.Context, repo, digest, generation string) error {
	o, err := newObject(repo, blobKind, digest)
	if err != nil {
		return err
	}
	if s.written.Has(o.in(generation)) {
		return nil // if it has been deleted since, then everywhere
	}
	if _, err := s.storage.Size(ctx, o.in(generation)); !objects.Absent(err) {
		return err
	}
	_, from, err := search(ctx, s, o, s.sizeOf)
	if err == nil && from.generation != generation {
		_, err = s.copyBlob(ctx, o, from.generation, generation)
	}
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
