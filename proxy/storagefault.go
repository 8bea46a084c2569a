package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/observe"
	"sluice/proxy/quarantine"
)

// storageFailed is trouble of the storage, or of the registry that attestations go to, in the middle of a push;
// on_storage_error decides.
type storageFailed struct {
	cause  error
	answer *Failure // of reject, when there is something better to say than that the storage failed
}

func (s *storageFailed) Error() string { return "storage: " + s.cause.Error() }
func (s *storageFailed) Unwrap() error { return s.cause }

// storageTrouble is logged and counted where it does not end the request.
func (p *Proxy) storageTrouble(log *slog.Logger, doing string, err error) {
	if errors.Is(err, quarantine.ErrNotFound) || errors.Is(err, context.Canceled) {
		return // not there, or a client that went away
	}
	p.observe.StorageError()
	log.Error("storage failed", "doing", doing, "reason", err, "on_storage_error", p.cfg.OnStorageError)
}

// goWithout is done with an error that ends no request: what is asked for is then "not here".
func (ex *exchange) goWithout(doing string, err error) {
	if s, is := errors.AsType[*storageFailed](err); is {
		ex.p.storageTrouble(ex.log, doing, s.cause)
	}
	forgo(err)
}

// storageTransient is trouble of the storage that ends the request: counted here, logged with the answer.
func (ex *exchange) storageTransient(err error, format string, args ...any) *Failure {
	if !errors.Is(err, context.Canceled) {
		ex.p.observe.StorageError()
	}
	return transient(err, format, args...)
}

// manifestNotKept does what the operator chose for an attestation manifest that cannot be kept.
func (ex *exchange) manifestNotKept(digest string, doc *ocidoc.Document, contentType string, s *storageFailed) error {
	ex.p.storageTrouble(ex.log, "keep attestation manifest "+digest, s.cause)
	switch ex.p.cfg.OnStorageError {
	case config.StorageErrorForward:
		return ex.forward(digest, doc, contentType)
	case config.StorageErrorStrip:
		ex.seen.became(observe.PushHeld)
		return ex.answerManifest(digest, doc)
	}
	if s.answer != nil {
		return s.answer
	}
	return transient(s.cause, "attestation manifest %s for repository %s could not be kept: the storage of sluice failed, see its log (on_storage_error: reject)", digest, ex.repo)
}

// cannotStore does what the operator chose for an index whose attestations cannot be kept.
func (ex *exchange) cannotStore(ref string, doc *ocidoc.Document, contentType string, policy filters.Policy, s *storageFailed) error {
	ex.p.storageTrouble(ex.log, "keep what was taken out of "+doc.Digest(), s.cause)
	switch ex.p.cfg.OnStorageError {
	case config.StorageErrorForward:
		return ex.forwardWhole(ref, doc, contentType)
	case config.StorageErrorStrip:
		if digestRef(ref) && doc.Kind == ocidoc.KindManifest {
			// Without an alias its index would not find it. It is converted when that comes.
			return ex.forward(ref, doc, contentType)
		}
		policy.Attestations = filters.Strip
		return ex.stripOnly(ref, doc, policy)
	}
	if s.answer != nil {
		return s.answer
	}
	return transient(s.cause, "attestations of %s for repository %s could not be kept: the storage of sluice failed, see its log; push again (on_storage_error: reject)", doc.Digest(), ex.repo)
}

// stripOnly forwards the images of an index and keeps nothing, not even the alias.
func (ex *exchange) stripOnly(ref string, doc *ocidoc.Document, policy filters.Policy) error {
	if err := ex.refuseTags(doc); err != nil {
		return err
	}
	ex.standIns = true
	rw, err := ex.judge(doc, policy)
	if err != nil {
		return ex.refuseMissing(err)
	}
	if rw.plan.Empty && filters.IsFallbackTag(ref) {
		return ex.answerManifest(ref, doc) // as with storage: acknowledged, and not forwarded
	}
	if rw.plan.Empty {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "index %s for repository %s has nothing but attestations: push it with an image, or under a rule with attestations: forward", doc.Digest(), ex.repo)
	}
	if err := ex.putNested(rw); err != nil {
		return err
	}
	if err := ex.releaseKept(rw); err != nil {
		return err
	}
	if err := ex.putRewritten(ref, rw); err != nil {
		return err
	}
	ex.claimed(rw)
	ex.logPush("pushed without keeping attestations, since storage failed", ref, rw, 0)
	ex.seen.became(observe.PushRewritten)
	ex.pushedEvent(ref, rw.forwarded, rw.mediaType, rw.size, doc)
	ex.tellForwarded(received(ref, doc), rw.forwarded)
	return ex.answerManifest(ref, doc)
}

// putNested puts the inner indexes of a rewriting, the innermost first.
func (ex *exchange) putNested(rw *rewriting) error {
	for _, inner := range rw.nested {
		if inner.plan.Empty || inner.applied {
			continue
		}
		inner.applied = true
		if err := ex.putNested(inner); err != nil {
			return err
		}
		if err := ex.releaseKept(inner); err != nil {
			return err
		}
		if err := ex.putRewritten(inner.doc.Digest(), inner); err != nil {
			return err
		}
	}
	return nil
}

// forwardWhole forwards an index with its attestations, since storage failed. Not every upstream looks whether the
// children are there, so they go first, and one that nobody has any more is refused.
func (ex *exchange) forwardWhole(ref string, doc *ocidoc.Document, contentType string) error {
	if _, err := ex.releaseAll(doc); err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, e := range doc.Manifests {
		if !saysAttestation(e) || seen[e.Digest] {
			continue
		}
		seen[e.Digest] = true
		_, err := ex.fetchManifest(e.Digest, ocidoc.MaxBytes)
		if _, missing := asMissingChild(err); missing {
			if _, err := ex.findReleasable(e.Digest); err != nil { // it may well be here
				return ex.storageTransient(err, "manifest %s, which an index for repository %s lists, could not be read: the storage of sluice failed, see its log", e.Digest, ex.repo)
			}
		}
		if err != nil {
			return ex.refuseMissing(err)
		}
	}
	if err := ex.forward(ref, doc, contentType); err != nil {
		return err
	}
	if len(seen) > 0 {
		ex.log.Warn("forwarded with attestations, since storage failed", "reference", ref, "digest", doc.Digest(), "attestations", len(seen))
	}
	for range seen {
		ex.p.observe.Exception("storage")
	}
	return nil
}

// standIn is an attestation manifest that was acknowledged and not kept (on_storage_error: strip):
// its entry is all that is left of it. Only an entry that says what it is gets one.
func standIn(e ocidoc.Descriptor) *ocidoc.Document {
	if e.Annotations[filters.AnnotationReferenceType] != "attestation-manifest" {
		return nil
	}
	return &ocidoc.Document{
		Kind: ocidoc.KindManifest, ContentType: e.MediaType,
		ArtifactType: filters.ArtifactTypeAttestation,
	}
}
