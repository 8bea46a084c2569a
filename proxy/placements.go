package proxy

import (
	"encoding/json"
	"errors"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/upstream"
)

// maxReferrerPages bounds what is read of a destination's list. A page of ECR has 50 to 100 entries.
const maxReferrerPages = 20

// placements knows which attestations their destinations still list. What a registry has dropped, by its lifecycle policy
// or by hand, is not listed here either, whatever the records say.
type placements struct {
	ex     *exchange
	listed map[list]map[string]bool // digests
}

// A list is what a repository says about an image: its referrers API if it has one, or the referrers tag. An image that
// was converted has another digest there than the one that a reader may have asked about, so the record says which.
type list struct {
	repo, image string
	tag         bool
}

// newPlacements takes what the image's own repository lists, so that it is not asked again. tagged says that this is
// the referrers tag's list and not that of the API, in which nothing without a subject can be.
func newPlacements(ex *exchange, image string, own []ocispec.Descriptor, tagged bool) *placements {
	p := &placements{ex: ex, listed: map[list]map[string]bool{}}
	p.add(list{ex.repo, image, false}, own)
	if tagged {
		p.add(list{ex.repo, image, true}, own)
	}
	return p
}

func (p *placements) add(key list, entries []ocispec.Descriptor) {
	if p.listed[key] == nil {
		p.listed[key] = map[string]bool{}
	}
	for _, d := range entries {
		p.listed[key][d.Digest.String()] = true
	}
}

// has is true for what is kept in the storage, and for what its destination lists.
func (p *placements) has(r attest.Record) (bool, error) {
	if r.Repository == "" {
		return true, nil
	}
	at, err := p.ex.at(r.Repository)
	if err != nil {
		return false, err
	}
	key := list{at.repo, r.Subject, false}
	if p.listed[key] == nil {
		entries, err := at.listReferrers(r.Subject)
		if refusedReader(err, at) {
			entries, err = nil, nil
		}
		if err != nil {
			return false, err
		}
		p.add(key, entries)
	}
	if p.listed[key][r.Placed] {
		return true, nil
	}
	if r.Placed == r.Derived || r.Derived == "" && r.Placed == r.Attestation {
		return false, nil // an artifact, of which the list above says all
	}
	key.tag = true
	if p.listed[key] == nil {
		index, err := at.readFallback(r.Subject)
		if refusedReader(err, at) {
			err = nil
		}
		if err != nil {
			return false, err
		}
		p.add(key, index.Manifests)
	}
	return p.listed[key][r.Placed], nil
}

// listReferrers is everything that a repository lists for a digest, by its referrers API, else by its referrers tag.
func (ex *exchange) listReferrers(digest string) ([]ocispec.Descriptor, error) {
	var list []ocispec.Descriptor
	q := upstream.Request{Method: http.MethodGet, Path: "referrers/" + digest}
	for range maxReferrerPages {
		resp, b, err := askWhole(ex.do, q, ocidoc.MaxBytes)
		if resp == nil {
			return nil, err
		}
		if upstream.NoReferrersAPI(resp.StatusCode) && list == nil {
			discard(resp)
			break
		}
		if resp.StatusCode != http.StatusOK {
			return nil, &passed{resp}
		}
		link := linkForm.FindStringSubmatch(resp.Header.Get("Link"))
		if err != nil && !errors.Is(err, errLongDocument) {
			return nil, ex.unreadReferrers(digest, err)
		}
		var index ocispec.Index
		if json.Unmarshal(b, &index) != nil || index.Manifests == nil && index.MediaType == "" {
			break // 200 with something else: no API after all
		}
		list = append(list, index.Manifests...)
		if link == nil {
			return list, nil
		}
		q = upstream.Request{Method: http.MethodGet, Location: link[1]}
	}
	if list != nil {
		return list, nil
	}
	index, err := ex.readFallback(digest)
	return index.Manifests, err
}
