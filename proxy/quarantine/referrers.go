package quarantine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
)

// referrerLife is how long a record of a referrer counts, by the clock of whoever reads it. It has to outlast the changes
// that were under way when it was written, which is a matter of minutes, on replicas whose clocks are an hour apart.
const referrerLife = 3 * time.Hour

// referrerReaders is how many records are read at once.
const referrerReaders = 16

// Referrer says that the list of a subject's referrers gets an entry, or loses it. Replicas tell each other so, because
// a registry has no compare-and-swap: whoever writes the whole list knows by the records what others are adding to it
// and taking from it. That something was removed is a record too. Without it, one who read the list before would put
// back what was removed, and nobody could tell that from an entry which was always there.
type Referrer struct {
	Descriptor ocispec.Descriptor `json:"descriptor"` // of a removed one the digest is enough
	Removed    bool               `json:"removed,omitempty"`
	At         time.Time          `json:"at"`
}

func referrerFolder(generation, repo, subject string) (string, error) {
	tail, err := objects.Tail(repo, subject)
	if err != nil {
		return "", err
	}
	return below(quarantineRoot+"/"+generation, repo, referrerKind, tail), nil
}

// referrerDays are the generations in which a record that counts may be, today's first. They are not listed: nearly
// always it is one.
func (s *Store) referrerDays() []string {
	now := s.now()
	days := []string{s.dayOf(now)}
	for _, t := range []time.Time{now.Add(skew), now.Add(-referrerLife)} {
		if d := s.dayOf(t); !slices.Contains(days, d) {
			days = append(days, d)
		}
	}
	return days
}

// PutReferrer writes the record, with the time of now, in place of any other about the same referrer of the subject.
func (s *Store) PutReferrer(ctx context.Context, repo, subject string, r Referrer) error {
	digest := r.Descriptor.Digest.String()
	if err := objects.CheckDigest(digest); err != nil {
		return fmt.Errorf("referrer of %s in repository %s: %w", objects.Shortened(subject), objects.Shortened(repo), err)
	}
	r.At = s.now().UTC()
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the record of referrer %s of %s in repository %s: %w", digest, subject, repo, err)
	}
	for i, day := range s.referrerDays() {
		folder, err := referrerFolder(day, repo, subject)
		if err != nil {
			return err
		}
		path := folder + "/" + objects.Leaf(digest)
		if i == 0 {
			err = s.storage.Put(ctx, path, b)
		} else {
			err = s.storage.Remove(ctx, path) // a clock that is ahead would have the last word
		}
		if err != nil {
			return fmt.Errorf("write the record of referrer %s of %s in repository %s: %w", digest, subject, repo, err)
		}
	}
	return nil
}

// Referrers are the records about a subject that count, oldest first, one for each referrer. None is no error. With an
// error come the records that could be read all the same.
func (s *Store) Referrers(ctx context.Context, repo, subject string) ([]Referrer, error) {
	var paths []string
	var errs []error
	for _, day := range s.referrerDays() {
		folder, err := referrerFolder(day, repo, subject)
		if err != nil {
			return nil, err
		}
		names, err := s.storage.List(ctx, folder)
		if err != nil {
			errs = append(errs, fmt.Errorf("list the records of referrers of %s in repository %s: %w", subject, repo, err))
		}
		for _, name := range names {
			if _, ok := objects.DigestOfLeaf(name); ok {
				paths = append(paths, folder+"/"+name)
			}
		}
	}
	read := make([]*Referrer, len(paths))
	failed := make([]error, len(paths))
	g := contain.NewGroup()
	g.SetLimit(referrerReaders)
	if s.storage.Immediate() {
		g.SetLimit(1)
	}
	for i, path := range paths {
		g.Go(func() error {
			read[i], failed[i] = s.referrer(ctx, path)
			return nil
		})
	}
	errs = append(errs, g.Wait()) // a bug only: the errors are in failed
	newest := map[string]Referrer{}
	for _, r := range read {
		if r == nil || s.now().Sub(r.At) > referrerLife {
			continue
		}
		digest := r.Descriptor.Digest.String()
		if other, ok := newest[digest]; !ok || r.At.After(other.At) {
			newest[digest] = *r
		}
	}
	var found []Referrer
	for _, r := range newest {
		found = append(found, r)
	}
	slices.SortFunc(found, func(a, b Referrer) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Descriptor.Digest, b.Descriptor.Digest))
	})
	return found, errors.Join(append(errs, failed...)...)
}

// referrer reads one record; nil when it is gone since it was listed.
func (s *Store) referrer(ctx context.Context, path string) (*Referrer, error) {
	b, err := s.storage.Get(ctx, path)
	if objects.Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the record of a referrer at %s: %w", path, err)
	}
	var r Referrer
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, malformed(path, err)
	}
	if digest := r.Descriptor.Digest.String(); !strings.HasSuffix(path, "/"+objects.Leaf(digest)) {
		return nil, malformed(path, fmt.Errorf("it is about %q", objects.Shortened(digest)))
	}
	return &r, nil
}
