package proxy

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/observe"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

// putManifest takes a manifest or an index, by digest or by tag (distribution-spec, "Pushing manifests").
func (ex *exchange) putManifest() error {
	ref := ex.ref
	ex.seen.manifest, ex.seen.byDigest, ex.seen.action = true, digestRef(ref), string(ex.action())
	body, release, err := ex.readManifest(ref)
	if err != nil {
		return err
	}
	defer release()
	defer ex.leaveHeavy()
	contentType := ex.r.Header.Get("Content-Type")
	if digestRef(ref) {
		ex.tags = url.Values{"tag": ex.r.URL.Query()["tag"]} // distribution-spec after 1.1: tags beside a push by digest
	}
	doc, err := ocidoc.Parse(body, contentType)
	if ex.rule.Attestations == filters.Forward && (err != nil || !filters.Converts(doc, ex.policy())) {
		if err != nil || doc.Kind != ocidoc.KindIndex {
			doc = &ocidoc.Document{Bytes: body, ContentType: contentType} // none of its blobs is looked for
		}
		return ex.forward(ref, doc, contentType)
	}
	if err != nil && ex.p.cfg.DryRun {
		ex.log.Warn("dry run: would be refused", "reference", ref, "reason", err)
		return ex.forward(ref, &ocidoc.Document{Bytes: body, ContentType: contentType}, contentType)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "manifest %s for repository %s: %v", clip(ref), ex.repo, err)
	}
	subject, err := ex.checkSubject(ref, doc)
	if err != nil {
		return err
	}
	switch {
	case doc.Kind == ocidoc.KindIndex, filters.Converts(doc, ex.policy()):
		// What is held is judged, stored and told of only for who may push here (I9).
		if err := ex.passthroughMayWrite(); err != nil {
			return err
		}
		return ex.putJudged(ref, doc, contentType)
	case filters.IsAttestation(doc) && digestRef(ref) && len(ex.tags["tag"]) == 0 && ex.peeks():
		return ex.holdAttestation(doc, contentType)
	case filters.IsAttestation(doc) && ex.peeks():
		// Deliberate: somebody wants this document under a name.
		ex.log.Warn("attestation pushed by tag is forwarded", "tag", ref, "digest", doc.Digest())
		ex.p.observe.Exception("pushed_by_tag")
	default:
		if done, err := ex.keepAbout(ref, doc, contentType, subject); done || err != nil {
			return err
		}
	}
	return ex.forward(ref, doc, contentType)
}

// received is the digest that the answer carries (I5): of the bytes received, in the algorithm of
// the URL. BuildKit, containerd, regctl and oras compare it with what they sent.
func received(ref string, doc *ocidoc.Document) string {
	if digestRef(ref) {
		return ref
	}
	return doc.Digest()
}

// answerManifest is the 201 of a manifest. regctl and oras take no other status.
func (ex *exchange) answerManifest(ref string, doc *ocidoc.Document) error {
	digest := received(ref, doc)
	ex.say("Location", ex.here("/manifests/", digest))
	ex.say("Docker-Content-Digest", digest)
	if doc.Subject != nil && ex.action() != filters.Forward { // under forward only upstream's word counts
		ex.w.Header().Set("OCI-Subject", doc.Subject.Digest)
	}
	ex.say("Content-Length", "0")
	ex.answers = true
	ex.w.WriteHeader(http.StatusCreated)
	return nil
}

// forward sends a document upstream as the very bytes received (I4), after what it refers to.
func (ex *exchange) forward(ref string, doc *ocidoc.Document, contentType string) error {
	start := ex.p.now()
	if ex.action() == filters.Forward {
		if err := ex.releaseHeldBefore(doc); err != nil {
			return err
		}
	}
	if err := ex.putUpstream(ref, doc, contentType); err != nil {
		return err
	}
	if ex.action() == filters.Forward && digestRef(ref) {
		ex.p.sent.put(ex.repo, wentAlong(ref))
	}
	if doc.Kind == ocidoc.KindManifest && !filters.IsAttestation(doc) {
		ex.p.sent.put(ex.repo, manifestPath(received(ref, doc)))
	}
	ex.forgetTag(ref, doc)
	ex.seen.became(observe.PushForwarded)
	if !digestRef(ref) {
		ex.log.Info("pushed", "reference", ref, "digest", doc.Digest(), "size", len(doc.Bytes), "action", ex.action(), "rule", ex.rule.Name,
			"identity", ex.id.Name, "took", ex.p.now().Sub(start))
	}
	ex.pushedEvent(ref, received(ref, doc), mediaTypeOf(doc), int64(len(doc.Bytes)), nil)
	return ex.answerManifest(ref, doc)
}

