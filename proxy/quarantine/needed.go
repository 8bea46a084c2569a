package quarantine

import (
	"context"
	"fmt"
	"slices"
	"sync"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
)

// Needed are the blobs that the held manifests of a repository refer to, in whichever generation, other than those of
// some. Each manifest is read: it is for what is seldom done.
func (s *Store) Needed(ctx context.Context, repo string, without ...string) (map[string]bool, error) {
	needed, err := s.needed(ctx, repo, without)
	if err != nil {
		return nil, fmt.Errorf("look for what held manifests of repository %s refer to: %w", repo, err)
	}
	return needed, nil
}

func (s *Store) needed(ctx context.Context, repo string, without []string) (map[string]bool, error) {
	if err := objects.CheckRepository(repo); err != nil {
		return nil, err
	}
	generations, err := s.generations(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	needed := map[string]bool{}
	g, gctx := contain.WithContext(ctx)
	g.SetLimit(rescuers)
	for _, generation := range generations {
		var held []object
		err := s.storage.Each(ctx, "/"+quarantineRoot+"/"+generation+"/"+repo+"/"+string(manifestKind), nil, func(fi storagedriver.FileInfo) error {
			if _, o, ok := parseHeld(fi.Path()); ok && !slices.Contains(without, o.digest) {
				held = append(held, o)
			}
			return nil
		})
		if err != nil {
			_ = g.Wait()
			return nil, err
		}
		for _, o := range held { // not while it is listed: a walk that is given up may still be going on
			g.Go(func() error {
				b, err := s.storage.Get(gctx, o.in(generation))
				if objects.Absent(err) {
					return nil
				}
				if err != nil {
					return err
				}
				m, err := unpackDocument(b, o.digest)
				if err != nil {
					return nil // damaged: nothing can refer to it
				}
				mu.Lock()
				defer mu.Unlock()
				for _, d := range m.Blobs {
					needed[d] = true
				}
				return nil
			})
		}
	}
	return needed, g.Wait()
}
