package quarantine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
)

// Swept says what a sweep removed.
type Swept struct {
	Generations []string // oldest first
	Manifests   int      // that keep was called for
	Damaged     int      // manifests that do not have their digest any more, so that nothing can refer to them
	Objects     int
	Bytes       int64
}

// Sweep deletes every generation whose newest object is older than the retention and one day, by the storage's own
// clock, and never today's or yesterday's, nor one that is still to come. Before a generation goes, keep is called for
// every manifest in it that no younger generation holds, for several at once; everything in the generation can
// still be read then. An error of keep, or of the storage, spares the generation, which the next sweep finds again,
// and does not stop the sweep: the result is what was removed together with the errors.
//
// Any number of replicas may sweep at the same time; keep may then be called for a manifest more than once.
func (s *Store) Sweep(ctx context.Context, keep func(ctx context.Context, repo, digest string, m Manifest) error) (Swept, error) {
	var swept Swept
	generations, err := s.generations(ctx)
	if err != nil {
		return swept, fmt.Errorf("sweep: %w", err)
	}
	slices.Reverse(generations)
	yesterday := s.now().UTC().Add(-day).Format(dayFormat)
	var errs []error
	for i, g := range generations {
		if g >= yesterday {
			break
		}
		held, err := s.inventory(ctx, g)
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep generation %s: %w", g, err))
			continue
		}
		if !held.over {
			continue
		}
		called, damaged, err := s.rescue(ctx, g, held.manifests, generations[i+1:], keep)
		swept.Manifests += called
		swept.Damaged += damaged
		if err == nil {
			err = s.storage.RemoveAll(ctx, "/"+quarantineRoot+"/"+g)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep generation %s: %w", g, err))
			continue
		}
		swept.Generations = append(swept.Generations, g)
		swept.Objects += held.objects
		swept.Bytes += held.bytes
	}
	return swept, errors.Join(errs...)
}

// inventory is what a generation holds. Unless it is over, the rest was not looked at.
type inventory struct {
	over      bool
	manifests []object
	objects   int
	bytes     int64
}

func (s *Store) inventory(ctx context.Context, generation string) (inventory, error) {
	over := s.now().Add(-time.Duration(s.retention+1) * day)
	begin, err := time.Parse(dayFormat, generation)
	if err != nil {
		return inventory{}, err
	}
	// Folders are not asked for their time: buckets have none, and deleting changes it. An empty generation, of which
	// a folder may be left, goes by its name.
	held := inventory{over: begin.Add(day).Before(over)}
	err = s.storage.Walk(ctx, "/"+quarantineRoot+"/"+generation, func(fi storagedriver.FileInfo) error {
		if fi.IsDir() {
			return nil
		}
		if held.objects == 0 {
			held.over = true
		}
		held.objects++
		held.bytes += fi.Size()
		if !fi.ModTime().Before(over) {
			held.over = false
			return storagedriver.ErrFilledBuffer
		}
		if _, o, ok := parseHeld(fi.Path()); ok && o.kind == manifestKind {
			held.manifests = append(held.manifests, o)
		}
		return nil
	})
	if objects.Absent(err) {
		return inventory{}, nil // a folder went while it was looked at: not everything was seen, so it stays until next time
	}
	if err != nil {
		return inventory{}, err
	}
	return held, nil
}

// rescuers is how many manifests are looked after at once. Each waits for several round trips to the storage, one after
// another; a busy day leaves tens of thousands.
const rescuers = 16

// rescue calls keep for what would be lost. It ends at the first error.
func (s *Store) rescue(ctx context.Context, generation string, manifests []object, younger []string,
	keep func(context.Context, string, string, Manifest) error,
) (called, damaged int, err error) {
	if keep == nil {
		return 0, 0, nil
	}
	var offered, broken atomic.Int64
	g, gctx := contain.WithContext(ctx)
	g.SetLimit(rescuers)
	for _, o := range manifests {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			m, err := s.endangered(gctx, o, generation, younger)
			switch {
			case errors.Is(err, errDamaged):
				broken.Add(1)
				return nil
			case m == nil || err != nil:
				return err
			}
			offered.Add(1)
			if err := keep(gctx, o.repo, o.digest, *m); err != nil {
				return fmt.Errorf("keep %s: %w", o, err)
			}
			return nil
		})
	}
	if err = g.Wait(); err == nil {
		err = ctx.Err() // some were not looked at
	}
	return int(offered.Load()), int(broken.Load()), err
}

// endangered is a manifest that goes with its generation, nil when it does not: a younger one holds it too, or another
// replica swept it, and called its keep.
func (s *Store) endangered(ctx context.Context, o object, generation string, younger []string) (*Manifest, error) {
	elsewhere, err := s.heldIn(ctx, o, younger)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", o, err)
	}
	if elsewhere {
		return nil, nil
	}
	b, err := s.storage.Get(ctx, o.in(generation))
	if objects.Absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o, err)
	}
	m, err := unpackDocument(b, o.digest)
	if err != nil {
		return nil, errDamaged
	}
	return &m, nil
}

func (s *Store) heldIn(ctx context.Context, o object, generations []string) (bool, error) {
	for _, g := range generations {
		if _, err := s.storage.Size(ctx, o.in(g)); !objects.Absent(err) {
			return err == nil, err
		}
	}
	return false, nil
}
