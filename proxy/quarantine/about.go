package quarantine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
)

func aboutFolder(generation, repo, subject string) (string, error) {
	tail, err := objects.Tail(repo, subject)
	if err != nil {
		return "", err
	}
	return below(quarantineRoot+"/"+generation, repo, aboutKind, tail), nil
}

// PutAbout notes what a manifest is about that PutManifest holds next, so that About finds it. The note goes with today's
// generation.
func (s *Store) PutAbout(ctx context.Context, repo, subject, digest string) error {
	folder, err := aboutFolder(s.Generation(), repo, subject)
	if err == nil {
		err = objects.CheckDigest(digest)
	}
	if err == nil {
		err = s.storage.Put(ctx, folder+"/"+objects.Leaf(digest), []byte(digest+"\n")) // some stores list nothing that is empty
	}
	if err != nil {
		return fmt.Errorf("note that %s of repository %s is about %s: %w", objects.Shortened(digest), objects.Shortened(repo), objects.Shortened(subject), err)
	}
	return nil
}

// StatAbout says that there is such a note, which stays for at least another day then, as a manifest does. ErrNotFound when
// there is none.
func (s *Store) StatAbout(ctx context.Context, repo, subject, digest string) error {
	o, err := newObject(repo, aboutKind, subject)
	if err == nil {
		err = objects.CheckDigest(digest)
	}
	if err != nil {
		return fmt.Errorf("look whether %s of repository %s is about %s: %w", objects.Shortened(digest), objects.Shortened(repo), objects.Shortened(subject), err)
	}
	o.tail += "/" + objects.Leaf(digest)
	_, at, err := search(ctx, s, o, s.sizeOf)
	if err != nil {
		return o.unanswered("look for the note about", err)
	}
	if at.dying {
		return s.PutAbout(ctx, repo, subject, digest)
	}
	return nil
}

// About are the digests of manifests that were held and are about a subject, sorted. Not all need be held any more. None
// is no error.
func (s *Store) About(ctx context.Context, repo, subject string) ([]string, error) {
	o, err := s.candidates(ctx)
	if err != nil {
		return nil, err
	}
	listed := make([][]string, len(o.generations))
	g, gctx := contain.WithContext(ctx)
	if s.storage.Immediate() {
		g.SetLimit(1)
	}
	for i, generation := range o.generations {
		folder, err := aboutFolder(generation, repo, subject)
		if err != nil {
			return nil, err
		}
		g.Go(func() (err error) {
			listed[i], err = s.storage.List(gctx, folder)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("look what is held about %s in repository %s: %w", subject, repo, err)
	}
	var found []string
	for _, name := range slices.Concat(listed...) {
		if digest, ok := objects.DigestOfLeaf(name); ok {
			found = append(found, digest)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// bringAbout copies what is about a manifest into today's generation, where the manifest goes next: what somebody relies
// on keeps its signatures. Not only what is about to be swept: the manifest may not be looked at again before that is.
func (s *Store) bringAbout(ctx context.Context, repo, subject string, depth int) error {
	if depth == 0 {
		return nil
	}
	about, err := s.About(ctx, repo, subject)
	if err != nil {
		return err
	}
	for _, digest := range about {
		m, err := s.Manifest(ctx, repo, digest)
		if errors.Is(err, ErrNotFound) {
			continue // deleted
		}
		if err != nil {
			return err
		}
		if err := s.bringAbout(ctx, repo, digest, depth-1); err != nil {
			return err
		}
		if err := s.PutAbout(ctx, repo, subject, digest); err != nil {
			return err
		}
		o, err := newObject(repo, manifestKind, digest)
		if err == nil {
			err = s.writeDocument(ctx, o, m)
		}
		if err != nil {
			return err
		}
		s.tellCopied(o, s.Generation())
	}
	return nil
}
