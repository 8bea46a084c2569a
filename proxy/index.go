package proxy

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/internal/objects"
	"sluice/proxy/observe"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

// putJudged is where everything about a push is known: what the entries of its index are, what of
// them goes upstream, and what waits in quarantine for nothing. An image that is converted comes here
// too, by itself: it is sent before its index.
func (ex *exchange) putJudged(ref string, doc *ocidoc.Document, contentType string) error {
	start := ex.p.now()
	policy := ex.policy()
	fallback := filters.IsFallbackTag(ref)
	if fallback {
		policy.Unwrap = filters.UnwrapNever // readers of the referrers tag schema expect an index
	}
	rw, err := ex.judge(doc, policy)
	if err != nil && ex.p.cfg.DryRun {
		ex.log.Warn("dry run: would be refused", "reference", ref, "reason", err)
		return ex.forward(ref, doc, contentType)
	}
	if err != nil {
		return ex.cannotJudge(ref, doc, contentType, policy, err)
	}
	if !rw.plan.Changed {
		return ex.forward(ref, doc, contentType)
	}
	if ex.p.cfg.DryRun {
		message := "dry run: would be cut"
		if len(rw.plan.Taken) == 0 {
			message = "dry run: would be rewritten"
		}
		if rw.plan.Empty && !fallback {
			message = "dry run: would be refused, since nothing is left"
		}
		ex.logPush(message, ref, rw, 0)
		return ex.forward(ref, doc, contentType)
	}
	if rw.plan.Empty && !fallback {
		return refuse(http.StatusBadRequest, codeManifestInvalid,
			"index %s for repository %s has nothing but attestations: push it with an image, or under a rule with attestations: forward", doc.Digest(), ex.repo)
	}
	if err := ex.refuseTags(doc); err != nil {
		return err
	}
	if err := ex.apply(ref, rw); err != nil {
		var s *storageFailed
		if errors.As(err, &s) {
			return ex.cannotStore(ref, doc, contentType, policy, s)
		}
		return err
	}
	ex.claimed(rw)
	ex.logPush("pushed", ref, rw, ex.p.now().Sub(start))
	ex.seen.became(observe.PushRewritten)
	if rw.forwarded != "" {
		ex.pushedEvent(ref, rw.forwarded, rw.mediaType, rw.size, doc)
		ex.tellForwarded(received(ref, doc), rw.forwarded)
	}
	return ex.answerManifest(ref, doc)
}

// A rewriting is a document, what becomes of it, and the same for what it lists: indexes, and images
// that are converted.
type rewriting struct {
	doc       *ocidoc.Document
	policy    filters.Policy
	plan      *filters.Plan
	children  map[string]*ocidoc.Document
	local     map[string]bool          // children that only Sluice has
	nested    []*rewriting             // what is listed and changes
	became    map[string]filters.Inner // the same by its digest in the entries
	applied   bool
	forwarded string // set once it is upstream
	mediaType string
	size      int64
}

// apply does what a rewriting says, in the order that leaves nothing dangling when it stops
// anywhere (I1, I6, I7): what is listed and changes, what is kept here, what kept entries need, the document,
// and last the alias.
func (ex *exchange) apply(ref string, rw *rewriting) error {
	if rw.applied {
		return nil // listed twice
	}
	rw.applied = true
	if rw.doc.Kind == ocidoc.KindManifest && ref != ex.ref && ex.convertedBefore(rw) {
		return nil
	}
	for _, inner := range rw.nested {
		if err := ex.apply(inner.doc.Digest(), inner); err != nil {
			return err
		}
	}
	original := received(ref, rw.doc)
	if err := ex.keepOriginal(original, rw); err != nil {
		return err
	}
	stored, err := ex.storeTaken(rw)
	if err != nil {
		return err
	}
	if !rw.plan.Empty {
		if err := ex.releaseKept(rw); err != nil {
			return err
		}
		if err := ex.putRewritten(ref, rw); err != nil {
			return err
		}
		if filters.IsFallbackTag(ref) && ex.p.cfg.StoreIn(ex.repo) == ex.repo {
			// The client's list has replaced the one that attestations were added to.
			if stored, err = ex.storeTaken(rw); err != nil {
				return err
			}
		}
	}
	if err := ex.recordStored(ref, original, stored); err != nil {
		return &storageFailed{cause: err}
	}
	if rw.plan.Empty {
		return nil
	}
	return ex.recordAlias(ref, original, rw)
}

// keepOriginal keeps the bytes received: for retention under strip, for good under store. A build
// cache is replaced by the next build, and nobody looks for an older one by its digest.
func (ex *exchange) keepOriginal(digest string, rw *rewriting) error {
	mediaType := mediaTypeOf(rw.doc)
	var err error
	if rw.policy.Attestations == filters.Store && !filters.IsCacheIndex(rw.doc) {
		err = ex.p.attest.PutDocument(ex.ctx(), ex.repo, digest, mediaType, rw.doc.Bytes)
	} else {
		err = ex.p.quarantine.PutOriginal(ex.ctx(), ex.repo, digest, quarantine.Manifest{MediaType: mediaType, Bytes: rw.doc.Bytes})
	}
	if err != nil {
		return &storageFailed{cause: err}
	}
	return nil
}

