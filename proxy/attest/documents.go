package attest

import (
	"bytes"
	"context"
	"fmt"

	"sluice/proxy/internal/objects"
)

// PutDocument keeps a manifest or an index. The bytes must have the digest.
func (s *Store) PutDocument(ctx context.Context, repo, digest, mediaType string, b []byte) error {
	path, err := digestPath(repo, documentKind, digest)
	if err == nil {
		err = s.writeDocument(ctx, path, digest, mediaType, b)
	}
	if err != nil {
		return fmt.Errorf("store document %s of repository %s: %w", digest, repo, err)
	}
	return nil
}

// Document reads a manifest or an index. One that is damaged in the storage is ErrNotFound, and can be put again.
func (s *Store) Document(ctx context.Context, repo, digest string) (mediaType string, b []byte, err error) {
	path, err := digestPath(repo, documentKind, digest)
	if err == nil {
		mediaType, b, err = s.readDocument(ctx, path, digest)
	}
	if err != nil {
		return "", nil, unanswered("read", "stored document", digest, repo, err)
	}
	return mediaType, b, nil
}

// StatDocument is for a document that is relied on without being sent again: when it answers, the document stays for at
// least another day.
func (s *Store) StatDocument(ctx context.Context, repo, digest string) error {
	path, err := digestPath(repo, documentKind, digest)
	if err == nil {
		err = s.renewDocument(ctx, path, digest)
	}
	if err != nil {
		return unanswered("look for", "stored document", digest, repo, err)
	}
	return nil
}

func (s *Store) renewDocument(ctx context.Context, path, digest string) error {
	there, err := s.storage.Stat(ctx, path)
	if objects.Absent(err) {
		return ErrNotFound
	}
	if err != nil || s.fresh(there) {
		return err
	}
	packed, err := s.storage.Get(ctx, path)
	if objects.Absent(err) {
		return ErrNotFound
	}
	if err == nil {
		_, _, err = unpackDocument(packed, path, digest)
	}
	if err != nil {
		return err
	}
	return s.storage.Put(ctx, path, packed) // as it is, whatever else a newer program says of it
}

func (s *Store) writeDocument(ctx context.Context, path, digest, mediaType string, b []byte) error {
	if err := objects.CheckMediaType(mediaType); err != nil {
		return err
	}
	if err := objects.CheckBytes(b, digest); err != nil {
		return err
	}
	packed := make([]byte, 0, len(mediaType)+1+len(b))
	packed = append(packed, mediaType...)
	packed = append(packed, '\n')
	return s.storage.Put(ctx, path, append(packed, b...))
}

func (s *Store) readDocument(ctx context.Context, path, digest string) (mediaType string, b []byte, err error) {
	packed, err := s.storage.Get(ctx, path)
	if objects.Absent(err) {
		return "", nil, ErrNotFound
	}
	if err != nil {
		return "", nil, err
	}
	return unpackDocument(packed, path, digest)
}

// unpackDocument leaves alone what may follow the media type, behind a tab, as it does in the quarantine.
func unpackDocument(packed []byte, path, digest string) (mediaType string, b []byte, err error) {
	line, b, ok := bytes.Cut(packed, []byte("\n"))
	if err := objects.CheckBytes(b, digest); err != nil || !ok {
		return "", nil, fmt.Errorf("%w: %s in the storage is damaged", ErrNotFound, path)
	}
	line, _, _ = bytes.Cut(line, []byte("\t"))
	return string(line), b, nil
}
