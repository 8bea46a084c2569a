package proxy

import (
	"context"
	"errors"
	"net/http"
	"sync"

	godigest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// maxNesting bounds indexes in indexes. Real ones have two levels (crane push --index).
const maxNesting = 8

// maxFetched bounds how many children of one index are read from upstream, since one request must
// not cost upstream a hundred thousand. Real indexes list a few dozen.
const maxFetched = 1000

// judge gathers what the filters need to know about an index and asks them.
func (ex *exchange) judge(doc *ocidoc.Document, policy filters.Policy, depth int) (*rewriting, error) {
	if depth > maxNesting {
		return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "index for repository %s is nested more than %d deep", ex.repo, maxNesting)
	}
	rw := &rewriting{doc: doc, policy: policy, local: map[string]bool{}}
	if err := ex.gather(rw); err != nil {
		return nil, err
	}
	inner := map[string]filters.Inner{}
	for _, e := range doc.Manifests {
		child := rw.children[e.Digest]
		if child == nil || child.Kind != ocidoc.KindIndex {
			continue
		}
		if _, again := inner[e.Digest]; again {
			continue
		}
		in, err := ex.judge(child, policy, depth+1)
		if err != nil {
			return nil, err
		}
		if in.plan.Changed {
			rw.nested = append(rw.nested, in)
			inner[e.Digest] = in.willBe()
		}
	}
	plan, err := filters.Rewrite(doc, rw.children, inner, policy)
	if errors.Is(err, filters.ErrMissingChild) {
		return nil, refuse(http.StatusBadRequest, codeManifestBlobUnknown, "index %s for repository %s: %v", doc.Digest(), ex.repo, err).because(err)
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, codeManifestInvalid, "index %s for repository %s: %v", doc.Digest(), ex.repo, err).because(err)
	}
	rw.plan = plan
	return rw, nil
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
func (ex *exchange) gather(rw *rewriting) error {
	rw.children = map[string]*ocidoc.Document{}
	if !indexOfManifests(rw.doc) {
		return nil
	}
	var mu sync.Mutex
	fetches := 0
	mayFetch := func() error {
		mu.Lock()
		defer mu.Unlock()
		if fetches++; fetches > maxFetched {
			return refuse(http.StatusBadRequest, codeManifestInvalid, "index for repository %s lists more than %d manifests that were not pushed here and do not say what they are", ex.repo, maxFetched)
		}
		return nil
	}
	g, ctx := errgroup.WithContext(ex.ctx())
	g.SetLimit(lookups)
	asked := map[string]bool{}
	for _, e := range rw.doc.Manifests {
		if asked[e.Digest] {
			continue
		}
		asked[e.Digest] = true
		needed := filters.NeedsChild(rw.doc, e)
		g.Go(func() error {
			child, local, err := ex.child(ctx, e, needed, mayFetch)
			if err != nil || child == nil {
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
func (ex *exchange) child(ctx context.Context, e ocidoc.Descriptor, needed bool, mayFetch func() error) (doc *ocidoc.Document, local bool, err error) {
	if err := ctx.Err(); err != nil {
		return nil, false, err // a sibling failed
	}
	doc, storageErr := ex.findManifest(e.Digest)
	if storageErr == nil && doc == nil && needed {
		doc, storageErr = ex.findIndex(e.Digest)
	}
	if doc != nil {
		return doc, true, nil
	}
	if storageErr != nil {
		ex.p.storageTrouble(ex.log, "look up manifest "+e.Digest, storageErr)
	}
	if !needed {
		return nil, false, nil
	}
	if err := mayFetch(); err != nil {
		return nil, false, err
	}
	doc, err = ex.fetchManifest(e.Digest)
	if _, missing := asMissingChild(err); missing && ex.standIns {
		if doc := standIn(e); doc != nil {
			return doc, true, nil
		}
	} else if missing && storageErr != nil {
		return nil, false, &storageFailed{storageErr} // it may be one of those that storage does not give back now
	} else if missing && !saysAttestation(e) {
		// Nobody has it and nothing suggests an attestation: whether an index may list it is upstream's to say.
		return &ocidoc.Document{Kind: ocidoc.KindOther, ContentType: e.MediaType}, false, nil
	}
	return doc, false, err
}

// saysAttestation is true for an entry that claims to be an attestation, by what BuildKit writes or
// by what is left of it after a re-assembly.
func saysAttestation(e ocidoc.Descriptor) bool {
	return e.Annotations[filters.AnnotationReferenceType] != "" || e.ArtifactType == filters.ArtifactTypeAttestation ||
		e.Platform != nil && e.Platform.OS == "unknown" && e.Platform.Architecture == "unknown"
}

// findIndex finds the original of an inner index that was rewritten when it was pushed.
func (ex *exchange) findIndex(digest string) (*ocidoc.Document, error) {
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

func matches(digest string, b []byte) bool {
	d := godigest.Digest(digest)
	return d.Validate() == nil && d.Algorithm().FromBytes(b) == d
}
