package proxy

import (
	"errors"
	"net/http"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/config"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

// maxStatementRead bounds what is read of a statement to find out whom it is about, when neither
// its manifest nor its entry says so (buildah drops the annotations).
const maxStatementRead = 4 << 20

// storeTaken keeps for good what an index loses under `store`: the attestation manifests, their
// statements, and a derived OCI 1.1 referrer for those that have no subject. The records that make
// them findable are returned, to be written when the index is upstream.
func (ex *exchange) storeTaken(rw *rewriting) ([]attest.Record, error) {
	var records []attest.Record
	for _, t := range rw.plan.Taken {
		if t.Verdict.Action != filters.Store {
			continue
		}
		var rec *attest.Record
		subject, err := ex.subjectOf(rw, t)
		if err == nil {
			rec, err = ex.storeOne(t.Entry.Digest, t.Manifest, subject)
		}
		if errors.Is(err, errNotGivenBack) {
			ex.wantAll(rw)
		}
		if err != nil {
			return nil, err
		}
		records = append(records, *rec)
	}
	return records, nil
}

// storeReferrer keeps an attestation that says by its subject what it is about, before any index
// names it, if any ever does. It is known by the digest that it was pushed by, which may not be its sha256.
func (ex *exchange) storeReferrer(digest string, doc *ocidoc.Document) error {
	rec, err := ex.storeOne(digest, doc, *doc.Subject)
	if errors.Is(err, errNotGivenBack) {
		ex.want(doc)
	}
	if err != nil {
		return err
	}
	rec.At = ex.p.now().UTC()
	if err := ex.p.attest.PutRecord(ex.ctx(), ex.repo, *rec); err != nil {
		return &storageFailed{cause: err}
	}
	return nil
}

// storeOne keeps one attestation: its config and the documents here, which serve the original, and the statements
// where store.to says. Each document comes before what it names is looked for: a delete of another attestation at this moment
// sees by it what is needed here.
func (ex *exchange) storeOne(digest string, m *ocidoc.Document, subject ocidoc.Descriptor) (*attest.Record, error) {
	rec := &attest.Record{
		Attestation: digest, AttestationMediaType: mediaTypeOf(m),
		Subject: subject.Digest, SubjectMediaType: subject.MediaType, SubjectSize: subject.Size,
	}
	for _, l := range m.Layers {
		rec.Statements = append(rec.Statements, attest.Statement{
			Digest: l.Digest, MediaType: l.MediaType, Size: l.Size, PredicateType: l.Annotations[filters.AnnotationPredicateType],
		})
	}
	a := ex.p.attest
	if err := a.PutDocument(ex.ctx(), ex.repo, digest, mediaTypeOf(m), m.Bytes); err != nil {
		return nil, &storageFailed{cause: err}
	}
	if m.Config != nil {
		if err := ex.storeBlob(*m.Config); err != nil {
			return nil, err
		}
		rec.Needs = []string{m.Config.Digest}
	}
	referrer := m
	if m.Subject == nil || subject.Digest != m.Subject.Digest { // of an image that was converted since
		var err error
		if referrer, err = derived(m, subject); err != nil {
			return nil, err
		}
		if referrer != nil {
			rec.Derived = referrer.Digest()
			rec.Needs = append(rec.Needs, filters.EmptyDigest)
			if err := a.PutDocument(ex.ctx(), ex.repo, rec.Derived, ocidoc.MediaTypeOCIManifest, referrer.Bytes); err != nil {
				return nil, &storageFailed{cause: err}
			}
			if err := ex.storeBlob(ocidoc.Descriptor{Digest: filters.EmptyDigest}); err != nil {
				return nil, err
			}
		}
	}
	to, err := ex.destination()
	if err != nil {
		return nil, err
	}
	return rec, to.keep(rec, m, referrer)
}

// derived is a legacy attestation as an OCI 1.1 referrer of its image, nil when nobody knows of which.
func derived(m *ocidoc.Document, subject ocidoc.Descriptor) (*ocidoc.Document, error) {
	if subject.Digest == "" || subject.MediaType == "" {
		return nil, nil
	}
	b := filters.Derived(m, subject)
	if b == nil {
		return nil, nil
	}
	return ocidoc.Parse(b, ocidoc.MediaTypeOCIManifest)
}

// storeBlob copies a statement, or the config beside it, to where it stays: from quarantine, or
// from upstream, if the client mounted it there or sent it before Sluice was in the way.
func (ex *exchange) storeBlob(d ocidoc.Descriptor) error {
	if ex.storedNow[d.Digest] {
		return nil // several attestations have the empty config
	}
	err := ex.storeBlobOnce(d)
	if err == nil {
		if ex.storedNow == nil {
			ex.storedNow = map[string]bool{}
		}
		ex.storedNow[d.Digest] = true
	}
	return err
}

func (ex *exchange) storeBlobOnce(d ocidoc.Descriptor) error {
	ctx, a := ex.ctx(), ex.p.attest
	if a.HasLately(ex.repo, d.Digest) { // an attestation with a subject was stored before its index came
		if _, err := a.StatBlob(ctx, ex.repo, d.Digest); err == nil {
			return nil
		}
	}
	w := ex.everywhere(d.Digest)
	switch {
	case w.heldErr != nil && !errors.Is(w.heldErr, quarantine.ErrNotFound):
		return &storageFailed{cause: w.heldErr}
	case w.storedErr == nil:
		return nil
	case !errors.Is(w.storedErr, attest.ErrNotFound):
		return &storageFailed{cause: w.storedErr}
	}
	h, err := ex.found(d.Digest, w)
	if err != nil {
		return &storageFailed{cause: err}
	}
	if h == nil && d.Digest == filters.EmptyDigest {
		h = emptyHeld()
	}
	if h != nil {
		defer h.Close()
		if err := a.AddBlob(ctx, ex.repo, d.Digest, h, h.size); err != nil {
			return &storageFailed{cause: err}
		}
		return nil
	}
	if h, err = ex.statementUpstream(d); err != nil {
		return err
	}
	defer h.Close()
	err = a.AddBlob(ctx, ex.repo, d.Digest, h, h.size)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, attest.ErrStorage):
		return &storageFailed{cause: err}
	case errors.Is(err, attest.ErrDigest):
		return refuse(http.StatusBadRequest, codeManifestInvalid, "attestation blob %s of repository %s is upstream, but not with the digest and size that its manifest says: %v", d.Digest, ex.repo, err).because(err)
	}
	return ex.unreadUpstream(d, err)
}

