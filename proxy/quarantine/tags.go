package quarantine

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"sluice/proxy/internal/objects"
)

// tagRecord names the tag again: a file system that ignores case, as on macOS, would answer for `V1` with the record
// of `v1`.
type tagRecord struct {
	Tag       string `json:"tag"`
	Forwarded string `json:"forwarded"`
	Original  string `json:"original"`
}

func tagFolder(repo, tag string) (string, error) {
	tail, err := objects.TagTail(repo, tag)
	if err != nil {
		return "", err
	}
	return below(aliasRoot, repo, tagKind, tail), nil
}

// PutTag remembers which original was last pushed under a tag when forwarded went upstream under it.
func (s *Store) PutTag(ctx context.Context, repo, tag, forwarded, original string) error {
	folder, err := tagFolder(repo, tag)
	if err != nil {
		return err
	}
	if err := cmp.Or(objects.CheckDigest(forwarded), objects.CheckDigest(original)); err != nil {
		return fmt.Errorf("tag %s of repository %s: %w", tag, repo, err)
	}
	b, err := json.Marshal(tagRecord{Tag: tag, Forwarded: forwarded, Original: original})
	if err == nil {
		err = s.storage.Put(ctx, folder+"/"+objects.Leaf(forwarded), b)
	}
	if err != nil {
		return fmt.Errorf("write the record of tag %s, %s in repository %s: %w", tag, forwarded, repo, err)
	}
	return nil
}

// TagOriginal is the original that was last pushed under a tag which upstream resolves to forwarded. ErrNotFound when
// none was: somebody else moved the tag, or nothing was rewritten.
func (s *Store) TagOriginal(ctx context.Context, repo, tag, forwarded string) (string, error) {
	folder, err := tagFolder(repo, tag)
	if err != nil {
		return "", err
	}
	if err := objects.CheckDigest(forwarded); err != nil {
		return "", fmt.Errorf("tag %s of repository %s: %w", tag, repo, err)
	}
	path := folder + "/" + objects.Leaf(forwarded)
	none := fmt.Errorf("%w: an original of %s under tag %s of repository %s", ErrNotFound, forwarded, tag, repo)
	b, err := s.storage.Get(ctx, path)
	if objects.Absent(err) {
		return "", none
	}
	if err != nil {
		return "", fmt.Errorf("read the record of tag %s, %s in repository %s: %w", tag, forwarded, repo, err)
	}
	var r tagRecord
	if err := json.Unmarshal(b, &r); err != nil {
		return "", malformed(path, err)
	}
	if r.Tag != tag {
		return "", none
	}
	if err := objects.CheckDigest(r.Original); err != nil || r.Forwarded != forwarded {
		return "", malformed(path, fmt.Errorf("it is about %q and %q", objects.Shortened(r.Original), objects.Shortened(r.Forwarded)))
	}
	return r.Original, nil
}

// DeleteTag forgets all originals of a tag.
func (s *Store) DeleteTag(ctx context.Context, repo, tag string) error {
	folder, err := tagFolder(repo, tag)
	if err != nil {
		return err
	}
	if err := s.storage.Remove(ctx, folder); err != nil {
		return fmt.Errorf("delete the records of tag %s in repository %s: %w", tag, repo, err)
	}
	return nil
}
