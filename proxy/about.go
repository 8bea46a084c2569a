package proxy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/config"
	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
	"sluice/proxy/observe"
	"sluice/proxy/quarantine"
)

// What is kept of an artifact about an attestation. A signature has two blobs of a few KiB; what is more goes upstream,
// where its blobs are.
const (
	maxAboutBlobs = 16
	maxAboutBytes = 4 << 20
)

// keepAbout keeps an artifact about an attestation that was taken out where the attestation is: docker/github-builder signs
// each attestation manifest with cosign, whose artifact has it as its subject. Upstream it would be what the attestation
// is there, an untagged artifact, and about nothing. done is false for all others, and for one that cannot be kept
// whole: they are forwarded.
func (ex *exchange) keepAbout(ref string, doc *ocidoc.Document, contentType string, subject whatIsThere) (done bool, err error) {
	taken, err := ex.isAboutTaken(doc, subject)
	if !taken || err != nil {
		return false, err
	}
	if err := ex.passthroughMayWrite(); err != nil {
		return false, err
	}
	digest := received(ref, doc)
	attrs := []any{"digest", digest, "subject", doc.Subject.Digest}
	switch {
	case !smallAbout(doc):
		err = errTooMuch
	case ex.rule.Attestations == filters.Store:
		err = ex.storeAbout(digest, doc)
	default:
		err = ex.holdAbout(digest, doc)
	}
	var s *storageFailed
	switch {
	case err == nil:
		ex.log.Info("artifact about an attestation is kept with it", attrs...)
		ex.seen.became(observe.PushHeld)
		return true, ex.answerManifest(digest, doc)
	case errors.As(err, &s):
		return true, ex.manifestNotKept(digest, doc, contentType, s)
	case errors.Is(err, errNoRoom):
		return true, ex.noRoom()
	case ex.ctx().Err() != nil || !neverKept(err):
		return true, err
	}
	ex.log.Warn("artifact about an attestation is forwarded, since not all of it can be kept", append(attrs, "reason", err)...)
	forgo(err)
	return false, nil
}

var errTooMuch = fmt.Errorf("it has more than %d blobs or %d bytes", maxAboutBlobs, maxAboutBytes)

// neverKept tells what cannot be kept, however often it is tried, from what may be the next time. Nearly always it is that
// upstream has a blob of it and does not give it back.
func neverKept(err error) bool {
	status := 0
	if p, is := errors.AsType[*passed](err); is {
		status = p.resp.StatusCode
	} else if f, is := errors.AsType[*Failure](err); is {
		status = f.Status
	}
	return errors.Is(err, errTooMuch) ||
		status >= 400 && status < 500 && status != http.StatusUnauthorized && status != http.StatusTooManyRequests
}

// whatIsThere is a subject that Sluice has, nil if it has none.
type whatIsThere struct {
	doc *ocidoc.Document
	err error
}

// checkSubject looks at what a document is about: a signature of an original may be refused, and one of an attestation
// stays here. For these the storage is asked both at once, unless it answers at once.
func (ex *exchange) checkSubject(ref string, doc *ocidoc.Document) (subject whatIsThere, err error) {
	if doc.Kind != ocidoc.KindManifest || doc.Subject == nil || filters.IsAttestation(doc) ||
		!digestRef(ref) || len(ex.tags["tag"]) > 0 || !ex.peeks() {
		return subject, ex.checkSigned(ref, doc)
	}
	look := func() {
		defer contain.Panic(&subject.err)
		subject.doc, subject.err = ex.findManifest(doc.Subject.Digest)
	}
	if ex.p.immediate {
		if err = ex.checkSigned(ref, doc); err == nil {
			look()
		}
		return subject, err
	}
	var asked sync.WaitGroup
	asked.Go(look)
	err = ex.checkSigned(ref, doc)
	asked.Wait()
	return subject, err
}

