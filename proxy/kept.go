package proxy

import (
	"errors"
	"net/http"
	"sync"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/internal/contain"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

// What Sluice has of manifests and upstream lacks: in quarantine, and among what `store` keeps.

// keepsWhole makes sure that what a held manifest refers to is still here and will stay for a while:
// a client that is told that the manifest exists does not send its blobs.
func (ex *exchange) keepsWhole(digest string, m *ocidoc.Document) (bool, error) {
	err := ex.p.quarantine.StatManifest(ex.ctx(), ex.repo, digest)
	if errors.Is(err, quarantine.ErrNotFound) {
		err = ex.p.attest.StatDocument(ex.ctx(), ex.repo, digest)
	}
	if errors.Is(err, attest.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, &storageFailed{cause: err}
	}
	if !filters.IsAttestation(m) && m.Subject != nil {
		switch listed, err := ex.isListed(digest, m); {
		case err != nil:
			return false, &storageFailed{cause: err}
		case !listed:
			return false, nil
		}
		if err := ex.p.quarantine.StatAbout(ex.ctx(), ex.repo, m.Subject.Digest, digest); err != nil && !errors.Is(err, quarantine.ErrNotFound) {
			return false, &storageFailed{cause: err}
		}
	}
	for _, d := range blobsOf(m) {
		if ex.knownWithoutACopy(d.Digest) {
			continue
		}
		h, err := ex.findBlob(d.Digest)
		if err != nil {
			return false, &storageFailed{cause: err}
		}
		there := h != nil
		if !there && !ex.onECR() { // which does not give back what no image refers to
			// The client may have mounted it upstream, from a repository that is not under this rule.
			there, err = ex.exists(blobPath(d.Digest))
		}
		if err != nil {
			return false, err
		}
		if !there {
			if ex.onECR() { // who looked there has not sent it, and whoever misses it here would miss it each time
				ex.want(m)
			}
			return false, nil
		}
	}
	return true, nil
}

// original serves a rewritten document by the digest that its client knows, as long as upstream
// holds its counterpart; that upstream shows it to these credentials is also what lets them read it.
func (ex *exchange) original(digest string, aliases []quarantine.Alias) (*localDocument, error) {
	var gone error
	for _, a := range aliases {
		resp, err := ex.askManifest(upstream.Request{Method: http.MethodHead, Path: manifestPath(a.Forwarded), Header: http.Header{"Accept": manifestTypes}})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusNotFound {
			discard(resp)
			continue
		}
		if resp.StatusCode >= 300 { // it may be there: a puller takes "not found" as final
			return nil, &passed{resp}
		}
		discard(resp)
		b, err := ex.findOriginal(digest)
		if err != nil {
			return nil, ex.storageTransient(err, "original document %s of repository %s could not be read from the storage of sluice, see its log", digest, ex.repo)
		}
		whole := b != nil
		if whole {
			whole, err = ex.keepsTaken(a)
		}
		if err != nil && ex.r.Method == http.MethodGet {
			if s, is := errors.AsType[*storageFailed](err); is {
				return nil, ex.storageTransient(s.cause, "what %s of repository %s lists could not be read from the storage of sluice, see its log", digest, ex.repo)
			}
			return nil, err
		}
		ex.goWithout("look for what original "+digest+" lists", err) // who asks by HEAD is about to send it
		if !whole {
			if gone == nil { // what an earlier rule made of it may have taken less away, and still be whole
				gone = refuse(http.StatusNotFound, codeManifestUnknown,
					"%s was forwarded as %s and is no longer kept whole (its attestations were deleted, or retention is over): use %s@%s",
					digest, a.Forwarded, ex.repo, a.Forwarded).with(forwardedHeader, a.Forwarded)
			}
			continue
		}
		return &localDocument{mediaType: a.OriginalMediaType, bytes: b, forwarded: a.Forwarded}, nil
	}
	return nil, gone
}

// keepsTaken makes sure that everything which an original lists and upstream lacks is still here: a
// reader that is shown the original fails when one of them is 404 (Docker 29, containerd 2.2), and a
// client that is told that it exists does not send them again. Under `store` it is not enough that they are: after a delete
// or an expiry, a push that broke off may have stored them again, and not the records without which nothing lists them.
func (ex *exchange) keepsTaken(a quarantine.Alias) (bool, error) {
	find := ex.findManifest
	var recorded map[string]bool
	if a.Action == filters.Store && len(a.Taken) > 0 {
		find = ex.findStored // one that was deleted, and pushed again, waits in quarantine for its index
		var err error
		if recorded, err = ex.p.attest.OfOriginal(ex.ctx(), ex.repo, a.Original); err != nil {
			return false, &storageFailed{cause: err}
		}
	}
	for _, d := range a.Taken {
		m, err := find(d)
		if err != nil {
			return false, &storageFailed{cause: err}
		}
		if m == nil {
			switch b, err := ex.findOriginal(d); {
			case err != nil:
				return false, &storageFailed{cause: err}
			case b == nil:
				// Upstream may have it after all (on_storage_error: forward, or a rule that was changed), and readers find it there.
				if there, err := ex.exists(manifestPath(d)); err != nil || !there {
					return false, err
				}
			}
			continue
		}
		if !filters.IsAttestation(m) { // the blobs of a converted image are upstream
			continue
		}
		if a.Action == filters.Store && !recorded[d] {
			return false, nil
		}
		if whole, err := ex.keepsWhole(d, m); err != nil || !whole {
			return false, err
		}
	}
	return true, nil
}

// findOriginal reads the bytes that were received, from either place. nil is "gone".
func (ex *exchange) findOriginal(digest string) ([]byte, error) {
	m, err := ex.p.quarantine.Original(ex.ctx(), ex.repo, digest)
	if !errors.Is(err, quarantine.ErrNotFound) {
		return m.Bytes, err
	}
	_, b, err := ex.p.attest.Document(ex.ctx(), ex.repo, digest)
	if errors.Is(err, attest.ErrNotFound) {
		return nil, nil
	}
	return b, err
}

// findManifest finds a held or stored manifest, whoever asks. nil is "not here". Both places are asked at once, as for
// blobs, unless storage answers at once.
func (ex *exchange) findManifest(digest string) (*ocidoc.Document, error) {
	if ex.p.immediate {
		doc, err := ex.heldDocument(digest)
		if errors.Is(err, quarantine.ErrNotFound) {
			return ex.findStored(digest)
		}
		return doc, err
	}
	var (
		asked     sync.WaitGroup
		stored    *ocidoc.Document
		storedErr error
	)
	asked.Go(func() { defer contain.Panic(&storedErr); stored, storedErr = ex.findStored(digest) })
	doc, err := ex.heldDocument(digest)
	asked.Wait()
	if errors.Is(err, quarantine.ErrNotFound) {
		return stored, storedErr
	}
	return doc, err
}

// findStored finds a manifest that `store` keeps, whoever asks. nil is "not here".
func (ex *exchange) findStored(digest string) (*ocidoc.Document, error) {
	doc, err := ex.storedDocument(digest)
	if errors.Is(err, attest.ErrNotFound) {
		return nil, nil
	}
	return doc, err
}

func (ex *exchange) heldDocument(digest string) (*ocidoc.Document, error) {
	m, err := ex.p.quarantine.Manifest(ex.ctx(), ex.repo, digest)
	if err != nil {
		return nil, err
	}
	return ocidoc.Parse(m.Bytes, m.MediaType)
}

func (ex *exchange) storedDocument(digest string) (*ocidoc.Document, error) {
	mediaType, b, err := ex.p.attest.Document(ex.ctx(), ex.repo, digest)
	if err != nil {
		return nil, err
	}
	return ocidoc.Parse(b, mediaType)
}
