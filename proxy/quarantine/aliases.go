package quarantine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"sluice/filters"
	"sluice/proxy/internal/objects"
)

// Alias says that an original was forwarded as something else, and by which rule. It is a few hundred bytes and kept
// for good: whoever still has the original's digest is told the forwarded one.
type Alias struct {
	Original           string             `json:"original"`
	OriginalMediaType  string             `json:"originalMediaType,omitempty"`
	Forwarded          string             `json:"forwarded"`
	ForwardedMediaType string             `json:"forwardedMediaType,omitempty"`
	ForwardedSize      int64              `json:"forwardedSize,omitempty"`
	Action             filters.Action     `json:"action,omitempty"`
	Unwrap             filters.Unwrap     `json:"unwrap,omitempty"`
	MediaTypes         filters.MediaTypes `json:"mediaTypes,omitempty"` // what images were converted to, "" if they were not
	Rule               string             `json:"rule,omitempty"`
	Taken              []string           `json:"taken,omitempty"` // what the original lists and upstream lacks: attestations, inner originals, images before their conversion
	At                 time.Time          `json:"at"`
}

func aliasFolder(repo, original string) (folder string, err error) {
	tail, err := objects.Tail(repo, original)
	if err != nil {
		return "", err
	}
	return below(aliasRoot, repo, aliasKind, tail), nil
}

// PutAlias writes the record. It is the last write of a push (invariant I6): what it names can be read already. Of two
// records for the same pair the later write stands.
func (s *Store) PutAlias(ctx context.Context, repo string, a Alias) error {
	folder, err := aliasFolder(repo, a.Original)
	if err != nil {
		return err
	}
	if err := objects.CheckDigest(a.Forwarded); err != nil {
		return fmt.Errorf("alias of %s in repository %s: %w", a.Original, repo, err)
	}
	b, err := json.Marshal(a)
	if err == nil {
		err = s.storage.Put(ctx, folder+"/"+objects.Leaf(a.Forwarded), b)
	}
	if err != nil {
		return fmt.Errorf("write the alias of %s to %s in repository %s: %w", a.Original, a.Forwarded, repo, err)
	}
	return nil
}

// Aliases of an original, newest first, and by digest when two are of the same instant. An original has several when
// the rules changed between two pushes. None is no error.
func (s *Store) Aliases(ctx context.Context, repo, original string) ([]Alias, error) {
	folder, err := aliasFolder(repo, original)
	if err != nil {
		return nil, err
	}
	names, err := s.storage.List(ctx, folder)
	if err != nil {
		return nil, fmt.Errorf("list the aliases of %s in repository %s: %w", original, repo, err)
	}
	var found []Alias
	for _, name := range names {
		forwarded, ok := objects.DigestOfLeaf(name)
		if !ok {
			continue
		}
		b, err := s.storage.Get(ctx, folder+"/"+name)
		if objects.Absent(err) {
			continue // deleted since it was listed
		}
		if err != nil {
			return nil, fmt.Errorf("read the alias of %s to %s in repository %s: %w", original, forwarded, repo, err)
		}
		var a Alias
		if err := json.Unmarshal(b, &a); err != nil {
			return nil, malformed(folder+"/"+name, err)
		}
		if a.Original != original || a.Forwarded != forwarded {
			return nil, malformed(folder+"/"+name, fmt.Errorf("it is about %q and %q", objects.Shortened(a.Original), objects.Shortened(a.Forwarded)))
		}
		found = append(found, a)
	}
	slices.SortFunc(found, func(a, b Alias) int {
		return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Forwarded, b.Forwarded))
	})
	return found, nil
}

// DeleteAliases forgets what an original was forwarded as.
func (s *Store) DeleteAliases(ctx context.Context, repo, original string) error {
	folder, err := aliasFolder(repo, original)
	if err != nil {
		return err
	}
	if err := s.storage.Remove(ctx, folder); err != nil {
		return fmt.Errorf("delete the aliases of %s in repository %s: %w", original, repo, err)
	}
	return nil
}

func malformed(path string, err error) error {
	return fmt.Errorf("%w: the record at %s in the storage is malformed, restore it or delete it: %w", ErrStorage, path, err)
}