// isAboutTaken is true for an artifact about an attestation that is here and not upstream, and for one about such an
// artifact.
func (ex *exchange) isAboutTaken(doc *ocidoc.Document, subject whatIsThere) (bool, error) {
	for range objects.MaxAbout {
		of := subject.doc
		switch {
		case subject.err != nil:
			return false, ex.cannotTell(doc, subject.err)
		case of == nil:
			return false, nil
		case filters.IsAttestation(of):
			// With store.to: referrers, and if it was pushed by tag, upstream has the attestation too.
			there, err := ex.isUpstream(doc.Subject.Digest)
			return !there, err
		case of.Kind != ocidoc.KindManifest || of.Subject == nil:
			return false, nil
		}
		subject.doc, subject.err = ex.findManifest(of.Subject.Digest)
	}
	return false, nil
}

// cannotTell is for a storage that does not say what an artifact is about. One about what upstream has goes on, as all
// pushes without attestations do.
func (ex *exchange) cannotTell(doc *ocidoc.Document, cause error) error {
	ex.p.storageTrouble(ex.log, "look up what "+doc.Digest()+" is about", cause)
	if ex.p.cfg.OnStorageError != config.StorageErrorReject {
		return nil // forwarded: under strip it would be lost, and it may be an image's that comes after it
	}
	there, err := ex.isUpstream(doc.Subject.Digest)
	if there || err != nil {
		return err
	}
	return transient(cause, "%s for repository %s is about %s, which upstream does not have and the storage of sluice could not look up, see its log (on_storage_error: reject)",
		doc.Digest(), ex.repo, doc.Subject.Digest)
}

// smallAbout is true for what is worth its place in the storage, and does not take too long to be copied there.
func smallAbout(doc *ocidoc.Document) bool {
	blobs := blobsOf(doc)
	left := int64(maxAboutBytes)
	for _, b := range blobs {
		if left -= min(max(b.Size, 0), maxAboutBytes+1); left < 0 {
			return false
		}
	}
	return len(blobs) <= maxAboutBlobs
}

// storeAbout keeps an artifact for as long as its attestation. It stays here with every store.to: what the registry has in
// the attestation's place may have another digest.
func (ex *exchange) storeAbout(digest string, doc *ocidoc.Document) error {
	for _, b := range blobsOf(doc) {
		if err := ex.storeBlob(b); err != nil {
			return err
		}
	}
	err := ex.p.attest.PutDocument(ex.ctx(), ex.repo, digest, mediaTypeOf(doc), doc.Bytes)
	if err == nil {
		err = ex.p.attest.PutRecord(ex.ctx(), ex.repo, attest.Record{
			Attestation: digest, AttestationMediaType: mediaTypeOf(doc), Needs: digestsOf(blobsOf(doc)),
			Subject: doc.Subject.Digest, SubjectMediaType: doc.Subject.MediaType, SubjectSize: doc.Subject.Size, At: ex.p.now().UTC(),
		})
	}
	if err != nil {
		return &storageFailed{cause: err}
	}
	for _, b := range blobsOf(doc) {
		ex.p.heldQuota.release(heldBlobOf(ex.repo, b.Digest))
	}
	return nil
}

// holdAbout keeps an artifact for retention, as `strip` keeps what it takes out.
func (ex *exchange) holdAbout(digest string, doc *ocidoc.Document) error {
	for _, b := range blobsOf(doc) {
		if err := ex.holdCopy(b); err != nil {
			return err
		}
	}
	return ex.holdManifest(digest, doc, doc.Subject.Digest)
}

// holdCopy holds a blob that went upstream when nobody knew what it is about.
func (ex *exchange) holdCopy(d ocidoc.Descriptor) error {
	h, err := ex.findBlob(d.Digest)
	switch {
	case err != nil:
		return &storageFailed{cause: err}
	case h != nil:
		return h.Close()
	case d.Digest == filters.EmptyDigest:
		h = emptyHeld()
	default:
		if h, err = ex.statementUpstream(d); err != nil {
			return err
		}
	}
	defer ex.roomForBlob(h.size)()
	content, err := h.bytes(maxAboutBytes)
	if err != nil {
		return refuse(http.StatusBadGateway, codeUnavailable, "blob %s of repository %s could not be read from upstream: %v", d.Digest, ex.repo, err).because(err)
	}
	if objects.CheckBytes(content, d.Digest) != nil {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "blob %s of repository %s is upstream, but not with its digest", d.Digest, ex.repo)
	}
	if err = ex.holdBlob(d.Digest, content); errors.Is(err, quarantine.ErrStorage) {
		return &storageFailed{cause: err}
	}
	return err
}

