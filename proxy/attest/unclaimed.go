package attest

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects"
)

// Unclaimed is an attestation that was pushed and that no index ever named: a referrers-only copy of a legacy one, or
// part of a push that was refused. It has no record, since nobody knows what it is about, and is never deleted but by
// Delete. It is kept apart from the rest together with its blobs.
type Unclaimed struct {
	Repository  string
	Attestation string
}

const unclaimedDocument = "document"

// PutUnclaimedBlob keeps a blob of an unclaimed attestation, as PutBlob does; before PutUnclaimed.
func (s *Store) PutUnclaimedBlob(ctx context.Context, repo, attestation, digest string, r io.Reader, size int64) error {
	p, err := unclaimedBlob(repo, attestation, digest)
	if err == nil {
		err = s.writeBlob(ctx, p, repo, digest, r, size)
	}
	if err != nil {
		return fmt.Errorf("store blob %s of unclaimed attestation %s of repository %s: %w",
			objects.Shortened(digest), objects.Shortened(attestation), repo, err)
	}
	return nil
}

// PutUnclaimed keeps the manifest of an unclaimed attestation, which makes it one that Unclaimed lists.
func (s *Store) PutUnclaimed(ctx context.Context, repo, attestation, mediaType string, b []byte) error {
	folder, err := digestPath(repo, unclaimedKind, attestation)
	if err == nil {
		err = s.writeDocument(ctx, folder+"/"+unclaimedDocument, attestation, mediaType, b)
	}
	if err != nil {
		return fmt.Errorf("store unclaimed attestation %s of repository %s: %w", objects.Shortened(attestation), repo, err)
	}
	return nil
}

// UnclaimedDocument reads the manifest of an unclaimed attestation.
func (s *Store) UnclaimedDocument(ctx context.Context, repo, attestation string) (mediaType string, b []byte, err error) {
	folder, err := digestPath(repo, unclaimedKind, attestation)
	if err == nil {
		mediaType, b, err = s.readDocument(ctx, folder+"/"+unclaimedDocument, attestation)
	}
	if err != nil {
		return "", nil, fmt.Errorf("read unclaimed attestation %s of repository %s: %w", objects.Shortened(attestation), repo, err)
	}
	return mediaType, b, nil
}

// OpenUnclaimedBlob reads a blob of an unclaimed attestation, as OpenBlob does.
func (s *Store) OpenUnclaimedBlob(ctx context.Context, repo, attestation, digest string, offset int64) (rc io.ReadCloser, size int64, err error) {
	p, err := unclaimedBlob(repo, attestation, digest)
	if err == nil {
		rc, size, err = s.openBlob(ctx, p, offset)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read blob %s of unclaimed attestation %s of repository %s: %w",
			objects.Shortened(digest), objects.Shortened(attestation), repo, err)
	}
	return rc, size, nil
}

func unclaimedBlob(repo, attestation, digest string) (string, error) {
	folder, err := digestPath(repo, unclaimedKind, attestation)
	if err != nil {
		return "", err
	}
	if err := objects.CheckDigest(digest); err != nil {
		return "", err
	}
	return folder + "/" + objects.Leaf(digest), nil
}

// Unclaimed lists the unclaimed attestations of a repository, or of all when repo is empty, sorted.
func (s *Store) Unclaimed(ctx context.Context, repo string) ([]Unclaimed, error) {
	from := "/" + root
	if repo != "" {
		if err := objects.CheckRepository(repo); err != nil {
			return nil, err
		}
		from += "/" + repo + "/" + string(unclaimedKind)
	}
	// Every other folder with an underscore may be big.
	var found []Unclaimed
	err := s.storage.Each(ctx, from, func(folder string) bool {
		return isKind(folder) && folder != string(unclaimedKind)
	}, func(f storagedriver.FileInfo) error {
		if u, ok := parseUnclaimed(f.Path()); ok {
			found = append(found, u)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list unclaimed attestations: %w", err)
	}
	slices.SortFunc(found, func(a, b Unclaimed) int {
		return cmp.Or(cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Attestation, b.Attestation))
	})
	return slices.Compact(found), nil
}

func parseUnclaimed(p string) (Unclaimed, bool) {
	rest, ok := strings.CutPrefix(p, "/"+root+"/")
	if !ok {
		return Unclaimed{}, false
	}
	repo, rest, ok := strings.Cut(rest, "/"+string(unclaimedKind)+"/")
	if !ok {
		return Unclaimed{}, false
	}
	digest, ok := strings.CutSuffix(rest, "/"+unclaimedDocument)
	if !ok {
		return Unclaimed{}, false
	}
	u := Unclaimed{Repository: repo, Attestation: strings.Replace(digest, "/", ":", 1)}
	_, err := digestPath(u.Repository, unclaimedKind, u.Attestation)
	return u, err == nil
}