// forgetTag ends what view: original shows under a tag when the forwarded document itself is pushed
// there: it is what the client now wants to see.
func (ex *exchange) forgetTag(ref string, doc *ocidoc.Document) {
	if digestRef(ref) || ex.rule.View != config.ViewOriginal || ex.action() == filters.Forward {
		return
	}
	_, err := ex.p.quarantine.TagOriginal(ex.ctx(), ex.repo, ref, doc.Digest())
	if errors.Is(err, quarantine.ErrNotFound) {
		return
	}
	if err == nil {
		err = ex.p.quarantine.DeleteTag(ex.ctx(), ex.repo, ref)
	}
	if err != nil {
		ex.p.storageTrouble(ex.log, "forget what was pushed under tag "+ref, err)
	}
}

// putUpstream releases what doc refers to and puts it. Upstream's word that something is missing
// leads to one look at everything and one more try: a guess too cautious never fails a push (I8).
func (ex *exchange) putUpstream(ref string, doc *ocidoc.Document, contentType string) error {
	if err := ex.releaseLikely(doc); err != nil {
		return err
	}
	resp, err := ex.sendManifest(ref, doc.Bytes, contentType)
	if err != nil {
		return err
	}
	if missing(resp) && ex.hasReferences(doc) {
		kept := keepAnswer(resp)
		sent, err := ex.releaseAll(doc)
		if err != nil {
			return err
		}
		mayAppear := ex.mayAppear(doc)
		if !sent && !mayAppear {
			return &passed{kept.response()}
		}
		if resp, err = ex.sendManifest(ref, doc.Bytes, contentType); err != nil {
			return err
		}
		for wait := gapFirst; missing(resp) && mayAppear && ex.wait(wait); wait = min(2*wait, gapMost) {
			discard(resp)
			if resp, err = ex.sendManifest(ref, doc.Bytes, contentType); err != nil {
				return err
			}
		}
	}
	if resp.StatusCode >= 300 {
		return &passed{resp}
	}
	discard(resp)
	if ref == ex.ref {
		for _, name := range []string{"Oci-Tag", "Oci-Subject"} {
			if v := resp.Header[name]; len(v) > 0 && (name == "Oci-Tag" || ex.action() == filters.Forward) {
				ex.w.Header()[name] = v
			}
		}
	}
	return ex.takeOverReferrer(doc, resp)
}

// tagsFor is the query of the document that the client pushes, and of no other that goes before it.
func (ex *exchange) tagsFor(ref string) url.Values {
	if ref == ex.ref {
		return ex.tags
	}
	return nil
}

// hasReferences parses what a forwarding rule left unparsed, now that it matters.
func (ex *exchange) hasReferences(doc *ocidoc.Document) bool {
	if doc.Kind == ocidoc.KindOther {
		if d, err := ocidoc.Parse(doc.Bytes, doc.ContentType); err == nil {
			*doc = *d
		}
	}
	return doc.Kind != ocidoc.KindOther
}

func (ex *exchange) sendManifest(ref string, body []byte, contentType string) (*http.Response, error) {
	header := http.Header{}
	if ref == ex.ref && !digestRef(ref) {
		header = pick(ex.r.Header, "If-Match", "If-None-Match") // of upstream's own ETag, which a reader of the tag has seen
	}
	if contentType != "" {
		header.Set("Content-Type", contentType)
	}
	resp, err := ex.do(upstream.Request{
		Method: http.MethodPut, Path: manifestPath(ref), Query: ex.tagsFor(ref), Push: true, Header: header,
		Replay: body, ContentLength: int64(len(body)),
	})
	if err == nil && resp.StatusCode >= 300 && !digestRef(ref) && ex.holdsAlready(ref, body, resp) {
		discard(resp)
		resp.StatusCode, resp.Body = http.StatusCreated, http.NoBody
	}
	if err == nil && resp.StatusCode < 300 {
		if !created(resp, ref, body) {
			discard(resp)
			return nil, refuse(http.StatusBadGateway, codeUnavailable,
				"upstream answered %s to the push of manifest %s for repository %s, and not that it has it: is something else than a registry in between?", resp.Status, ref, ex.repo)
		}
		ex.justPushed(ref, body)
	}
	return resp, err
}

