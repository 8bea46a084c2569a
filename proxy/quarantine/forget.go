package quarantine

import (
	"context"
	"fmt"
)

// DeleteBlob forgets a held blob in every generation. One that is not there is forgotten already.
func (s *Store) DeleteBlob(ctx context.Context, repo, digest string) error {
	return s.forget(ctx, repo, blobKind, digest)
}

// DeleteManifest forgets a held manifest in every generation, so that the sweep does not find it either.
func (s *Store) DeleteManifest(ctx context.Context, repo, digest string) error {
	return s.forget(ctx, repo, manifestKind, digest)
}

func (s *Store) forget(ctx context.Context, repo string, k kind, digest string) error {
	o, err := newObject(repo, k, digest)
	if err != nil {
		return err
	}
	generations, err := s.generations(ctx)
	if err != nil {
		return fmt.Errorf("delete %s: %w", o, err)
	}
	for _, g := range generations {
		s.written.Forget(o.in(g))
		if err := s.storage.Remove(ctx, o.in(g)); err != nil {
			return fmt.Errorf("delete %s: %w", o, err)
		}
	}
	return nil
}
