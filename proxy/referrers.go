package proxy

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/upstream"
)

// referrers lists what refers to a digest: what upstream knows, and what is stored here
// (distribution-spec, "Listing Referrers"). Where upstream has no referrers API its fallback tag
// is read, since Sluice has said to clients that they need not look there.
func (ex *exchange) referrers() error {
	digest := ex.ref
	if f := checkDigest(ex.repo, digest); f != nil {
		return f
	}
	query := ex.r.URL.Query()
	q := upstream.Request{Method: http.MethodGet, Path: "referrers/" + digest, Query: query, Header: pick(ex.r.Header, "Accept")}
	if ex.action() == filters.Forward { // upstream's word alone, a missing API included: the client keeps its tag itself
		resp, err := ex.do(q)
		if err != nil {
			return err
		}
		if l := ex.relink(resp.Header.Get("Link")); l != "" {
			ex.w.Header().Set("Link", l)
		}
		ex.passResponse(resp)
		return nil
	}
	resp, b, err := askWhole(ex.do, q, ocidoc.MaxBytes)
	if resp == nil {
		return err
	}
	var index ocispec.Index
	next := ""
	filtered, tagged := false, false
	switch {
	case resp.StatusCode == http.StatusOK:
		next = resp.Header.Get("Link")
		filtered = resp.Header.Get("OCI-Filters-Applied") != ""
		if err == nil {
			err = json.Unmarshal(b, &index)
		}
		if err != nil {
			return ex.unreadReferrers(digest, err)
		}
		if index.Manifests == nil && index.MediaType == "" {
			// 200 with something else: no API after all
			tagged = true
			if index, err = ex.readFallback(digest); err != nil {
				return err
			}
		}
	case upstream.NoReferrersAPI(resp.StatusCode):
		discard(resp)
		tagged = true
		if index, err = ex.readFallback(digest); err != nil {
			return err
		}
	default:
		return &passed{resp}
	}
	if next == "" { // the last page
		if index.Manifests, err = ex.addStored(digest, index.Manifests, tagged); err != nil {
			return err
		}
	}
	if want := query.Get("artifactType"); want != "" {
		index.Manifests = ofType(index.Manifests, want)
		filtered = true
	}
	return ex.answerReferrers(index, next, filtered)
}

func (ex *exchange) unreadReferrers(digest string, err error) error {
	return refuse(http.StatusBadGateway, codeUnavailable, "referrers of %s in repository %s could not be read from upstream: %v", digest, ex.repo, err).because(err)
}

// readFallback reads upstream's referrers tag (distribution-spec, "Referrers Tag Schema").
func (ex *exchange) readFallback(digest string) (ocispec.Index, error) {
	index, _, err := ex.readFallbackTag(digest)
	return index, err
}

// readFallbackTag gives the digest of the list that the tag holds too, "" for none. A registry may show the subject itself
// under that name (registry.gitlab.com does: oras-go issue 1396), or somebody may have put an image there: neither is a list, and
// what is no list must not be merged into one, nor deleted when one takes its place.
func (ex *exchange) readFallbackTag(digest string) (index ocispec.Index, held string, err error) {
	q := upstream.Request{Method: http.MethodGet, Path: manifestPath(filters.FallbackTag(digest)), Header: http.Header{"Accept": {ocidoc.MediaTypeOCIIndex}}}
	resp, b, err := askWhole(ex.do, q, ocidoc.MaxBytes)
	if resp == nil {
		return index, "", err
	}
	if resp.StatusCode == http.StatusNotFound {
		discard(resp)
		return index, "", nil
	}
	if resp.StatusCode != http.StatusOK {
		return index, "", &passed{resp}
	}
	if err == nil {
		err = json.Unmarshal(b, &index)
	}
	if err != nil {
		return index, "", refuse(http.StatusBadGateway, codeUnavailable, "referrers tag of %s in repository %s could not be read from upstream: %v", digest, ex.repo, err)
	}
	if held = ocidoc.DigestOf(b); held == digest || !listsReferrers(index, resp.Header.Get("Content-Type")) {
		return ocispec.Index{}, "", nil
	}
	return index, held, nil
}

// listsReferrers tells a list of referrers from an image and from an index of images, whose entries have platforms.
func listsReferrers(index ocispec.Index, contentType string) bool {
	if index.MediaType != "" {
		contentType = index.MediaType
	}
	contentType, _, _ = strings.Cut(contentType, ";")
	return strings.TrimSpace(contentType) == ocispec.MediaTypeImageIndex &&
		!slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Platform != nil })
}

