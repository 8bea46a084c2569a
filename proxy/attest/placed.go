package attest

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects"
)

// AlsoPlaced finds another repository than repo with a record of the same manifest in the same place: the same build
// that was pushed to both, where one repository takes the attestations of several. "" is none. alike says that one of
// them has it for the same image. A manifest without a subject is the same for an image and for what that was converted to.
//
// A repository that has the attestation since less than a day and no record of that may be about to write it, once the
// image is upstream. It counts too, as one that has it for the same image: what is in the place is relied on already. Only
// those can be that store into the place, which storesIn tells of each.
//
// It looks at the names of all records and documents there are, which only a deletion is worth.
func (s *Store) AlsoPlaced(ctx context.Context, repo string, r Record, storesIn func(repo string) string) (other string, alike bool, err error) {
	other, alike, pushed, err := s.placed(ctx, repo, r)
	if i := slices.IndexFunc(pushed, func(repo string) bool { return storesIn(repo) == r.Repository }); i >= 0 {
		return pushed[i], true, nil
	}
	return other, alike, err
}

// PlacedFor finds another repository than repo with a record of this manifest in repo itself. "" is none. subject may be
// empty.
func (s *Store) PlacedFor(ctx context.Context, repo, digest, subject string) (other string, err error) {
	other, _, _, err = s.placed(ctx, repo, Record{Attestation: digest, Subject: subject, Repository: repo, Placed: digest})
	return other, err
}

func (s *Store) placed(ctx context.Context, repo string, r Record) (other string, alike bool, pushed []string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("look who else has %s in repository %s: %w", objects.Shortened(r.Placed), r.Repository, err)
		}
	}()
	records, pushing, err := s.mayBePlaced(ctx, r)
	if err != nil {
		return "", false, nil, err
	}
	delete(records, repo)
	delete(pushing, repo)
	for _, candidate := range slices.Sorted(maps.Keys(records)) {
		found, err := s.readRecords(ctx, records[candidate])
		if err != nil {
			return "", false, nil, err
		}
		for _, o := range found {
			if o.Repository == r.Repository && o.Placed == r.Placed {
				other, alike = candidate, alike || o.Subject == r.Subject
				delete(pushing, candidate)
			}
		}
	}
	return other, alike, slices.Sorted(maps.Keys(pushing)), nil
}

// mayBePlaced are the paths of records, by repository, about the image or about the attestation of one, and the
// repositories to which the attestation has been pushed lately.
func (s *Store) mayBePlaced(ctx context.Context, r Record) (records map[string][]string, pushed map[string]bool, err error) {
	image := ""
	if r.Subject != "" {
		if image, err = objects.Tail(r.Repository, r.Subject); err != nil {
			return nil, nil, err
		}
	}
	forms := []string{r.Attestation, r.Derived, r.Placed} // a client may push any of them
	records, pushed = map[string][]string{}, map[string]bool{}
	err = s.storage.Each(ctx, "/"+root, func(folder string) bool {
		return isKind(folder) && folder != string(subjectKind) && folder != string(documentKind)
	}, func(f storagedriver.FileInfo) error {
		repo, k, rest, ok := split(f.Path())
		switch {
		case !ok:
		case k == documentKind:
			digest, ok := objects.DigestOfTail(rest)
			if ok && slices.Contains(forms, digest) && s.fresh(f) {
				pushed[repo] = true
			}
		case k == subjectKind:
			subject, name := path.Split(rest)
			attestation, ok := attestationOf(name)
			if ok && (subject == image+"/" || attestation == r.Attestation) {
				records[repo] = append(records[repo], f.Path())
			}
		}
		return nil
	})
	return records, pushed, err
}
