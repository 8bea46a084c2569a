package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"

	godigest "github.com/opencontainers/go-digest"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/internal/contain"
)

// maxNesting bounds indexes in indexes. Real ones have two levels (crane push --index).
const maxNesting = 8

const (
	// maxFetched bounds how many children of one push are read from upstream, since one request must
	// not cost upstream a hundred thousand. Real indexes list a few dozen.
	maxFetched = 1000
	// maxChildren bounds the bytes of children that are held in memory for one push. An attestation
	// manifest has about a thousand.
	maxChildren = 32 << 20

	// All pushes together: one whose children are small and few waits for nobody, of the others heavyPushes are judged at the
	// same time, and childReads bounds what is read of the storage before its size is known.
	fewChildren = 1 << 20
	heavyPushes = 4
	childReads  = heavyPushes*lookups + 8
)

// A judging is the work on one pushed index and everything in it.
type judging struct {
	ex     *exchange
	policy filters.Policy
	done   map[string]*rewriting // by digest: an index that is listed twice is judged once

	mu      sync.Mutex
	fetches int
	bytes   int64

	claiming sync.Mutex // ex.heavy
}

// judge gathers what the filters need to know about a document and asks them.
func (ex *exchange) judge(doc *ocidoc.Document, policy filters.Policy) (*rewriting, error) {
	j := &judging{ex: ex, policy: policy, done: map[string]*rewriting{}}
	return j.document(doc, 0)
}

func (j *judging) document(doc *ocidoc.Document, depth int) (*rewriting, error) {
	ex := j.ex
	if depth > maxNesting {
		return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "index for repository %s is nested more than %d deep", ex.repo, maxNesting)
	}
	rw := &rewriting{doc: doc, policy: j.policy, local: map[string]bool{}}
	if err := j.gather(rw); err != nil {
		return nil, err
	}
	inner := map[string]filters.Inner{}
	for _, e := range doc.Manifests {
		child := rw.children[e.Digest]
		if child == nil || child.Kind != ocidoc.KindIndex && !filters.Converts(child, j.policy) {
			continue
		}
		if _, again := inner[e.Digest]; again {
			continue
		}
		in := j.done[e.Digest]
		if in == nil {
			var err error
			if in, err = j.document(child, depth+1); err != nil {
				return nil, err
			}
			j.done[e.Digest] = in
		}
		if in.plan.Changed {
			rw.nested = append(rw.nested, in)
			inner[e.Digest] = in.willBe()
		}
	}
	plan, err := filters.Rewrite(doc, rw.children, inner, j.policy)
	if errors.Is(err, filters.ErrMissingChild) {
		return nil, refuse(http.StatusBadRequest, codeManifestBlobUnknown, "%s %s for repository %s: %v", doc.Kind, doc.Digest(), ex.repo, err).because(err)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "%s %s for repository %s: %v", doc.Kind, doc.Digest(), ex.repo, err).because(err)
	}
	rw.plan, rw.became = plan, inner
	return rw, nil
}

// mayFetch and mayHold are the bounds of one push.
func (j *judging) mayFetch() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fetches++; j.fetches > maxFetched {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "index for repository %s lists more than %d manifests that were not pushed here and do not say what they are", j.ex.repo, maxFetched)
	}
	return nil
}

func (j *judging) mayHold(ctx context.Context, e ocidoc.Descriptor, doc *ocidoc.Document) error {
	if size := int64(len(doc.Bytes)); size > atMost(e) {
		return refuse(http.StatusBadRequest, codeManifestInvalid, "manifest %s, which the index for repository %s lists with %d bytes, has %d", e.Digest, j.ex.repo, e.Size, size)
	}
	j.mu.Lock()
	j.bytes += int64(len(doc.Bytes))
	bytes := j.bytes
	j.mu.Unlock()
	switch {
	case bytes > maxChildren:
		return refuse(http.StatusBadRequest, codeManifestInvalid, "manifests that the index for repository %s lists have more than %d bytes together", j.ex.repo, maxChildren)
	case bytes > fewChildren:
		return j.claim(ctx)
	}
	return nil
}

// atMost is what a child may have, so that it can be known before it is read. Small ones need not be as long as they are said
// to be.
func atMost(e ocidoc.Descriptor) int64 { return min(max(e.Size, believed), ocidoc.MaxBytes) }

// claim waits until this push may be one of the heavy ones, once. It stays one until its end (leaveHeavy), and since no push
// asks for a second place, none waits for itself.
func (j *judging) claim(within context.Context) error {
	j.claiming.Lock()
	defer j.claiming.Unlock()
	if j.ex.heavy {
		return nil
	}
	ctx, cancel := context.WithTimeout(within, roomPatience)
	defer cancel()
	if err := j.ex.p.heavyPushes.Acquire(ctx, 1); err != nil {
		if within.Err() != nil {
			return within.Err() // the client has gone, or a sibling has waited already
		}
		return transient(err, "the index for %s waits: %d that list more than %d bytes of manifests are being looked at already, and sluice keeps no more in memory; try again", j.ex.about(), heavyPushes, fewChildren)
	}
	j.ex.heavy = true
	return nil
}

func (ex *exchange) leaveHeavy() {
	if ex.heavy {
		ex.heavy = false
		ex.p.heavyPushes.Release(1)
	}
}

// willBe is how an outer index refers to this one after the rewrite.
func (rw *rewriting) willBe() filters.Inner {
	if rw.plan.Empty {
		return filters.Inner{} // its entry is cut
	}
	if u := rw.plan.Unwrapped; u != nil {
		return filters.Inner{MediaType: u.MediaType, Digest: u.Digest, Size: u.Size}
	}
	return filters.Inner{
		MediaType: rw.plan.MediaType, Size: int64(len(rw.plan.Bytes)),
		Digest: godigest.FromBytes(rw.plan.Bytes).String(),
	}
}

