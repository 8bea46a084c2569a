package proxy

import (
	"errors"
	"net/http"
	"slices"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

// deleteManifest deletes upstream, except for what only Sluice has: an original loses its alias and
// its own bytes here (many originals share one forwarded document, which stays), a stored
// attestation is removed (sluice attestations delete).
func (ex *exchange) deleteManifest() error {
	ref := ex.ref
	if digestRef(ref) {
		if f := checkDigest(ex.repo, ref); f != nil {
			return f
		}
		if ex.rewrites() {
			if done, err := ex.deleteLocal(ref); done || err != nil {
				return err
			}
		}
	}
	ex.p.sent.forget(ex.repo, manifestPath(ref))
	ex.p.sent.forget(ex.repo, wentAlong(ref))
	// From the list first: once the manifest is gone nobody can say whose referrer it was, and a try that comes after one
	// that failed half-way would leave it listed for good (I7).
	dropped, err := ex.dropReferrer(ref)
	if err != nil {
		return err
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodDelete, Path: manifestPath(ref), Push: true})
	if err != nil {
		return err
	}
	if dropped != nil && resp.StatusCode >= 300 && resp.StatusCode < 500 && resp.StatusCode != http.StatusNotFound {
		if err := ex.changeFallback(*dropped); err != nil { // a delete that upstream refuses changes nothing
			ex.log.Warn("a referrer that upstream does not delete is no longer listed", "digest", ref, "reason", err)
		}
	}
	if dropped != nil && resp.StatusCode < 300 {
		if err := ex.unlistGone(dropped.subject, ref); err != nil { // a push of the same may have listed it meanwhile
			discard(resp)
			return err
		}
	}
	if resp.StatusCode < 300 {
		ex.p.pushed.forget(func(k inRepo) bool { return k.repo == ex.repo }) // what is not found there now may well be gone
		ex.deletedEvent(ref)
	}
	ex.passResponse(resp)
	return nil
}

// dropReferrer takes a manifest that is about to be deleted out of the list of its subject's referrers, if Sluice keeps
// that. It tells what would put it there again.
func (ex *exchange) dropReferrer(ref string) (again *referrerChange, err error) {
	if !digestRef(ref) || !ex.peeks() {
		return nil, nil
	}
	doc, err := ex.fetchManifest(ref, ocidoc.MaxBytes)
	if err != nil {
		if p, is := errors.AsType[*passed](err); is {
			switch p.resp.StatusCode {
			case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
				return nil, err
			}
			discard(p.resp)
		}
		return nil, nil // not there, or nobody's referrer: the delete itself will say
	}
	if doc.Subject == nil {
		return nil, nil
	}
	subject := doc.Subject.Digest
	if has, err := ex.upstreamHasReferrers(subject); has || err != nil {
		return nil, err
	}
	return &referrerChange{subject: subject, entry: referrerDescriptor(doc, ref, mediaTypeOf(doc))}, ex.unlist(subject, ref)
}

func (ex *exchange) deleteLocal(digest string) (done bool, err error) {
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, digest)
	if err != nil {
		return true, ex.cannotDelete(digest, err)
	}
	m, err := ex.findManifest(digest)
	if err != nil {
		return true, ex.cannotDelete(digest, err)
	}
	if len(aliases) == 0 && (m == nil || !filters.IsAttestation(m) && (m.Kind != ocidoc.KindManifest || m.Subject == nil)) {
		return false, nil
	}
	if ex.up.Passthrough() {
		if err := ex.mayWrite(); err != nil {
			return true, err
		}
	}
	// Upstream may have it too: it was there before Sluice, or before a rule, or a rule was taken back. Who deletes it wants it
	// gone, and not to read the one in place of the other.
	there, err := ex.exists(manifestPath(digest))
	if err != nil {
		return true, err
	}
	if len(aliases) > 0 {
		err = errors.Join(
			ex.p.quarantine.DeleteAliases(ex.ctx(), ex.repo, digest),
			ex.p.quarantine.DeleteOriginal(ex.ctx(), ex.repo, digest),
			ex.p.attest.DeleteDocument(ex.ctx(), ex.repo, digest))
	} else {
		var placed bool
		if placed, err = ex.deleteAttestation(digest, m); err == nil && there {
			there, err = ex.isOwn(digest, m, placed)
		}
	}
	if err != nil {
		return true, ex.cannotDelete(digest, err)
	}
	if there {
		return false, nil
	}
	ex.log.Info("deleted here, upstream is untouched", "digest", digest)
	ex.w.Header().Set("Content-Length", "0")
	ex.answers = true
	ex.w.WriteHeader(http.StatusAccepted)
	return true, nil
}

