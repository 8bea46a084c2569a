package proxy

import (
	"slices"

	"sluice/filters/ocidoc"
)

// releaseAbout sends what is kept about an attestation, such as its signature, once that is upstream: nobody is shown it
// here any more. One that upstream does not take holds no push up. What a push that broke off has left out the next one
// finds. depth bounds signatures of signatures.
func (ex *exchange) releaseAbout(attestation string, depth int) error {
	if depth == 0 {
		return nil
	}
	records, digests, err := ex.recordsAndHeld(attestation)
	if err != nil {
		ex.p.storageTrouble(ex.log, "look up what is kept about "+attestation, err)
		return nil
	}
	for _, r := range records {
		digests = append(digests, r.Attestation)
	}
	slices.Sort(digests)
	for _, digest := range slices.Compact(digests) {
		m, err := ex.findManifest(digest)
		if err != nil {
			ex.p.storageTrouble(ex.log, "look up manifest "+digest, err)
		}
		if m == nil || m.Subject == nil {
			continue
		}
		if err = ex.releaseReferrer(digest, m); err != nil {
			if !neverKept(err) {
				return err
			}
			ex.log.Warn("artifact about an attestation stays behind, since upstream does not take it", "digest", digest, "subject", attestation, "reason", err)
			forgo(err)
			continue
		}
		if err = ex.releaseAbout(digest, depth-1); err != nil {
			return err
		}
	}
	return nil
}

// releaseReferrer sends a held or stored referrer, unless upstream has it, and lists it where no API does: its client did
// not, since it was told that Sluice does, see takeOverReferrer.
func (ex *exchange) releaseReferrer(digest string, m *ocidoc.Document) error {
	there, err := ex.exists(manifestPath(digest))
	if err == nil && !there {
		err = ex.releaseManifest(digest, m)
	}
	if err != nil {
		return err
	}
	if has, err := ex.upstreamHasReferrers(m.Subject.Digest); has || err != nil {
		return err
	}
	return ex.changeFallback(referrerChange{
		subject: m.Subject.Digest, entry: referrerDescriptor(m, digest, mediaTypeOf(m)), allowed: !there,
	})
}
