package attest

import (
	"context"
	"encoding/json"
	"fmt"

	"sluice/proxy/internal/objects"
)

// Elsewhere says in which repository of a registry the bytes of a blob are, when they are not kept here (store.to).
type Elsewhere struct {
	Repository string `json:"repository"` // as clients name it
	Size       int64  `json:"size"`
}

// PutElsewhere notes where a blob is, which has been put there before. A note lives as long as a blob would: it goes
// with the last record that names its digest.
func (s *Store) PutElsewhere(ctx context.Context, repo, digest string, e Elsewhere) error {
	path, err := digestPath(repo, elsewhereKind, digest)
	if err == nil {
		err = objects.CheckRepository(e.Repository)
	}
	var b []byte
	if err == nil {
		b, err = json.Marshal(e)
	}
	if err == nil {
		err = s.storage.Put(ctx, path, b)
	}
	if err != nil {
		return fmt.Errorf("note where blob %s of repository %s is: %w", objects.Shortened(digest), repo, err)
	}
	return nil
}

// Elsewhere finds where a blob is. ErrNotFound says that nothing is known of it, and a note that is damaged is none:
// the next push writes it again.
func (s *Store) Elsewhere(ctx context.Context, repo, digest string) (Elsewhere, error) {
	path, err := digestPath(repo, elsewhereKind, digest)
	var b []byte
	if err == nil {
		b, err = s.storage.Get(ctx, path)
	}
	if objects.Absent(err) {
		err = ErrNotFound
	}
	var e Elsewhere
	if err == nil && (json.Unmarshal(b, &e) != nil || objects.CheckRepository(e.Repository) != nil || e.Size < 0) {
		err = fmt.Errorf("%w: %s in the storage is damaged", ErrNotFound, path)
	}
	if err != nil {
		return Elsewhere{}, unanswered("look for the place of", "blob", digest, repo, err)
	}
	return e, nil
}
