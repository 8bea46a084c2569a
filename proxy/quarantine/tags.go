package quarantine

import (
	"context"
	"encoding/json"
	"fmt"
)

// tagRecord names the tag again: a file system that ignores case, as on macOS, would answer for `V1` with the record
// of `v1`.
type tagRecord struct {
	Tag       string `json:"tag"`
	Forwarded string `json:"forwarded"`
	Original  string `json:"original"`
}

func tagFolder(repo, tag string) (string, error) {
	if err := checkRepository(repo); err != nil {
		return "", err
	}
	if err := checkTag(tag); err != nil {
		return "", fmt.Errorf("%w in repository %s", err, repo)
	}
	return below(aliasRoot, repo, tagKind, tag), nil
}

// PutTag remembers which original was last pushed under a tag when forwarded went upstream under it.
func (s *Store) PutTag(ctx context.Context, repo, tag, forwarded, original string) error {
	folder, err := tagFolder(repo, tag)
	if err != nil {
		return err
	}
	algorithm, hex, err := splitDigest(forwarded)
	if err == nil {
		_, _, err = splitDigest(original)
	}
	if err != nil {
		return fmt.Errorf("tag %s of repository %s: %w", tag, repo, err)
	}
	b, err := json.Marshal(tagRecord{Tag: tag, Forwarded: forwarded, Original: original})
	if err == nil {
		err = s.storage.put(ctx, folder+"/"+leaf(algorithm, hex), b)
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
	algorithm, hex, err := splitDigest(forwarded)
	if err != nil {
		return "", fmt.Errorf("tag %s of repository %s: %w", tag, repo, err)
	}
	path := folder + "/" + leaf(algorithm, hex)
	none := fmt.Errorf("%w: an original of %s under tag %s of repository %s", ErrNotFound, forwarded, tag, repo)
	b, err := s.storage.get(ctx, path)
	if absent(err) {
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
	if _, _, err := splitDigest(r.Original); err != nil || r.Forwarded != forwarded {
		return "", malformed(path, fmt.Errorf("it is about %q and %q", shortened(r.Original), shortened(r.Forwarded)))
	}
	return r.Original, nil
}

// DeleteTag forgets all originals of a tag.
func (s *Store) DeleteTag(ctx context.Context, repo, tag string) error {
	folder, err := tagFolder(repo, tag)
	if err != nil {
		return err
	}
	if err := s.storage.remove(ctx, folder); err != nil {
		return fmt.Errorf("delete the records of tag %s in repository %s: %w", tag, repo, err)
	}
	return nil
}
