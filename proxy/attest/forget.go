package attest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

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

// Expire deletes the records of attestations whose newest one is older than before, in all repositories, and says of
// how many. What is about an attestation is as old as that. Nothing finds these any more, and what no other record names
// goes with the next sweeps: whether a push is about to record it again is what Sweep minds. An attestation that fails does
// not keep the others from being deleted, nor a repository with a malformed record other repositories.
func (s *Store) Expire(ctx context.Context, before time.Time) (int, error) {
	files, err := s.storage.Files(ctx, "/"+root, func(folder string) bool {
		return strings.HasPrefix(folder, "_") && folder != string(recordKind)
	})
	if err != nil {
		return 0, fmt.Errorf("expire stored attestations: %w", err)
	}
	var repos []string // the files of a repository follow each other in most drivers
	for _, f := range files {
		if repo, k, _, ok := split(f.Path()); ok && k == recordKind && keyGrammar.MatchString(path.Base(f.Path())) {
			repos = append(repos, repo)
		}
	}
	slices.Sort(repos)
	n := 0
	var errs []error
	for _, repo := range slices.Compact(repos) {
		expired, err := s.expire(ctx, repo, before)
		n += expired
		if err != nil {
			errs = append(errs, fmt.Errorf("expire stored attestations of repository %s: %w", repo, err))
		}
	}
	return n, errors.Join(errs...)
}

// maxAbout bounds signatures of signatures.
const maxAbout = 8

func (s *Store) expire(ctx context.Context, repo string, before time.Time) (n int, err error) {
	records, err := s.recordsOf(ctx, repo)
	if err != nil {
		return 0, err
	}
	of, original := map[string][]Record{}, map[string]string{}
	for _, r := range records {
		of[r.Attestation] = append(of[r.Attestation], r)
		if r.Derived != "" {
			original[r.Derived] = r.Attestation
		}
	}
	fresh := func(r Record) bool { return !r.At.Before(before) }
	var errs []error
	for attestation, records := range of {
		about := attestation // what is about an attestation, such as its signature, goes with it and not before
		for range maxAbout {
			subject := of[about][0].Subject
			if subject = cmp.Or(original[subject], subject); of[subject] == nil {
				break
			}
			about = subject
		}
		if slices.ContainsFunc(of[about], fresh) {
			continue
		}
		if err := s.deleteRecords(ctx, repo, attestation, records); err != nil {
			errs = append(errs, fmt.Errorf("attestation %s: %w", attestation, err))
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// deleteRecords takes the lookups first: while the first record is there the next call goes on.
func (s *Store) deleteRecords(ctx context.Context, repo, attestation string, records []Record) error {
	doomed, last := []string{}, []string{}
	for _, r := range records {
		places, err := r.places(repo)
		if err != nil {
			return err
		}
		doomed, last = append(doomed, places[1:]...), append(last, places[0])
	}
	unclaimed, err := digestPath(repo, unclaimedKind, attestation)
	if err != nil {
		return err
	}
	for _, p := range slices.Concat(doomed, []string{unclaimed}, last) {
		if err := s.storage.Remove(ctx, p); err != nil {
			return err
		}
	}
	return nil
}
