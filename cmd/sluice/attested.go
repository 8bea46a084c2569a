package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/upstream"
)

const (
	// Bounds on what a registry can make us do: index nesting, manifests of one tag, pages and
	// attestations of one image, or signatures of one attestation. Real ones have 2, a dozen, 1 and 1.
	maxNesting   = 4
	maxManifests = 1000
	maxPages     = 100
	maxReferrers = 1000
	// maxSubjectRead bounds what is read of a statement to find out which image it is about,
	// maxSubjectLayers how many are. Sluice itself reads as much.
	maxSubjectRead   = 4 << 20
	maxSubjectLayers = 8
)

// statement is one in-toto statement about one image. It is the JSON output of list.
type statement struct {
	Platform      string `json:"platform"` // of the image, "" if unknown
	Image         string `json:"image"`    // digest, "" if unknown
	Attestation   string `json:"attestation"`
	PredicateType string `json:"predicateType"`
	Statement     string `json:"statement"` // digest
	MediaType     string `json:"mediaType"`
	Size          int64  `json:"size"`
	// Signatures are digests of artifacts that sign the attestation. Where nothing does there is no such field.
	Signatures []string `json:"signatures,omitempty"`

	signatures []signature
	inIndex    bool // the attestation is an entry of an index in the registry, which would be broken without it
}

func (s statement) descriptor() ocidoc.Descriptor {
	return ocidoc.Descriptor{MediaType: s.MediaType, Digest: s.Statement, Size: s.Size}
}

// statements finds what is attested about a tag's or digest's images, in the order of the
// index, and the digest of the document that the reference stands for. What refers to an image
// comes first. Of the attestations that the index lists itself only those statements follow that
// no referrer has: a referrer that Sluice derived has those of the entry it was made of. Of an image
// that is not there any more, by its digest, they are what still refers to it.
func (r *repository) statements(ctx context.Context, reference string) (found []statement, digest string, err error) {
	c, err := r.contents(ctx, reference)
	if notFound(err) && ocidoc.ValidDigest(reference) {
		if left, leftErr := r.about(ctx, image{digest: reference}); leftErr == nil && len(left) > 0 {
			return left, reference, nil
		}
	}
	if err != nil {
		return nil, "", err
	}
	for _, img := range c.images {
		about, err := r.about(ctx, img)
		if err != nil {
			return nil, "", err
		}
		for _, e := range c.entries {
			if e.image == img.digest {
				about = add(about, e, img)
			}
		}
		found = append(found, about...)
	}
	// Those about an image that the index does not list, or that do not say about which.
	for _, e := range c.entries {
		if !slices.ContainsFunc(c.images, func(img image) bool { return img.digest == e.image }) {
			found = add(found, e, image{digest: e.image})
		}
	}
	return found, c.digest, nil
}

// add appends the statements of an index entry that are not there yet.
func add(found []statement, e entryAttestation, img image) []statement {
next:
	for _, s := range statementsOf(e.manifest, e.manifest.Digest(), img) {
		for i, have := range found {
			if have.Image == s.Image && have.Statement == s.Statement {
				found[i].inIndex = have.inIndex || e.inRegistry && have.Attestation == s.Attestation
				continue next
			}
		}
		s.inIndex = e.inRegistry
		found = append(found, s)
	}
	return found
}

