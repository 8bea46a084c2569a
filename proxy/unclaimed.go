package proxy

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/semaphore"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/quarantine"
)

// unclaimed are the attestations of one sweep that no index ever named. They are kept aside, since they may be the only copy
// of somebody's provenance, unless the rule says `strip`. Under `forward` none is held: those that are were held by
// another configuration.
type unclaimed struct {
	p *Proxy

	one   *semaphore.Weighted // may look for what the rule stripped; it is done once, and takes as long as the storage does
	held  *settling
	named map[string]map[string]bool // by repository
}

func newUnclaimed(p *Proxy) *unclaimed { return &unclaimed{p: p, one: semaphore.NewWeighted(1)} }

// keep moves an attestation of a dying generation aside, unless an index claimed it. Many are looked after at once.
func (u *unclaimed) keep(ctx context.Context, repo, digest string, m quarantine.Manifest) error {
	if u.p.cfg.Rule(repo).Attestations == filters.Strip {
		return nil
	}
	doc, err := ocidoc.Parse(m.Bytes, m.MediaType)
	if err != nil || !filters.IsAttestation(doc) {
		return nil // nothing that a filter would have held: a leftover of another version
	}
	if stored, err := u.p.attest.Recorded(ctx, repo, digest); stored || err != nil {
		return err
	}
	if stripped, err := u.stripped(ctx, repo, digest); stripped || err != nil {
		return err
	}
	for _, d := range blobsOf(doc) {
		if err := u.keepBlob(ctx, repo, digest, d.Digest); err != nil {
			return err
		}
	}
	if err := u.p.attest.PutUnclaimed(ctx, repo, digest, m.MediaType, m.Bytes); err != nil {
		return err
	}
	u.p.observe.Unclaimed()
	u.p.log.Warn("attestation that no index named is kept aside", "repository", repo, "digest", digest)
	return nil
}

// stripped is true for what an index named while the rule said `strip`, of which there is no record.
func (u *unclaimed) stripped(ctx context.Context, repo, digest string) (bool, error) {
	if err := u.one.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer u.one.Release(1)
	if u.held == nil {
		held := &settling{p: u.p, originals: map[string][]string{}}
		err := u.p.quarantine.Each(ctx, func(h quarantine.Held) {
			if h.Kind == "original" {
				held.originals[h.Repository] = append(held.originals[h.Repository], h.ID)
			}
		})
		if err != nil {
			return false, err
		}
		u.held, u.named = held, map[string]map[string]bool{}
	}
	if u.named[repo] == nil {
		named, err := u.held.taken(ctx, repo)
		if err != nil {
			return false, err
		}
		u.named[repo] = named
	}
	return u.named[repo][digest], nil
}

// keepBlob copies a blob from where it is held, or from where another attestation has it, since a client that found it there
// has not sent it. One that does not have its digest any more is nothing that could be kept, today or at the next sweep; the rest
// of its attestation is.
func (u *unclaimed) keepBlob(ctx context.Context, repo, attestation, digest string) error {
	damaged := false
	for _, place := range []interface {
		OpenBlob(ctx context.Context, repo, digest string, offset int64) (io.ReadCloser, int64, error)
	}{u.p.quarantine, u.p.attest} {
		rc, size, err := place.OpenBlob(ctx, repo, digest, 0)
		if errors.Is(err, quarantine.ErrNotFound) || errors.Is(err, attest.ErrNotFound) {
			continue // mounted or upstream already, if it is in no place: it is not lost
		}
		if err == nil {
			err = errors.Join(u.p.attest.PutUnclaimedBlob(ctx, repo, attestation, digest, rc, size), rc.Close())
		}
		if !errors.Is(err, attest.ErrDigest) {
			return err
		}
		damaged = true
	}
	if damaged {
		u.p.log.Error("blob of an attestation that no index named is damaged, and lost", "repository", repo, "digest", attestation, "blob", digest)
	}
	return nil
}