func mediaTypeOf(doc *ocidoc.Document) string {
	if doc.ContentType != "" {
		return doc.ContentType
	}
	return doc.BodyMediaType
}

// releaseKept sends kept entries that only Sluice has.
func (ex *exchange) releaseKept(rw *rewriting) error {
	for _, e := range rw.plan.Kept {
		if child := rw.children[e.Digest]; child != nil && rw.local[e.Digest] && child.Kind == ocidoc.KindManifest {
			if err := ex.releaseManifest(e.Digest, child); err != nil {
				return err
			}
		}
	}
	return nil
}

// putRewritten puts what is left of the index, or the one image that is left in its place.
func (ex *exchange) putRewritten(ref string, rw *rewriting) error {
	doc, err := ex.rewritten(rw)
	if err != nil {
		return err
	}
	rw.forwarded, rw.mediaType, rw.size = doc.Digest(), mediaTypeOf(doc), int64(len(doc.Bytes))
	if rw.plan.Unwrapped != nil && digestRef(ref) {
		rw.forwarded = rw.plan.Unwrapped.Digest
		return nil // upstream has the image under its own digest already
	}
	to := ref
	if digestRef(ref) {
		to = rw.forwarded
	}
	return ex.putUpstream(to, doc, rw.mediaType)
}

// rewritten is the document that goes upstream in the index's place.
func (ex *exchange) rewritten(rw *rewriting) (*ocidoc.Document, error) {
	u := rw.plan.Unwrapped
	if u == nil {
		doc, err := ocidoc.Parse(rw.plan.Bytes, rw.plan.MediaType)
		if err != nil {
			return nil, fmt.Errorf("rewrite of %s is not a valid document: %w", rw.doc.Digest(), err)
		}
		return doc, nil
	}
	for _, inner := range rw.nested {
		if !inner.plan.Empty && inner.willBe().Digest == u.Digest {
			return ex.rewritten(inner)
		}
	}
	if child := rw.children[u.Digest]; child != nil && child.Kind != ocidoc.KindOther {
		return child, nil
	}
	child, err := ex.fetchManifest(u.Digest, ocidoc.MaxBytes)
	if _, missing := asMissingChild(err); !missing {
		return child, err
	}
	// It may be one that was converted when it was pushed, by a rule that was taken back since. Of an index upstream would
	// say that it lacks it, see releaseAll.
	held, findErr := ex.findReleasable(u.Digest)
	switch {
	case findErr != nil:
		return nil, ex.storageTransient(findErr, "manifest %s, which an index for repository %s lists, could not be read: the storage of sluice failed, see its log", u.Digest, ex.repo)
	case held == nil:
		return nil, ex.refuseMissing(err)
	}
	return held, ex.releaseManifest(u.Digest, held)
}

// recordAlias makes the original readable by its digest. It is written last: 201 means that it can
// be read (I6).
func (ex *exchange) recordAlias(ref, original string, rw *rewriting) error {
	q := ex.p.quarantine
	if !digestRef(ref) {
		if err := q.PutTag(ex.ctx(), ex.repo, ref, rw.forwarded, original); err != nil {
			return &storageFailed{cause: err}
		}
	}
	err := q.PutAlias(ex.ctx(), ex.repo, quarantine.Alias{
		Original: original, OriginalMediaType: mediaTypeOf(rw.doc),
		Forwarded: rw.forwarded, ForwardedMediaType: rw.mediaType, ForwardedSize: rw.size,
		Action: rw.policy.Attestations, Unwrap: rw.policy.Unwrap, MediaTypes: converted(rw.policy), Rule: ex.rule.Name, Taken: rw.missingUpstream(), At: ex.p.now().UTC(),
	})
	if err != nil {
		return &storageFailed{cause: err}
	}
	return nil
}

// converted is what images became under a policy, "" if they stayed what they were.
func converted(p filters.Policy) filters.MediaTypes {
	if p.MediaTypes == filters.MediaTypesKeep {
		return ""
	}
	return p.MediaTypes
}

// convertedBefore tells that an image went upstream converted when it was pushed itself, and that the
// alias says so: nothing is left to do for it when an index lists it. One that another action made says
// that the original is kept for another time.
func (ex *exchange) convertedBefore(rw *rewriting) bool {
	will := rw.willBe()
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, rw.doc.Digest())
	if err != nil || !slices.ContainsFunc(aliases, func(a quarantine.Alias) bool {
		return a.Forwarded == will.Digest && a.Action == rw.policy.Attestations
	}) {
		return false
	}
	if b, err := ex.findOriginal(rw.doc.Digest()); err != nil || b == nil {
		return false
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodHead, Path: manifestPath(will.Digest), Header: http.Header{"Accept": manifestTypes}})
	if err != nil {
		return false // the PUT says why
	}
	discard(resp)
	return resp.StatusCode == http.StatusOK
}