func (ex *exchange) unreadUpstream(d ocidoc.Descriptor, err error) error {
	return refuse(http.StatusBadGateway, codeUnavailable, "attestation blob %s of repository %s could not be read from upstream: %v", d.Digest, ex.repo, err).because(err)
}

// statementUpstream is blobUpstream for what is to be kept, and stays in the registry all the same.
func (ex *exchange) statementUpstream(d ocidoc.Descriptor) (*held, error) {
	h, err := ex.blobUpstream(d)
	if err == nil {
		ex.log.Warn("attestation blob was upstream already and stays there", "digest", d.Digest)
		ex.p.observe.Exception("blob_upstream")
	}
	return h, err
}

// blobUpstream reads a blob of an attestation that the client found upstream, or mounted there.
func (ex *exchange) blobUpstream(d ocidoc.Descriptor) (*held, error) {
	resp, err := ex.do(upstream.Request{Method: http.MethodGet, Path: blobPath(d.Digest), Follow: true})
	if err != nil {
		return nil, err
	}
	if ex.notGivenBack(resp) {
		kept := keepAnswer(resp)
		return nil, refuse(http.StatusBadRequest, codeManifestBlobUnknown,
			"attestation blob %s of repository %s was not pushed through sluice, and Amazon ECR does not give it back (%s; it keeps to itself what no image refers to): push again, and the blob is sent; nothing was changed",
			d.Digest, ex.repo, clip(string(kept.body))).because(errNotGivenBack)
	}
	if resp.StatusCode == http.StatusNotFound {
		discard(resp)
		missing := refuse(http.StatusBadRequest, codeManifestBlobUnknown,
			"attestation blob %s of repository %s was neither pushed here nor is upstream: push it again; nothing was changed", d.Digest, ex.repo)
		if ex.p.cfg.OnStorageError == config.StorageErrorStrip {
			return nil, &storageFailed{cause: missing} // it may have been acknowledged without being kept, while the storage failed
		}
		return nil, missing
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &passed{resp}
	}
	if limit := int64(ex.p.cfg.MaxHeldBlob); resp.ContentLength > limit || d.Size > limit {
		discard(resp)
		return nil, ex.tooLarge()
	}
	return &held{ctx: ex.ctx(), size: d.Size, rc: resp.Body, open: ex.openBlob(d.Digest)}, nil
}

