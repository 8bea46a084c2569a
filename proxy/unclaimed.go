package proxy

import (
	"context"
	"errors"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/quarantine"
)

// moveUnclaimed keeps an attestation of a dying generation aside, unless an index claimed it.
func (p *Proxy) moveUnclaimed(ctx context.Context, repo, digest string, m quarantine.Manifest) (kept bool, err error) {
	doc, err := ocidoc.Parse(m.Bytes, m.MediaType)
	if err != nil || !filters.IsAttestation(doc) {
		return false, nil // nothing that a filter would have held: a leftover of another version
	}
	if _, _, err := p.attest.Document(ctx, repo, digest); err == nil {
		return false, nil // stored
	} else if !errors.Is(err, attest.ErrNotFound) {
		return false, err
	}
	for _, d := range blobsOf(doc) {
		rc, size, err := p.quarantine.OpenBlob(ctx, repo, d.Digest, 0)
		if errors.Is(err, quarantine.ErrNotFound) {
			continue // mounted or upstream already: it is not lost
		}
		if err != nil {
			return false, err
		}
		err = p.attest.PutUnclaimedBlob(ctx, repo, digest, d.Digest, rc, size)
		if err := errors.Join(err, rc.Close()); err != nil {
			return false, err
		}
	}
	return true, p.attest.PutUnclaimed(ctx, repo, digest, m.MediaType, m.Bytes)
}

// expireStored removes what `store` has kept for longer than store.retention.
func (p *Proxy) expireStored(ctx context.Context, days int) {
	n, err := p.attest.Expire(ctx, p.now().Add(-time.Duration(days)*24*time.Hour))
	if err != nil && ctx.Err() == nil {
		p.log.Error("expiry of stored attestations failed, the next one tries again", "reason", err)
	}
	if n > 0 {
		p.log.Info("stored attestations expired", "attestations", n, "retention_days", days)
	}
}
