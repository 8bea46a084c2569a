package attest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/proxy/internal/objects"
)

// AlsoPlaced finds another repository than repo with a record of the same manifest in the same place: the same build
// that was pushed to both, where one repository takes the attestations of several. "" is none.
//
// It looks at the names of all records there are, which only a deletion is worth.
func (s *Store) AlsoPlaced(ctx context.Context, repo string, r Record) (other string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("look who else has %s in repository %s: %w", objects.Shortened(r.Placed), r.Repository, err)
		}
	}()
	files, err := s.storage.Files(ctx, "/"+root, func(folder string) bool {
		return strings.HasPrefix(folder, "_") && folder != string(subjectKind)
	})
	if err != nil {
		return "", err
	}
	asked := map[string]bool{repo: true}
	for _, f := range files {
		candidate, k, _, ok := split(f.Path())
		if !ok || k != subjectKind || asked[candidate] {
			continue
		}
		folder, err := digestPath(candidate, subjectKind, r.Subject)
		if err != nil {
			return "", err
		}
		if !strings.HasPrefix(f.Path(), folder+"/") {
			continue
		}
		asked[candidate] = true
		records, err := s.BySubject(ctx, candidate, r.Subject)
		if err != nil {
			return "", err
		}
		if slices.ContainsFunc(records, func(o Record) bool { return o.Repository == r.Repository && o.Placed == r.Placed }) {
			return candidate, nil
		}
	}
	return "", nil
}
