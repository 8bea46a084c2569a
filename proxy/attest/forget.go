package attest

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// DeleteDocument forgets one original. What it listed stays; Delete is for attestations.
func (s *Store) DeleteDocument(ctx context.Context, repo, digest string) error {
	p, err := digestPath(repo, documentKind, digest)
	if err == nil {
		err = s.storage.remove(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("delete document %s of repository %s: %w", shortened(digest), repo, err)
	}
	return nil
}

// Expire deletes the attestations whose newest record is older than before, in all repositories, and says how many. An
// attestation that fails does not keep the others from being deleted.
func (s *Store) Expire(ctx context.Context, before time.Time) (int, error) {
	paths, err := s.storage.files(ctx, "/"+root, func(folder string) bool {
		return strings.HasPrefix(folder, "_") && folder != string(recordKind)
	})
	if err != nil {
		return 0, fmt.Errorf("expire stored attestations: %w", err)
	}
	type stored struct{ repo, attestation string }
	newest := map[stored]time.Time{}
	var errs []error
	for _, p := range paths {
		repo, _, ok := strings.Cut(strings.TrimPrefix(p, "/"+root+"/"), "/"+string(recordKind)+"/")
		if !ok || !keyGrammar.MatchString(path.Base(p)) {
			continue
		}
		r, err := s.readRecord(ctx, p)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if r == nil {
			continue
		}
		k := stored{repo, r.Attestation}
		if r.At.After(newest[k]) {
			newest[k] = r.At
		}
	}
	n := 0
	for k, at := range newest {
		if !at.Before(before) {
			continue
		}
		if err := s.Delete(ctx, k.repo, k.attestation); err != nil && !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}
