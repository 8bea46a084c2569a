package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"sluice/proxy/internal/objects"
)

// Elsewhere says in which repository of a registry the bytes of a blob are, when they are not kept here (store.to).
type Elsewhere struct {
	Repository string `json:"repository"` // as clients name it
	Size       int64  `json:"size"`
	// Also are others where it was put before, when the configuration said so, the last one first. An attestation that was
	// stored then has it there, and what removes another one from Repository may take it away.
	Also []string `json:"also,omitempty"`
}

// mostAlso bounds in how many repositories somebody looks for what is nowhere any more.
const mostAlso = 8

// PutElsewhere notes where a blob is, which has been put there before, and keeps what another note says. A note lives as
// long as a blob would: it goes with the last record that names its digest.
func (s *Store) PutElsewhere(ctx context.Context, repo, digest string, e Elsewhere) error {
	path, err := digestPath(repo, elsewhereKind, digest)
	if err == nil {
		err = objects.CheckRepository(e.Repository)
	}
	var was Elsewhere
	if err == nil {
		was, err = s.elsewhere(ctx, path)
	}
	var b []byte
	if errors.Is(err, ErrNotFound) {
		err = nil
	} else if err == nil {
		e.Also = slices.DeleteFunc(append([]string{was.Repository}, was.Also...), func(repo string) bool { return repo == e.Repository })
		e.Also = e.Also[:min(len(e.Also), mostAlso)]
	}
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
	var e Elsewhere
	if err == nil {
		e, err = s.elsewhere(ctx, path)
	}
	if err != nil {
		return Elsewhere{}, unanswered("look for the place of", "blob", digest, repo, err)
	}
	return e, nil
}

func (s *Store) elsewhere(ctx context.Context, path string) (e Elsewhere, err error) {
	b, err := s.storage.Get(ctx, path)
	if objects.Absent(err) {
		return e, ErrNotFound
	}
	if err != nil {
		return e, err
	}
	bad := func(repo string) bool { return objects.CheckRepository(repo) != nil }
	if json.Unmarshal(b, &e) != nil || bad(e.Repository) || slices.ContainsFunc(e.Also, bad) || e.Size < 0 {
		return Elsewhere{}, fmt.Errorf("%w: %s in the storage is damaged", ErrNotFound, path)
	}
	return e, nil
}