// gather reads the children: what is held, whatever an entry says of it (buildah drops
// annotations), and from upstream what an entry's looks do not settle.
func (j *judging) gather(rw *rewriting) error {
	rw.children = map[string]*ocidoc.Document{}
	if !indexOfManifests(rw.doc) {
		return nil
	}
	var mu sync.Mutex
	g, ctx := contain.WithContext(j.ex.ctx())
	g.SetLimit(lookups)
	for _, e := range j.tellingEntries(rw.doc) {
		needed := filters.NeedsChild(rw.doc, e, j.policy)
		g.Go(func() error {
			child, local, err := j.child(ctx, e, needed)
			if err != nil || child == nil {
				return err
			}
			if err := j.mayHold(ctx, e, child); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			rw.children[e.Digest] = child
			rw.local[e.Digest] = local
			return nil
		})
	}
	return g.Wait()
}

// tellingEntries has one entry for each digest. An index may list a document twice, and say less of it the first time: what
// one entry leaves open has to be read for both.
func (j *judging) tellingEntries(doc *ocidoc.Document) []ocidoc.Descriptor {
	telling := func(e ocidoc.Descriptor) int {
		switch {
		case !filters.NeedsChild(doc, e, j.policy):
			return 0
		case !saysAttestation(e):
			return 1
		}
		return 2
	}
	var entries []ocidoc.Descriptor
	at := map[string]int{}
	for _, e := range doc.Manifests {
		i, again := at[e.Digest]
		switch {
		case !again:
			at[e.Digest] = len(entries)
			entries = append(entries, e)
		case telling(e) > telling(entries[i]):
			entries[i] = e
		}
	}
	return entries
}

// indexOfManifests is false for BuildKit's cache index, whose entries are blobs.
func indexOfManifests(doc *ocidoc.Document) bool {
	for _, e := range doc.Manifests {
		if ocidoc.KindOf(e.MediaType) != ocidoc.KindOther || e.MediaType == "" {
			return true
		}
	}
	return false
}

// child finds one child. Under storage trouble an entry that looks like an image is taken for one;
// one that does not is needed, and on_storage_error decides.
func (j *judging) child(ctx context.Context, e ocidoc.Descriptor, needed bool) (doc *ocidoc.Document, local bool, err error) {
	ex := j.ex
	if err := ctx.Err(); err != nil {
		return nil, false, err // a sibling failed
	}
	if !needed && ex.p.sent.has(ex.repo, manifestPath(e.Digest)) {
		return nil, false, nil // it went upstream a moment ago, and was no attestation
	}
	if e.Size > believed {
		if err := j.claim(ctx); err != nil {
			return nil, false, err
		}
	}
	doc, storageErr := j.stored(ctx, e.Digest, needed)
	if doc != nil {
		return doc, true, nil
	}
	if storageErr != nil {
		ex.p.storageTrouble(ex.log, "look up manifest "+e.Digest, storageErr)
	}
	if !needed {
		return nil, false, nil
	}
	if err := j.mayFetch(); err != nil {
		return nil, false, err
	}
	limit := atMost(e)
	doc, err = ex.fetchManifest(e.Digest, limit)
	if errors.Is(err, errLongDocument) { // upstream has it as it is: the index is wrong
		return nil, false, refuse(http.StatusBadRequest, codeManifestInvalid, "manifest %s, which the index for repository %s lists with %d bytes, has more than %d", e.Digest, ex.repo, e.Size, limit)
	}
	_, missing := asMissingChild(err)
	if stand := standIn(e); missing && ex.standIns && stand != nil {
		return stand, true, nil
	}
	if missing && !ex.standIns && storageErr != nil {
		return nil, false, &storageFailed{cause: storageErr} // it may be one of those that storage does not give back now
	}
	if missing && !saysAttestation(e) && j.policy.MediaTypes != filters.MediaTypesDocker {
		// Nobody has it and nothing suggests an attestation: whether an index may list it is upstream's to say.
		return &ocidoc.Document{Kind: ocidoc.KindOther, ContentType: e.MediaType}, false, nil
	}
	return doc, false, err
}

// stored finds a child in the storage.
func (j *judging) stored(ctx context.Context, digest string, needed bool) (*ocidoc.Document, error) {
	reads := j.ex.p.childReads
	if err := reads.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer reads.Release(1)
	doc, err := j.ex.findManifest(digest)
	if err == nil && doc == nil && needed {
		doc, err = j.ex.findRewritten(digest)
	}
	return doc, err
}

// saysAttestation is true for an entry that claims to be an attestation, by what BuildKit writes or
// by what is left of it after a re-assembly.
func saysAttestation(e ocidoc.Descriptor) bool {
	return e.Annotations[filters.AnnotationReferenceType] != "" || e.ArtifactType == filters.ArtifactTypeAttestation ||
		e.Platform != nil && e.Platform.OS == "unknown" && e.Platform.Architecture == "unknown"
}

// findRewritten finds the original of an inner index or an image that was rewritten when it was pushed.
func (ex *exchange) findRewritten(digest string) (*ocidoc.Document, error) {
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, digest)
	if err != nil || len(aliases) == 0 {
		return nil, err
	}
	b, err := ex.findOriginal(digest)
	if err != nil || b == nil {
		return nil, err
	}
	return ocidoc.Parse(b, aliases[0].OriginalMediaType)
}

// missingChild is a child that is neither held nor upstream.
type missingChild struct{ digest string }

func (m *missingChild) Error() string { return "child " + m.digest + " is unknown" }

func asMissingChild(err error) (string, bool) {
	var m *missingChild
	if errors.As(err, &m) {
		return m.digest, true
	}
	return "", false
}
