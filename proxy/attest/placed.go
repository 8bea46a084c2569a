package attest

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"sluice/proxy/internal/objects"
)

// AlsoPlaced finds another repository than repo with a record of the same manifest in the same place: the same build
// that was pushed to both, where one repository takes the attestations of several. "" is none. alike says that one of
// them has it for the same image. A manifest without a subject is the same for an image and for what that was converted to.
//
// It looks at the names of all records there are, which only a deletion is worth.
func (s *Store) AlsoPlaced(ctx context.Context, repo string, r Record) (other string, alike bool, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("look who else has %s in repository %s: %w", objects.Shortened(r.Placed), r.Repository, err)
		}
	}()
	candidates, err := s.mayBePlaced(ctx, r)
	if err != nil {
		return "", false, err
	}
	delete(candidates, repo)
	for _, candidate := range slices.Sorted(maps.Keys(candidates)) {
		records, err := s.readRecords(ctx, candidates[candidate])
		if err != nil {
			return "", false, err
		}
		for _, o := range records {
			if o.Repository == r.Repository && o.Placed == r.Placed {
				other, alike = candidate, alike || o.Subject == r.Subject
			}
		}
	}
	return other, alike, nil
}

// mayBePlaced are the paths of records, by repository, about the image or about the attestation of one.
func (s *Store) mayBePlaced(ctx context.Context, r Record) (map[string][]string, error) {
	files, err := s.storage.Files(ctx, "/"+root, func(folder string) bool {
		return strings.HasPrefix(folder, "_") && folder != string(subjectKind)
	})
	if err != nil {
		return nil, err
	}
	image, err := objects.Tail(r.Repository, r.Subject)
	if err != nil {
		return nil, err
	}
	found := map[string][]string{}
	for _, f := range files {
		repo, k, rest, ok := split(f.Path())
		if !ok || k != subjectKind {
			continue
		}
		subject, name := path.Split(rest)
		attestation, ok := attestationOf(name)
		if ok && (subject == image+"/" || attestation == r.Attestation) {
			found[repo] = append(found[repo], f.Path())
		}
	}
	return found, nil
}