// recordsAndHeld are what is stored about a document, and the digests of what is held about it.
func (ex *exchange) recordsAndHeld(digest string) (records []attest.Record, held []string, err error) {
	if ex.p.immediate {
		if records, err = ex.recordsAbout(digest); err == nil {
			held, err = ex.p.quarantine.About(ex.ctx(), ex.repo, digest)
		}
		return records, held, err
	}
	g := contain.NewGroup()
	g.Go(func() (err error) { records, err = ex.recordsAbout(digest); return err })
	g.Go(func() (err error) { held, err = ex.p.quarantine.About(ex.ctx(), ex.repo, digest); return err })
	return records, held, g.Wait()
}

// listedFor is recordsAndHeld for a list of referrers. An image's referrers list an attestation in its derived form, and a
// client has signed the one that it pushed: what is about that is listed for both.
func (ex *exchange) listedFor(digest string) (records []attest.Record, held []string, err error) {
	var pushed []string
	if ex.p.immediate {
		if records, held, err = ex.recordsAndHeld(digest); err == nil {
			pushed, err = ex.pushedAs(digest)
		}
	} else {
		g := contain.NewGroup()
		g.Go(func() (err error) { records, held, err = ex.recordsAndHeld(digest); return err })
		g.Go(func() (err error) { pushed, err = ex.pushedAs(digest); return err })
		err = g.Wait()
	}
	for _, p := range pushed {
		if err != nil {
			break
		}
		var more []attest.Record
		var moreHeld []string
		more, moreHeld, err = ex.recordsAndHeld(p)
		records, held = append(records, more...), append(held, moreHeld...)
	}
	return records, held, err
}

// pushedAs are the digests of the attestations of which a stored document is the derived form; none for any other.
func (ex *exchange) pushedAs(digest string) (pushed []string, err error) {
	m, err := ex.findStored(digest)
	if m == nil || m.Subject == nil || !filters.IsAttestation(m) {
		return nil, err
	}
	records, err := ex.p.attest.BySubject(ex.ctx(), ex.repo, m.Subject.Digest)
	for _, r := range records {
		if r.Derived == digest && r.Attestation != digest && !slices.Contains(pushed, r.Attestation) {
			pushed = append(pushed, r.Attestation)
		}
	}
	return pushed, err
}

// isListed is true for an artifact that is found by what it is about. A push that broke off may have left it without that,
// and is to go on.
func (ex *exchange) isListed(digest string, m *ocidoc.Document) (bool, error) {
	records, held, err := ex.recordsAndHeld(m.Subject.Digest)
	return slices.Contains(held, digest) || slices.ContainsFunc(records, func(r attest.Record) bool { return r.Attestation == digest }), err
}

// describe lists what is held about an attestation.
func (ex *exchange) describe(held []string, list *boundedList) error {
	for _, d := range held {
		doc, err := ex.heldDocument(d)
		if errors.Is(err, quarantine.ErrNotFound) {
			continue // deleted
		}
		if err != nil {
			return err
		}
		list.add(referrerDescriptor(doc, d, doc.ContentType))
	}
	return nil
}

// deleteAbout deletes what is kept about an attestation, before the attestation itself: a delete that fails half-way finds
// the rest again.
func (ex *exchange) deleteAbout(attestation string) error {
	about, err := ex.p.quarantine.About(ex.ctx(), ex.repo, attestation)
	if err != nil {
		return err
	}
	records, err := ex.p.attest.BySubject(ex.ctx(), ex.repo, attestation)
	if err != nil {
		return err
	}
	for _, r := range records {
		about = append(about, r.Attestation)
	}
	for _, digest := range about {
		m, err := ex.findManifest(digest)
		if err == nil && m != nil {
			_, err = ex.deleteAttestation(digest, m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