// isOwn is true for an attestation that upstream has in this repository not because Sluice has put it there, for this one
// or for another whose attestations go to it.
func (ex *exchange) isOwn(digest string, m *ocidoc.Document, placed bool) (bool, error) {
	if placed {
		return false, nil
	}
	subject := ""
	if m.Subject != nil {
		subject = m.Subject.Digest
	}
	other, err := ex.p.attest.PlacedFor(ex.ctx(), ex.repo, digest, subject)
	return other == "", err
}

func (ex *exchange) cannotDelete(digest string, err error) error {
	var f *Failure
	var p *passed
	if errors.As(err, &f) || errors.As(err, &p) {
		return err // a registry's refusal, which says why
	}
	return ex.storageTransient(err, "%s of repository %s could not be deleted: the storage of sluice failed, see its log; try again", digest, ex.repo)
}

// deleteAttestation removes an attestation, and what is kept about it, from wherever it is kept: from the registry first,
// since the record that says where it is there goes here. What is left in quarantine would be taken for one that no index
// named when its generation is swept, and kept.
func (ex *exchange) deleteAttestation(digest string, m *ocidoc.Document) (placed bool, err error) {
	forms, err := ex.formsOf(digest, m)
	if err != nil {
		return false, err
	}
	for _, attestation := range forms { // which may be refused, and then nothing is to be gone
		here, err := ex.deletePlaced(attestation)
		if err != nil {
			return false, err
		}
		placed = placed || slices.Contains(here, digest)
	}
	for _, attestation := range forms {
		if err := ex.deleteAbout(attestation); err != nil {
			return false, err
		}
		if err := ex.p.attest.Delete(ex.ctx(), ex.repo, attestation); err != nil && !errors.Is(err, attest.ErrNotFound) {
			return false, err
		}
	}
	return placed, ex.deleteHeld(m, append(forms, digest))
}

// deleteHeld removes an attestation from quarantine, by every digest that it is known by.
func (ex *exchange) deleteHeld(m *ocidoc.Document, forms []string) error {
	if err := ex.deleteStatements(m.Layers, forms); err != nil {
		return err
	}
	for _, attestation := range forms {
		if err := ex.p.quarantine.DeleteManifest(ex.ctx(), ex.repo, attestation); err != nil {
			return err
		}
		ex.p.heldQuota.release(heldManifestOf(ex.repo, attestation))
	}
	return nil
}

// deleteStatements removes what is held of the layers of an attestation. Those that another one refers to stay: it may be
// on its way, or be all that there is of what `strip` took out.
func (ex *exchange) deleteStatements(layers []ocidoc.Descriptor, of []string) error {
	q := ex.p.quarantine
	held := slices.DeleteFunc(digestsOf(layers), func(d string) bool {
		_, err := q.StatBlob(ex.ctx(), ex.repo, d)
		return errors.Is(err, quarantine.ErrNotFound)
	})
	if len(held) == 0 {
		return nil
	}
	needed, err := q.Needed(ex.ctx(), ex.repo, of...)
	if err != nil {
		return err
	}
	for _, d := range held {
		if needed[d] {
			continue
		}
		if err := q.DeleteBlob(ex.ctx(), ex.repo, d); err != nil {
			return err
		}
		ex.p.heldQuota.release(heldBlobOf(ex.repo, d))
	}
	return nil
}

// formsOf lists one attestation under every digest that it was stored by: to a client they are one thing. A derived
// referrer may have been pushed back: `docker buildx imagetools create` lists the attestations among the referrers of
// its sources in the index that it makes (buildx 0.33, util/imagetools/create.go, filterPlatforms), and then each form has
// records of its own. The one that was asked for is the last, so that a delete that failed half-way finds the rest again.
func (ex *exchange) formsOf(digest string, m *ocidoc.Document) ([]string, error) {
	var about []attest.Record
	if m.Subject != nil {
		var err error
		if about, err = ex.p.attest.BySubject(ex.ctx(), ex.repo, m.Subject.Digest); err != nil {
			return nil, err
		}
	}
	known, recorded := []string{digest}, []string(nil)
	for i := 0; i < len(known); i++ {
		records, err := ex.p.attest.ByAttestation(ex.ctx(), ex.repo, known[i])
		if err != nil {
			return nil, err
		}
		if len(records) > 0 {
			recorded = append(recorded, known[i])
		}
		for _, r := range append(records, about...) {
			other := ""
			switch known[i] {
			case r.Attestation:
				other = r.Derived
			case r.Derived:
				other = r.Attestation
			}
			if other != "" && !slices.Contains(known, other) {
				known = append(known, other)
			}
		}
	}
	if len(recorded) == 0 {
		return []string{digest}, nil // one that no index has named yet
	}
	slices.Reverse(recorded)
	return recorded, nil
}
