package attest

import (
	"context"
	"fmt"

	"sluice/proxy/internal/objects"
)

// Delete forgets an attestation: its records, its manifest, the derived one, and its statements and further needs as
// far as no record of another attestation in the repository names them. Originals stay; they list other things too.
// ErrNotFound when nothing is known of it. After an error, repeating the call goes on; the record that says what there
// is to delete goes last.
//
// Nothing prevents a push of another attestation with the same statement at this very moment. It then finds the
// statement present and records it, and has to be repeated.
func (s *Store) Delete(ctx context.Context, repo, attestationDigest string) error {
	if err := s.delete(ctx, repo, attestationDigest); err != nil {
		return fmt.Errorf("delete attestation %s of repository %s: %w", objects.Shortened(attestationDigest), repo, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, repo, attestation string) error {
	document, err := digestPath(repo, documentKind, attestation)
	if err != nil {
		return err
	}
	folder, err := digestPath(repo, recordKind, attestation)
	if err != nil {
		return err
	}
	unclaimed, err := digestPath(repo, unclaimedKind, attestation)
	if err != nil {
		return err
	}
	known := 0
	if _, err := s.storage.Size(ctx, document); err == nil {
		known++
	} else if !objects.Absent(err) {
		return err
	}
	left, err := s.storage.List(ctx, unclaimed)
	if err != nil {
		return err
	}
	known += len(left)

	ours, shared, err := s.references(ctx, repo, attestation)
	if err != nil {
		return err
	}
	if known+len(ours) == 0 {
		return ErrNotFound
	}
	var doomed []string
	for _, r := range ours {
		places, err := r.places(repo)
		if err != nil {
			return err
		}
		doomed = append(doomed, places[1:]...) // not to be found any more, before its parts go
	}
	for _, r := range ours {
		for _, d := range r.names() {
			if shared[d] {
				continue
			}
			for _, k := range []kind{blobKind, elsewhereKind, documentKind} {
				p, err := digestPath(repo, k, d)
				if err != nil {
					return err
				}
				doomed = append(doomed, p)
			}
		}
	}
	doomed = append(doomed, unclaimed, document, folder)
	done := map[string]bool{}
	for _, p := range doomed {
		if done[p] {
			continue
		}
		done[p] = true
		if err := s.storage.Remove(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// names are the digests that a record keeps, besides the attestation's own and its original's.
func (r Record) names() []string {
	names := append([]string(nil), r.Needs...)
	for _, st := range r.Statements {
		names = append(names, st.Digest)
	}
	if r.Derived != "" && r.Derived != r.Attestation {
		names = append(names, r.Derived)
	}
	return names
}

// references reads every record of a repository: those of one attestation, and all that the others name.
func (s *Store) references(ctx context.Context, repo, attestation string) (ours []Record, shared map[string]bool, err error) {
	records, err := s.recordsOf(ctx, repo)
	if err != nil {
		return nil, nil, err
	}
	shared = map[string]bool{}
	for _, r := range records {
		if r.Attestation == attestation {
			ours = append(ours, r)
			continue
		}
		r.mark(shared)
	}
	return ours, shared, nil
}

// mark adds all that a record names.
func (r Record) mark(named map[string]bool) {
	named[r.Attestation] = true
	named[r.Original] = true
	for _, d := range r.names() {
		named[d] = true
	}
}