// missingUpstream is what the original lists and a reader finds only here.
func (rw *rewriting) missingUpstream() []string {
	var digests []string
	for _, t := range rw.plan.Taken {
		digests = append(digests, t.Entry.Digest)
	}
	for _, inner := range rw.nested {
		digests = append(digests, inner.doc.Digest())
	}
	return digests
}

// refuseMissing is the answer when an index lists what is nowhere.
func (ex *exchange) refuseMissing(err error) error {
	if d, ok := asMissingChild(err); ok {
		return refuse(http.StatusBadRequest, codeManifestBlobUnknown,
			"index for repository %s lists %s, which was neither pushed here nor is upstream: push it first; nothing was changed", ex.repo, d).because(err)
	}
	return err
}

// cannotJudge is for children that cannot be read.
func (ex *exchange) cannotJudge(ref string, doc *ocidoc.Document, contentType string, policy filters.Policy, err error) error {
	var s *storageFailed
	if _, missing := asMissingChild(err); missing && ex.p.cfg.OnStorageError == config.StorageErrorStrip {
		// A full disk takes no writes and says "not found" to reads: what is missing may be what was
		// acknowledged without being kept.
		s = &storageFailed{cause: err}
	} else if !errors.As(err, &s) {
		return ex.refuseMissing(err)
	}
	return ex.cannotStore(ref, doc, contentType, policy, s)
}

// refuseTags refuses what a rewrite cannot do yet: tags in the query of a push by digest would be put
// on the document as it was received.
func (ex *exchange) refuseTags(doc *ocidoc.Document) error {
	if len(ex.tags["tag"]) == 0 {
		return nil
	}
	return refuse(http.StatusBadRequest, codeUnsupported,
		"%s %s for repository %s is not forwarded as it is, and is pushed by digest with tags in the query: push it by tag", doc.Kind, doc.Digest(), ex.repo)
}

// fetchManifest reads a document of at most so many bytes from upstream by digest, and makes sure that it is the one.
func (ex *exchange) fetchManifest(digest string, limit int64) (*ocidoc.Document, error) {
	q := upstream.Request{Method: http.MethodGet, Path: manifestPath(digest), Header: http.Header{"Accept": manifestTypes}}
	resp, b, err := askWhole(ex.askManifest, q, limit)
	if resp == nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotFound {
		discard(resp)
		return nil, &missingChild{digest}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &passed{resp}
	}
	if err != nil {
		return nil, refuse(http.StatusBadGateway, codeUnavailable, "manifest %s of repository %s could not be read from upstream: %v", digest, ex.repo, err).because(err)
	}
	doc, err := ocidoc.Parse(b, resp.Header.Get("Content-Type"))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "manifest %s of repository %s, which the index lists, cannot be understood: %v", digest, ex.repo, err)
	}
	if objects.CheckBytes(b, digest) != nil {
		return nil, refuse(http.StatusBadGateway, codeUnavailable, "upstream answered other bytes under manifest digest %s of repository %s", digest, ex.repo)
	}
	return doc, nil
}

// logPush writes the one line of a finished push.
func (ex *exchange) logPush(message, ref string, rw *rewriting, took time.Duration) {
	taken := make([]string, 0, len(rw.plan.Taken))
	var predicates []string
	var bytes int64
	for _, t := range rw.plan.Taken {
		taken = append(taken, t.Entry.Digest)
		bytes += t.Entry.Size
		for _, l := range t.Manifest.Layers {
			bytes += l.Size
		}
		for _, p := range predicateTypes(t.Manifest) {
			if p = clip(p); !slices.Contains(predicates, p) {
				predicates = append(predicates, p)
			}
		}
		if ex.p.cfg.DryRun {
			continue // nothing is taken
		}
		ex.p.observe.Taken(string(t.Verdict.Action), predicateTypes(t.Manifest))
	}
	attrs := []any{
		"reference", ref, "original", rw.doc.Digest(), "size", len(rw.doc.Bytes), "forwarded", rw.forwarded, "forwarded_size", rw.size,
		"action", rw.policy.Attestations, "rule", ex.rule.Name,
		"taken", taken, "taken_bytes", bytes, "predicate_types", predicates, "identity", ex.id.Name, "took", took,
	}
	level := slog.LevelInfo
	if rw.doc.Kind == ocidoc.KindManifest && digestRef(ref) {
		level = slog.LevelDebug // one of several, the line of its index follows
	}
	ex.log.Log(ex.ctx(), level, message, attrs...)
}
