package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"sluice/filters/ocidoc"
)

const (
	attestationType = "application/vnd.docker.attestation.manifest.v1+json"
	predicateKey    = "in-toto.io/predicate-type"
	// Bounds on what a registry can make us do: index nesting, images of one tag, pages and
	// attestations of one image. Real ones have 2, a dozen, 1 and 1.
	maxNesting   = 4
	maxImages    = 1000
	maxPages     = 100
	maxReferrers = 1000
)

// statement is one in-toto statement about one image. It is the JSON output of list.
type statement struct {
	Platform      string `json:"platform"` // of the image, "" if unknown
	Image         string `json:"image"`    // digest
	Attestation   string `json:"attestation"`
	PredicateType string `json:"predicateType"`
	Statement     string `json:"statement"` // digest
	MediaType     string `json:"mediaType"`
	Size          int64  `json:"size"`
}

func (s statement) descriptor() ocidoc.Descriptor {
	return ocidoc.Descriptor{MediaType: s.MediaType, Digest: s.Statement, Size: s.Size}
}

// image is one image manifest of a tag.
type image struct {
	digest, platform string
}

// statements finds what is attested about a tag's or digest's images, in the order of the
// index, and the digest of the document that the reference stands for.
func (r *repository) statements(ctx context.Context, reference string) (found []statement, digest string, err error) {
	doc, err := r.manifest(ctx, reference)
	if err != nil {
		return nil, "", err
	}
	images, err := r.images(ctx, doc, maxNesting)
	if err != nil {
		return nil, "", err
	}
	seen := map[string]bool{}
	for _, img := range images {
		if seen[img.digest] {
			continue
		}
		seen[img.digest] = true
		about, err := r.about(ctx, img)
		if err != nil {
			return nil, "", err
		}
		found = append(found, about...)
	}
	return found, doc.Digest(), nil
}

// images lists the image manifests below a document: itself, if it is not an index.
func (r *repository) images(ctx context.Context, doc *ocidoc.Document, depth int) ([]image, error) {
	if doc.Kind != ocidoc.KindIndex {
		return []image{{doc.Digest(), r.configPlatform(ctx, doc)}}, nil
	}
	if depth == 0 {
		return nil, fmt.Errorf("index %s of %s: nested more than %d deep", doc.Digest(), r.name, maxNesting)
	}
	platforms := platformsOf(doc)
	var images []image
	for i, e := range doc.Manifests {
		switch e.MediaType {
		case ocidoc.MediaTypeOCIIndex, ocidoc.MediaTypeDockerList:
			inner, err := r.manifest(ctx, e.Digest)
			if err != nil {
				return nil, err
			}
			below, err := r.images(ctx, inner, depth-1)
			if err != nil {
				return nil, err
			}
			images = append(images, below...)
		case ocidoc.MediaTypeOCIManifest, ocidoc.MediaTypeDockerManifest:
			// An attestation manifest is not an image, and nothing is attested about it.
			if platforms[i] != "unknown/unknown" {
				images = append(images, image{e.Digest, platforms[i]})
			}
		}
		if len(images) > maxImages {
			return nil, fmt.Errorf("index %s of %s: more than %d images", doc.Digest(), r.name, maxImages)
		}
	}
	return images, nil
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

func (p *platform) String() string {
	if p == nil || p.OS == "" {
		return ""
	}
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

// platformsOf reads the platforms of an index's entries, with the variant that tells
// linux/arm/v6 from linux/arm/v7 and that ocidoc leaves out. The document was parsed
// strictly before.
func platformsOf(doc *ocidoc.Document) []string {
	var index struct {
		Manifests []struct {
			Platform *platform `json:"platform"`
		} `json:"manifests"`
	}
	platforms := make([]string, len(doc.Manifests))
	if json.Unmarshal(doc.Bytes, &index) == nil && len(index.Manifests) == len(platforms) {
		for i, m := range index.Manifests {
			platforms[i] = m.Platform.String()
		}
	}
	return platforms
}

// configPlatform is where an image without an index says its platform. Not knowing it is
// no reason to fail.
func (r *repository) configPlatform(ctx context.Context, doc *ocidoc.Document) string {
	if doc.Config == nil || doc.Config.Size > ocidoc.MaxBytes {
		return ""
	}
	var b strings.Builder
	if r.blob(ctx, *doc.Config, &b) != nil {
		return ""
	}
	var p platform
	if json.Unmarshal([]byte(b.String()), &p) != nil {
		return ""
	}
	return p.String()
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
		if doc.Subject == nil || doc.Subject.Digest != img.digest {
			return nil, fmt.Errorf("attestation %s of %s: listed for %s, but is not about it", digest, r.name, img.digest)
		}
		for _, l := range doc.Layers {
			found = append(found, statement{
				Platform: img.platform, Image: img.digest, Attestation: digest,
				PredicateType: l.Annotations[predicateKey], Statement: l.Digest, MediaType: l.MediaType, Size: l.Size,
			})
		}
	}
	return found, nil
}

// attestations lists the digests of the attestation manifests about an image, by the
// referrers API or, where a registry has none, by its fallback tag (distribution-spec,
// "Listing Referrers").
func (r *repository) attestations(ctx context.Context, digest string) ([]string, error) {
	target := "referrers/" + digest + "?" + url.Values{"artifactType": {attestationType}}.Encode()
	var found []string
	seen := map[string]bool{}
	for page := 0; target != ""; page++ {
		if page == maxPages || len(found) > maxReferrers {
			return nil, fmt.Errorf("more than %d pages or %d attestations", maxPages, maxReferrers)
		}
		index, next, err := r.referrersPage(ctx, target)
		if page == 0 && notFound(err) {
			index, err = r.manifest(ctx, strings.Replace(digest, ":", "-", 1))
			if notFound(err) {
				return nil, nil
			}
		}
		if err != nil {
			return nil, err
		}
		for _, d := range index.Manifests {
			// Filtering is optional for a registry.
			if d.ArtifactType == attestationType && !seen[d.Digest] {
				seen[d.Digest] = true
				found = append(found, d.Digest)
			}
		}
		target = next
	}
	return found, nil
}

func (r *repository) referrersPage(ctx context.Context, target string) (index *ocidoc.Document, next string, err error) {
	resp, err := r.do(ctx, http.MethodGet, target, ocidoc.MediaTypeOCIIndex)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := transport.CheckError(resp, http.StatusOK); err != nil {
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