// recordStored makes what was stored findable by image, by original and by tag.
func (ex *exchange) recordStored(ref, original string, records []attest.Record) error {
	for _, rec := range records {
		rec.Original, rec.At = original, ex.p.now().UTC()
		if !digestRef(ref) {
			rec.Tag = ref
		}
		if err := ex.p.attest.PutRecord(ex.ctx(), ex.repo, rec); err != nil {
			return err
		}
	}
	return nil
}

// subjectOf finds the image that an attestation is about, as upstream has it: readers of the registry
// know a converted image by no other digest.
func (ex *exchange) subjectOf(rw *rewriting, t filters.Taken) (ocidoc.Descriptor, error) {
	d, err := ex.pushedSubject(rw, t)
	if child := rw.children[d.Digest]; err != nil || child == nil || child.Kind != ocidoc.KindManifest {
		return d, err
	}
	if will, ok := rw.became[d.Digest]; ok {
		return ocidoc.Descriptor{MediaType: will.MediaType, Digest: will.Digest, Size: will.Size}, nil
	}
	return d, nil
}

// pushedSubject is the image as it was pushed: the entry or the manifest of the attestation says it,
// or its first statement does. One that cannot be read now is an error: what is stored without its image is listed nowhere.
func (ex *exchange) pushedSubject(rw *rewriting, t filters.Taken) (ocidoc.Descriptor, error) {
	if t.Manifest.Subject != nil {
		return *t.Manifest.Subject, nil
	}
	if t.Subject != "" {
		if d, ok := entryOf(rw, t.Subject); ok {
			return d, nil
		}
		return ocidoc.Descriptor{Digest: t.Subject}, nil
	}
	for _, l := range t.Manifest.Layers {
		subjects, err := ex.subjectsOf(l)
		if err != nil {
			return ocidoc.Descriptor{}, err
		}
		for _, s := range subjects {
			if d, ok := entryOf(rw, s); ok {
				return d, nil
			}
		}
	}
	ex.log.Warn("attestation does not say which image of its index it is about", "digest", t.Entry.Digest)
	return ocidoc.Descriptor{}, nil
}

// subjectsOf are the digests that a statement is about; none for one that is too large or no statement.
func (ex *exchange) subjectsOf(d ocidoc.Descriptor) ([]string, error) {
	h, err := ex.findBlob(d.Digest)
	if err != nil {
		return nil, &storageFailed{cause: err}
	}
	here := h != nil
	switch {
	case here && h.size > maxStatementRead, !here && d.Size > maxStatementRead:
		return nil, nil
	case !here:
		if h, err = ex.blobUpstream(d); err != nil {
			return nil, err
		}
	}
	defer ex.roomForBlob(h.size)()
	b, err := h.bytes(maxStatementRead)
	switch f, ours := errors.AsType[*Failure](err); {
	case err == nil:
	case ours:
		return nil, f
	case here:
		return nil, &storageFailed{cause: err}
	default:
		return nil, ex.unreadUpstream(d, err)
	}
	info, err := filters.ParseStatement(b)
	if err != nil {
		return nil, nil //nolint:nilerr // whatever it is, it says nothing of an image
	}
	return info.Subjects, nil
}

// entryOf is the plain descriptor of an entry, without what only the index says of it.
func entryOf(rw *rewriting, digest string) (ocidoc.Descriptor, bool) {
	for _, e := range rw.doc.Manifests {
		if e.Digest == digest {
			return ocidoc.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size}, true
		}
	}
	return ocidoc.Descriptor{}, false
}

// predicateTypes is what an attestation manifest says that its statements are.
func predicateTypes(m *ocidoc.Document) []string {
	var types []string
	for _, l := range m.Layers {
		types = append(types, l.Annotations[filters.AnnotationPredicateType])
	}
	return types
}