// addStored adds the attestations that `store` keeps for an image, the legacy ones as derived OCI 1.1 manifests, and what
// is kept about an attestation. Reading them needs authority. tagged says that the list is that of upstream's referrers tag.
func (ex *exchange) addStored(digest string, list []ocispec.Descriptor, tagged bool) ([]ocispec.Descriptor, error) {
	records, held, err := ex.listedFor(digest)
	if err != nil {
		return nil, ex.storageTransient(err, "stored attestations of %s in repository %s could not be read from the storage of sluice, see its log", digest, ex.repo)
	}
	if len(records)+len(held) == 0 {
		return list, nil
	}
	if may, err := ex.mayRead(); err != nil {
		return nil, err
	} else if !may {
		return list, nil
	}
	stored := &boundedList{}
	if err := ex.describe(held, stored); err != nil {
		return nil, ex.storageTransient(err, "what is held about %s in repository %s could not be read from the storage of sluice, see its log", digest, ex.repo)
	}
	placed := newPlacements(ex, digest, list, tagged)
	replaced := map[string]bool{}
	for _, r := range records {
		there, err := placed.has(r)
		if err != nil {
			return nil, err
		}
		if !there {
			continue
		}
		d, ok, err := ex.referrerOf(r)
		if err != nil {
			return nil, ex.storageTransient(err, "stored attestation %s of repository %s could not be read from the storage of sluice, see its log", r.Attestation, ex.repo)
		}
		if ok {
			stored.add(d)
			replaced[r.Placed] = r.Placed != d.Digest.String()
		}
	}
	// One that the registry has in its legacy form is listed once, in the form that says what it is about.
	list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return replaced[d.Digest.String()] })
	if stored.cut > 0 {
		ex.log.Warn("attestations are listed without their annotations, since all together have too many", "subject", digest, "listed", len(stored.list), "without", stored.cut)
	}
	return mergeDescriptors(list, stored.list), nil
}

// recordsAbout finds what is stored for an image, also by the digest it had before its conversion.
func (ex *exchange) recordsAbout(digest string) ([]attest.Record, error) {
	records, err := ex.p.attest.BySubject(ex.ctx(), ex.repo, digest)
	if err != nil || ex.rule.MediaTypes != filters.MediaTypesDocker {
		return records, err
	}
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, digest)
	if err != nil {
		return nil, err
	}
	for _, a := range aliases {
		more, err := ex.p.attest.BySubject(ex.ctx(), ex.repo, a.Forwarded)
		if err != nil {
			return nil, err
		}
		records = append(records, more...)
	}
	return records, nil
}

func (ex *exchange) referrerOf(r attest.Record) (ocispec.Descriptor, bool, error) {
	digest := r.Attestation
	if r.Derived != "" {
		digest = r.Derived
	}
	doc, err := ex.findStored(digest)
	if doc == nil || doc.Subject == nil {
		return ocispec.Descriptor{}, false, err
	}
	return referrerDescriptor(doc, digest, doc.ContentType), true, nil
}

// referrerDescriptor describes a referrer as the spec asks: with the artifact type, else the
// config's media type, and the manifest's annotations.
func referrerDescriptor(doc *ocidoc.Document, digest, mediaType string) ocispec.Descriptor {
	artifactType := doc.ArtifactType
	if artifactType == "" && doc.Config != nil {
		artifactType = doc.Config.MediaType
	}
	return ocispec.Descriptor{
		MediaType: mediaType, Digest: asDigest(digest), Size: int64(len(doc.Bytes)),
		ArtifactType: artifactType, Annotations: doc.Annotations,
	}
}

func mergeDescriptors(a, b []ocispec.Descriptor) []ocispec.Descriptor {
	seen := map[string]bool{}
	merged := make([]ocispec.Descriptor, 0, len(a)+len(b))
	for _, d := range append(append([]ocispec.Descriptor{}, a...), b...) {
		if !seen[d.Digest.String()] {
			seen[d.Digest.String()] = true
			merged = append(merged, d)
		}
	}
	return merged
}

func ofType(all []ocispec.Descriptor, artifactType string) []ocispec.Descriptor {
	kept := make([]ocispec.Descriptor, 0, len(all))
	for _, d := range all {
		if d.ArtifactType == artifactType {
			kept = append(kept, d)
		}
	}
	return kept
}

func (ex *exchange) answerReferrers(index ocispec.Index, next string, filtered bool) error {
	body, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: append([]ocispec.Descriptor{}, index.Manifests...), Annotations: index.Annotations,
	})
	if err != nil {
		return err
	}
	h := ex.w.Header()
	h.Set("Content-Type", ocispec.MediaTypeImageIndex)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if filtered {
		h.Set("OCI-Filters-Applied", "artifactType")
	}
	if next != "" {
		if l := ex.relink(next); l != "" {
			h.Set("Link", l)
		}
	}
	ex.answers = true
	ex.w.WriteHeader(http.StatusOK)
	_, err = ex.w.Write(body)
	return err
}
