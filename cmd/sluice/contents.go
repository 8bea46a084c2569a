package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// contents is what a tag or digest stands for.
type contents struct {
	digest  string
	images  []image            // each once, in the order of the index
	entries []entryAttestation // likewise
}

// image is one image manifest.
type image struct {
	digest, platform string
}

// entryAttestation is an attestation manifest that an index lists itself, as BuildKit pushes it:
// under `attestations: forward`, without Sluice, or in an original that Sluice shows.
type entryAttestation struct {
	image      string // digest of the image it is about, "" if unknown
	manifest   *ocidoc.Document
	inRegistry bool // the index is in the registry as it was read, and no original behind another
}

// contents reads a document and the indexes below it.
func (r *repository) contents(ctx context.Context, reference string) (*contents, error) {
	doc, forwarded, err := r.orForwarded(ctx, reference)
	if err != nil {
		return nil, err
	}
	c := &contents{digest: doc.Digest()}
	if doc.Kind != ocidoc.KindIndex {
		c.images = []image{{doc.Digest(), r.configPlatform(ctx, doc)}}
		return c, nil
	}
	w := walk{repository: r, contents: c, seen: map[string]bool{}}
	if err := w.index(ctx, doc, forwarded, maxNesting); err != nil {
		return nil, err
	}
	for i, e := range c.entries {
		if e.image == "" {
			c.entries[i].image = r.subject(ctx, e.manifest, c.images)
		}
	}
	return c, nil
}

// orForwarded is document, or what was forwarded in its place, when Sluice has forgotten an
// original: it has the same images.
func (r *repository) orForwarded(ctx context.Context, reference string) (*ocidoc.Document, string, error) {
	doc, forwarded, err := r.document(ctx, reference)
	if notFound(err) && forwarded != reference && ocidoc.ValidDigest(forwarded) {
		return r.document(ctx, forwarded)
	}
	return doc, forwarded, err
}

// walk collects contents. Each manifest is looked at once.
type walk struct {
	*repository
	*contents
	seen map[string]bool
}

func (w *walk) index(ctx context.Context, doc *ocidoc.Document, forwarded string, depth int) error {
	if depth == 0 {
		return fmt.Errorf("index %s of %s: nested more than %d deep", doc.Digest(), w.name, maxNesting)
	}
	if len(w.seen)+len(doc.Manifests) > maxManifests {
		return fmt.Errorf("index %s of %s: more than %d manifests", doc.Digest(), w.name, maxManifests)
	}
	platforms := platformsOf(doc)
	for i, e := range doc.Manifests {
		if w.seen[e.Digest] {
			continue
		}
		w.seen[e.Digest] = true
		switch ocidoc.KindOf(e.MediaType) {
		case ocidoc.KindIndex:
			inner, innerForwarded, err := w.orForwarded(ctx, e.Digest)
			if err != nil {
				return err
			}
			if err := w.index(ctx, inner, innerForwarded, depth-1); err != nil {
				return err
			}
		case ocidoc.KindManifest:
			if err := w.entry(ctx, doc, i, platforms[i], forwarded == "" || forwarded == doc.Digest()); err != nil {
				return err
			}
		}
	}
	return nil
}

// entry tells an image from an attestation by its manifest, as Sluice does for a push.
func (w *walk) entry(ctx context.Context, doc *ocidoc.Document, i int, platform string, inRegistry bool) error {
	e := doc.Manifests[i]
	unknown := platform == "unknown/unknown"
	if filters.NeedsChild(doc, e, filters.Policy{}) {
		child, err := w.manifest(ctx, e.Digest)
		switch {
		case notFound(err): // deleted, or forgotten after retention
		case err != nil:
			return err
		case filters.IsAttestation(child):
			w.entries = append(w.entries, entryAttestation{filters.SubjectOf(e, child), child, inRegistry})
			return nil
		default:
			unknown = false
		}
	}
	if !unknown {
		w.images = append(w.images, image{e.Digest, platform})
	}
	return nil
}

// subject asks the statements which image they are about, when neither manifest nor index say so:
// buildah drops the annotations. Not knowing it is no reason to fail.
func (r *repository) subject(ctx context.Context, attestation *ocidoc.Document, images []image) string {
	for _, l := range attestation.Layers[:min(len(attestation.Layers), maxSubjectLayers)] {
		var b bytes.Buffer
		if l.Size > maxSubjectRead || r.blob(ctx, l, &b) != nil {
			continue
		}
		info, err := filters.ParseStatement(b.Bytes())
		if err != nil {
			continue
		}
		for _, img := range images {
			if slices.Contains(info.Subjects, img.digest) {
				return img.digest
			}
		}
	}
	return ""
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
