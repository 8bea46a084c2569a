package attest

import (
	"context"
	"fmt"
	"slices"

	"sluice/proxy/internal/objects"
)

// DeleteDocument forgets one original. What it listed stays; Delete is for attestations.
func (s *Store) DeleteDocument(ctx context.Context, repo, digest string) error {
	p, err := digestPath(repo, documentKind, digest)
	if err == nil {
		err = s.storage.Remove(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("delete document %s of repository %s: %w", objects.Shortened(digest), repo, err)
	}
	return nil
}

// Recorded says whether any record is about an attestation. One that is stored without was part of a push that did not
// come to its end.
func (s *Store) Recorded(ctx context.Context, repo, attestation string) (bool, error) {
	folder, err := digestPath(repo, recordKind, attestation)
	var names []string
	if err == nil {
		names, err = s.storage.List(ctx, folder)
	}
	if err != nil {
		return false, fmt.Errorf("look for records of attestation %s in repository %s: %w", objects.Shortened(attestation), repo, err)
	}
	return slices.ContainsFunc(names, keyGrammar.MatchString), nil
}
