package attest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/proxy/internal/objects"
)

// Expire deletes the records of attestations whose newest one is older than before, in all repositories, and says of
// how many. What is about an attestation is as old as that. Nothing finds these any more, and what no other record names
// goes with the next sweeps: whether a push is about to record it again is what Sweep minds. One that is recorded anew
// meanwhile stays, with what is about it. An attestation that fails does not keep the others from being deleted, nor a
// repository with a malformed record other repositories.
func (s *Store) Expire(ctx context.Context, before time.Time) (int, error) {
	repos, err := s.repositories(ctx)
	if err != nil {
		return 0, fmt.Errorf("expire stored attestations: %w", err)
	}
	n := 0
	var errs []error
	for _, repo := range repos {
		expired, err := s.expire(ctx, repo, before)
		n += expired
		if err != nil {
			errs = append(errs, fmt.Errorf("expire stored attestations of repository %s: %w", repo, err))
		}
	}
	return n, errors.Join(errs...)
}

// A lifetime is what of the records of one attestation says whether it expires.
type lifetime struct {
	subject string
	newest  time.Time
}

func (s *Store) expire(ctx context.Context, repo string, before time.Time) (n int, err error) {
	of, original := map[string]lifetime{}, map[string]string{}
	err = s.eachRecord(ctx, repo, nil, func(r Record, lost bool) error {
		e, ok := of[r.Attestation]
		if !ok {
			e.subject = r.Subject
		}
		if r.At.After(e.newest) {
			e.newest = r.At
		}
		of[r.Attestation] = e
		if r.Derived != "" {
			original[r.Derived] = r.Attestation
		}
		if lost {
			return s.PutRecord(ctx, repo, r) // by which it is found when it expires
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var errs []error
	for attestation := range of {
		about := attestation // what is about an attestation, such as its signature, goes with it and not before
		for range objects.MaxAbout {
			subject := of[about].subject
			subject = cmp.Or(original[subject], subject)
			if _, ok := of[subject]; !ok {
				break
			}
			about = subject
		}
		if !of[about].newest.Before(before) {
			continue
		}
		gone, err := s.expireOne(ctx, repo, attestation, about, before)
		if err != nil {
			errs = append(errs, fmt.Errorf("attestation %s: %w", attestation, err))
		}
		if len(errs) == failuresAtOnce {
			break
		}
		if gone {
			n++
		}
	}
	return n, errors.Join(errs...)
}

// expireOne deletes the records of an attestation, the lookups first: while the first record is there the next call goes on.
// The same may be pushed at this very moment, in which what is written has the same names. So the records are read once more
// before they go, and the lookups after that: a push writes them last, and these were all gone.
func (s *Store) expireOne(ctx context.Context, repo, attestation, about string, before time.Time) (gone bool, err error) {
	read, both := map[string][]Record{}, slices.Compact([]string{attestation, about})
	for _, a := range both {
		if read[a], err = s.ByAttestation(ctx, repo, a); err != nil {
			return false, err
		}
	}
	if len(read[attestation]) == 0 || slices.ContainsFunc(read[about], func(r Record) bool { return !r.At.Before(before) }) {
		return false, nil // another replica was faster, or it was pushed since
	}
	for _, r := range read[attestation] {
		places, err := r.places(repo)
		if err == nil {
			err = s.removeEach(ctx, places[1:])
		}
		if err != nil {
			return false, err
		}
	}
	for _, a := range both {
		pushed, err := s.pushedSince(ctx, repo, a, read[a])
		if err != nil {
			return false, err
		}
		if pushed {
			return false, s.findAgain(ctx, repo, attestation)
		}
	}
	unclaimed, err := digestPath(repo, unclaimedKind, attestation)
	if err == nil {
		err = s.removeEach(ctx, []string{unclaimed})
	}
	if err != nil {
		return false, err
	}
	gone = true
	for _, r := range read[attestation] {
		removed, err := s.removeRecord(ctx, repo, r)
		if err != nil {
			return false, err
		}
		gone = gone && removed
	}
	return gone, nil
}

// removeRecord removes a record whose lookups are gone. It is written again if one of them is there by then.
func (s *Store) removeRecord(ctx context.Context, repo string, r Record) (removed bool, err error) {
	places, err := r.places(repo)
	if err == nil {
		err = s.removeEach(ctx, places[:1])
	}
	var again []Record
	if err == nil {
		again, err = s.readRecords(ctx, places[1:])
	}
	if err == nil && len(again) > 0 {
		err = s.PutRecord(ctx, repo, again[0])
	}
	return len(again) == 0, err
}

func (s *Store) removeEach(ctx context.Context, paths []string) error {
	for _, p := range paths {
		if err := s.storage.Remove(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// pushedSince says whether an attestation has a record that was written after these were read. It is compared with what
// was read, and not with the time of the expiry: what is about an attestation may be young and expires all the same.
func (s *Store) pushedSince(ctx context.Context, repo, attestation string, read []Record) (bool, error) {
	now, err := s.ByAttestation(ctx, repo, attestation)
	return slices.ContainsFunc(now, func(r Record) bool {
		return !slices.ContainsFunc(read, func(was Record) bool { return was.key() == r.key() && !r.At.After(was.At) })
	}), err
}

// findAgain writes the lookups of all records that an attestation has.
func (s *Store) findAgain(ctx context.Context, repo, attestation string) error {
	records, err := s.ByAttestation(ctx, repo, attestation)
	for _, r := range records {
		if err == nil {
			err = s.PutRecord(ctx, repo, r)
		}
	}
	return err
}