// created is true for 201 (distribution-spec, "Pushing Manifests"), and for another success that names what was
// stored: a page of some portal is a 200 as well, and a 201 of ours would promise what is not there (I6).
func created(resp *http.Response, ref string, body []byte) bool {
	digest := resp.Header.Get("Docker-Content-Digest")
	return resp.StatusCode == http.StatusCreated || digest != "" && (digest == ref || digest == ocidoc.DigestOf(body))
}

// holdsAlready is true when a tag is immutable and holds this very document: a rebuild whose images
// did not change is a success, although its provenance changed. So is a push on a condition that is not met any more
// since an earlier try, whose answer was lost, was that push.
func (ex *exchange) holdsAlready(tag string, body []byte, refusal *http.Response) bool {
	if refusal.StatusCode >= 500 || refusal.StatusCode != http.StatusPreconditionFailed && !immutable(refusal) {
		return false
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodHead, Path: manifestPath(tag), Header: http.Header{"Accept": manifestTypes}})
	if err != nil {
		return false
	}
	defer discard(resp)
	return resp.StatusCode == http.StatusOK && resp.Header.Get("Docker-Content-Digest") == ocidoc.DigestOf(body)
}

// immutable recognises the refusal of ECR (400 TAG_INVALID) and of others, which say so in words.
func immutable(resp *http.Response) bool { return says(resp, "tag_invalid", "immutable") }

// missing is true when upstream refused a manifest because it lacks something it refers to.
func missing(resp *http.Response) bool {
	return resp.StatusCode >= 400 && resp.StatusCode < 500 &&
		says(resp, `"manifest_blob_unknown"`, `"blob_unknown"`, `"manifest_unknown"`, `"manifest_unverified"`,
			// ECR's words; the code that it gives them is not known
			"referencing an image that does not exist", "layers could not be found")
}

// says looks for words in an upstream error, in lower case, and leaves the answer readable. It does not
// decode: a list of a thousand missing layers is longer than what is kept of an error.
func says(resp *http.Response, words ...string) bool {
	kept := keepAnswer(resp)
	*resp = *kept.response()
	text := bytes.ToLower(kept.body)
	return slices.ContainsFunc(words, func(w string) bool { return bytes.Contains(text, []byte(w)) })
}

// holdAttestation keeps an attestation manifest until an index says what it belongs to. One with a
// subject says so itself, and is stored at once.
func (ex *exchange) holdAttestation(doc *ocidoc.Document, contentType string) error {
	if err := ex.passthroughMayWrite(); err != nil {
		return err
	}
	digest := received(ex.ref, doc)
	err := ex.holdManifest(digest, doc, "")
	// Whether the image is converted, and so has another digest, shows when its index comes.
	if err == nil && doc.Subject != nil && ex.rule.Attestations == filters.Store && ex.rule.MediaTypes != filters.MediaTypesDocker {
		err = ex.storeReferrer(digest, doc)
	}
	var s *storageFailed
	switch {
	case errors.Is(err, errNoRoom):
		return ex.noRoom()
	case errors.As(err, &s):
		return ex.manifestNotKept(digest, doc, contentType, s)
	case err != nil:
		return err
	}
	ex.log.Debug("attestation manifest held", "digest", digest)
	ex.seen.became(observe.PushHeld)
	return ex.answerManifest(digest, doc)
}

// holdManifest puts a manifest into quarantine, unless its pusher holds too much: errNoRoom. One that is about another is
// found by that. As for a blob: whether it is held must not depend on when the client hangs up.
func (ex *exchange) holdManifest(digest string, doc *ocidoc.Document, about string) (err error) {
	m := quarantine.Manifest{MediaType: mediaTypeOf(doc), Bytes: doc.Bytes, Blobs: digestsOf(blobsOf(doc))}
	room := ex.p.heldQuota.room(ex.id.Key)
	defer room.drop()
	if !room.grow(m.Size()) {
		return errNoRoom
	}
	ctx := context.WithoutCancel(ex.ctx())
	if about != "" { // first: without its manifest the note is passed over, and whose manifest is there needs not be sent again
		err = ex.p.quarantine.PutAbout(ctx, ex.repo, about, digest)
	}
	if err == nil {
		err = ex.p.quarantine.PutManifest(ctx, ex.repo, digest, m)
	}
	if err != nil {
		return &storageFailed{cause: err}
	}
	room.hold(heldManifestOf(ex.repo, digest), ex.p.quarantine.Generation(), m.Size())
	return nil
}
