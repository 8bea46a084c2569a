package proxy

import (
	"context"
	"time"

	"sluice/proxy/attest"
	"sluice/proxy/internal/contain"
	"sluice/proxy/quarantine"
)

// settleEvery bounds how often the whole quarantine is looked through for somebody who holds much.
const settleEvery = 15 * time.Minute

// settleCharges ends the charges for what other replicas have done with things that this one was given: an index that named
// them, an upload that went on there, a delete. The ledger is this process's, so it does not hear of that, and whoever
// finishes every push over many replicas would pay for most of what he pushed until it is swept. The storage tells it all,
// and is asked when somebody has used up half of what he may hold. What no index has named there goes on costing. It is
// false when there was no need, or no answer.
func (p *Proxy) settleCharges(ctx context.Context) bool {
	q := p.heldQuota
	if q.limit == 0 || p.immediate || !q.pressed(int64(q.limit)) { // a folder has one replica
		return false
	}
	err := p.settleAll(ctx)
	if err != nil && ctx.Err() == nil {
		p.log.Warn("what other replicas have done with held things is not known and goes on counting, the next minute tries again", "reason", err)
	}
	return err == nil
}

func (p *Proxy) settleAll(ctx context.Context) error {
	q := p.heldQuota
	s := &settling{p: p, manifests: map[string][]string{}, originals: map[string][]string{}, charged: map[string]bool{}}
	gone := q.keys()
	err := p.quarantine.Each(ctx, func(h quarantine.Held) {
		t := heldThing{h.Kind, h.Repository, h.ID}
		if key := t.in(h.Generation); gone[key] {
			delete(gone, key)
			s.charged[h.Repository] = true
		}
		switch h.Kind {
		case "manifest":
			s.manifests[h.Repository] = append(s.manifests[h.Repository], h.ID)
		case "original":
			s.originals[h.Repository] = append(s.originals[h.Repository], h.ID)
		}
	})
	if err != nil {
		return err
	}
	q.end(gone)
	for repo := range s.charged {
		if err := s.repository(ctx, repo); err != nil {
			return err
		}
	}
	return nil
}

// A settling is one look through the quarantine.
type settling struct {
	p         *Proxy
	manifests map[string][]string // by repository
	originals map[string][]string
	charged   map[string]bool // repositories in which something is charged for here
}

// repository ends the charges for attestations that an index has named, and for their blobs.
func (s *settling) repository(ctx context.Context, repo string) error {
	taken, err := s.taken(ctx, repo)
	if err != nil {
		return err
	}
	g, ctx := contain.WithContext(ctx)
	g.SetLimit(lookups)
	for _, digest := range s.manifests[repo] {
		g.Go(func() error { return s.manifest(ctx, repo, digest, taken[digest]) })
	}
	return g.Wait()
}

// taken are what the rewritten originals of a repository listed. Those under `store` are not in the quarantine.
func (s *settling) taken(ctx context.Context, repo string) (map[string]bool, error) {
	taken := map[string]bool{}
	for _, original := range s.originals[repo] {
		aliases, err := s.p.quarantine.Aliases(ctx, repo, original)
		if err != nil {
			return nil, err
		}
		for _, a := range aliases {
			for _, d := range a.Taken {
				taken[d] = true
			}
		}
	}
	return taken, nil
}

func (s *settling) manifest(ctx context.Context, repo, digest string, claimed bool) error {
	q := s.p.heldQuota
	m, err := s.p.quarantine.Manifest(ctx, repo, digest)
	if err != nil {
		return nil // swept or deleted meanwhile; otherwise what it costs stays
	}
	things := []heldThing{heldManifestOf(repo, digest)}
	for _, b := range m.Blobs {
		things = append(things, heldBlobOf(repo, b))
	}
	if !q.anyCharged(things) {
		return nil
	}
	if !claimed {
		records, err := s.p.attest.ByAttestation(ctx, repo, digest)
		if err != nil {
			return err
		}
		claimed = namedByIndex(records)
	}
	if claimed {
		for _, t := range things {
			q.release(t)
		}
	}
	return nil
}

// namedByIndex is false for an attestation that only says itself what it is about.
func namedByIndex(records []attest.Record) bool {
	for _, r := range records {
		if r.Original != "" {
			return true
		}
	}
	return false
}
