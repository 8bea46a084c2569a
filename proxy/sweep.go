package proxy

import (
	"context"
	"errors"
	"time"

	"sluice/proxy/attest"
	"sluice/proxy/internal/contain"
	"sluice/proxy/observe"
)

const (
	sweepEvery = time.Hour
	// storedEvery is longer, since it looks at everything that is stored.
	storedEvery = 24 * time.Hour
)

// housekeeping sweeps quarantine and forgets old hints until ctx ends.
func (s *site) housekeeping(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	var swept, stored, settled time.Time
	for {
		s.keepHouse(ctx, &swept, &stored, &settled)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *site) keepHouse(ctx context.Context, swept, stored, settled *time.Time) {
	p := s.take()
	defer p.handlers.Done()
	var bug error // pushes go on
	defer func() {
		if bug != nil {
			p.log.Error("housekeeping broke off, the next one tries again", "reason", bug)
		}
	}()
	defer contain.Panic(&bug)
	p.authority.expire()
	if err := p.quarantine.Refresh(ctx); err != nil && ctx.Err() == nil {
		p.log.Warn("the quarantine could not be listed, the next look-up tries again", "reason", err)
	}
	now := p.now()
	if elapsed(*swept, now, sweepEvery) {
		*swept = now
		if p.maySweep(ctx) {
			p.sweep(ctx)
			if elapsed(*stored, now, storedEvery) {
				*stored = now
				p.sweepStored(ctx)
			}
		}
	}
	if elapsed(*settled, now, settleEvery) && p.settleCharges(ctx) {
		*settled = now
	}
}

// maySweep is false when the storage is not, or no longer, in a format that this program knows.
func (p *Proxy) maySweep(ctx context.Context) bool {
	err := p.quarantine.CheckFormat(ctx)
	if err != nil && ctx.Err() == nil {
		p.log.Error("nothing is swept, the next sweep tries again", "reason", err)
	}
	return err == nil
}

// elapsed is true also when the clock was set back behind what it said then.
func elapsed(then, now time.Time, d time.Duration) bool {
	return now.Sub(then) >= d || now.Before(then)
}

// sweep empties generations of quarantine that are over.
func (p *Proxy) sweep(ctx context.Context) {
	start := p.now()
	s, err := p.quarantine.Sweep(ctx, newUnclaimed(p).keep)
	p.endCharges(ctx)
	p.measure(ctx, observe.Quarantine, observe.Sweep{Objects: s.Objects, Bytes: s.Bytes}, start, err, p.quarantine.Usage)
	if err != nil && ctx.Err() == nil {
		p.log.Error("sweep failed, the next one tries again", "reason", err)
	}
	if len(s.Generations) > 0 {
		p.log.Info("swept", "generations", s.Generations, "objects", s.Objects, "bytes", s.Bytes, "manifests", s.Manifests)
	}
}

// measure counts a sweep and, since that is when nobody waits, looks how much is left.
func (p *Proxy) measure(ctx context.Context, place observe.Place, s observe.Sweep, start time.Time, err error, usage func(context.Context) (int, int64, error)) {
	if ctx.Err() != nil {
		return // shutting down is no failure
	}
	s.At, s.Failed = p.now(), err != nil
	s.Took = s.At.Sub(start)
	p.observe.Swept(place, s)
	objects, bytes, err := usage(ctx)
	if err != nil {
		p.log.Warn("what is kept cannot be measured, the metrics stay as they were", "place", place.String(), "reason", err)
		return
	}
	p.observe.Kept(place, objects, bytes)
}

// sweepStored removes what `store` has kept for longer than store.retention, and what pushes left
// that did not come to their end.
func (p *Proxy) sweepStored(ctx context.Context) {
	const day = 24 * time.Hour
	start := p.now()
	var expiry error
	if days := int(p.cfg.Store.Retention); days > 0 {
		var n int
		n, expiry = p.attest.Expire(ctx, p.now().Add(-time.Duration(days)*day))
		if expiry != nil && ctx.Err() == nil {
			p.log.Error("expiry of stored attestations failed, the next one tries again", "reason", expiry)
		}
		if n > 0 {
			p.log.Info("stored attestations expired", "attestations", n, "retention_days", days)
		}
	}
	s, err := p.attest.Sweep(ctx, p.now().Add(-time.Duration(p.cfg.Retention+1)*day), p.namedByAlias)
	if err != nil && ctx.Err() == nil {
		p.log.Error("sweep of stored documents failed, the next one tries again", "reason", err)
	}
	p.measure(ctx, observe.Stored, observe.Sweep{Objects: s.Documents + s.Blobs, Bytes: s.Bytes}, start, errors.Join(expiry, err), p.attest.Usage)
	if s.Documents+s.Blobs > 0 {
		p.log.Info("swept what no attestation names", "documents", s.Documents, "blobs", s.Blobs, "bytes", s.Bytes)
	}
}

// namedByAlias keeps an original that can still be shown: one of which everything is here.
func (p *Proxy) namedByAlias(ctx context.Context, repo, digest string) (bool, error) {
	aliases, err := p.quarantine.Aliases(ctx, repo, digest)
	if err != nil {
		return false, err
	}
	for _, a := range aliases {
		whole := true
		for _, d := range a.Taken {
			if _, _, err := p.attest.Document(ctx, repo, d); errors.Is(err, attest.ErrNotFound) {
				whole = false
			} else if err != nil {
				return false, err
			}
		}
		if whole {
			return true, nil
		}
	}
	return false, nil
}