// about lists the statements about one image.
func (r *repository) about(ctx context.Context, img image) ([]statement, error) {
	digests, err := r.attestations(ctx, img.digest)
	if err != nil {
		return nil, fmt.Errorf("attestations of %s: %w", img.digest, err)
	}
	var found []statement
	for _, digest := range digests {
		doc, err := r.manifest(ctx, digest)
		if err != nil {
			return nil, err
		}
		// Without a subject it is the list, an image's referrers tag, that says what it is about: registries that
		// refuse subjects get attestations in this form.
		if doc.Subject == nil && !filters.IsAttestation(doc) || doc.Subject != nil && doc.Subject.Digest != img.digest {
			return nil, fmt.Errorf("attestation %s of %s: listed for %s, but is not about it", digest, r.name, img.digest)
		}
		for _, s := range statementsOf(doc, digest, img) {
			if !slices.ContainsFunc(found, func(have statement) bool { return have.Statement == s.Statement }) {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

func statementsOf(doc *ocidoc.Document, digest string, img image) []statement {
	found := make([]statement, len(doc.Layers))
	for i, l := range doc.Layers {
		found[i] = statement{
			Platform: img.platform, Image: img.digest, Attestation: digest,
			PredicateType: l.Annotations[filters.AnnotationPredicateType], Statement: l.Digest, MediaType: l.MediaType, Size: l.Size,
		}
	}
	return found
}

// attestations lists the digests of the attestation manifests about an image, by the
// referrers API and by its fallback tag (distribution-spec, "Listing Referrers"). The tag
// counts beside the API too: attestations without a subject, which a registry that
// refuses subjects has, are in no API's list.
func (r *repository) attestations(ctx context.Context, digest string) ([]string, error) {
	wanted := func(d ocidoc.Descriptor) bool { return d.ArtifactType == filters.ArtifactTypeAttestation } // filtering is optional for a registry
	listed, err := r.pages(ctx, "referrers/"+digest+"?"+url.Values{"artifactType": {filters.ArtifactTypeAttestation}}.Encode(), wanted)
	if err != nil && !errors.Is(err, errNoReferrersAPI) {
		return nil, err
	}
	tagged, err := r.referrersTag(ctx, digest)
	if err != nil {
		return nil, err
	}
	for _, d := range tagged {
		if wanted(d) && !slices.Contains(listed, d.Digest) {
			listed = append(listed, d.Digest)
		}
	}
	return listed, nil
}

// referrers lists the digests of everything about a digest, by the referrers API or, where there is none, by the tag.
func (r *repository) referrers(ctx context.Context, digest string) (listed []string, err error) {
	listed, err = r.pages(ctx, "referrers/"+digest, func(ocidoc.Descriptor) bool { return true })
	if !errors.Is(err, errNoReferrersAPI) {
		return listed, err
	}
	tagged, err := r.referrersTag(ctx, digest)
	for _, d := range tagged {
		listed = append(listed, d.Digest)
	}
	return listed, err
}

// pages reads a list of referrers with the pages that follow it, each digest once. That there is no API is an error of its
// first page only.
func (r *repository) pages(ctx context.Context, target string, wanted func(ocidoc.Descriptor) bool) (listed []string, err error) {
	seen := map[string]bool{}
	for page := 0; target != ""; page++ {
		if page == maxPages || len(listed) > maxReferrers {
			return nil, fmt.Errorf("more than %d pages or %d referrers", maxPages, maxReferrers)
		}
		index, next, err := r.referrersPage(ctx, target)
		if page > 0 && errors.Is(err, errNoReferrersAPI) {
			err = fmt.Errorf("page %d of its referrers is not found", page+1)
		}
		if err != nil {
			return nil, err
		}
		for _, d := range index.Manifests {
			if wanted(d) && !seen[d.Digest] {
				seen[d.Digest] = true
				listed = append(listed, d.Digest)
			}
		}
		target = next
	}
	return listed, nil
}

// referrersTag is what the fallback tag lists, nothing where there is none.
func (r *repository) referrersTag(ctx context.Context, digest string) ([]ocidoc.Descriptor, error) {
	index, err := r.manifest(ctx, filters.FallbackTag(digest))
	if notFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return index.Manifests, nil
}

// errNoReferrersAPI is about a registry that does not know the API, of which each kind says so in its own way.
var errNoReferrersAPI = errors.New("the registry has no referrers API")

func (r *repository) referrersPage(ctx context.Context, target string) (index *ocidoc.Document, next string, err error) {
	resp, err := r.do(ctx, http.MethodGet, target, ocidoc.MediaTypeOCIIndex)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if upstream.NoReferrersAPI(resp.StatusCode) {
		return nil, "", errNoReferrersAPI
	}
	if resp.Request.Response != nil && !strings.HasPrefix(resp.Header.Get("Content-Type"), ocidoc.MediaTypeOCIIndex) {
		return nil, "", errNoReferrersAPI // ghcr.io leads to a web page
	}
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return nil, "", err
	}
	b, err := readAll(resp.Body, ocidoc.MaxBytes)
	if err != nil {
		return nil, "", err
	}
	if index, err = ocidoc.Parse(b, ocidoc.MediaTypeOCIIndex); err != nil {
		return nil, "", err
	}
	next, err = nextPage(resp)
	return index, next, err
}
