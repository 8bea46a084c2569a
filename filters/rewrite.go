package filters

import (
	"fmt"

	"sluice/filters/ocidoc"
)

// Inner is what a document that an index lists was forwarded as: a nested index
// with its own digest and size after the rewrite, or those of the image that
// took its place; an image after its conversion. The zero Inner means
// that nothing was left of it and nothing was forwarded.
type Inner struct {
	MediaType, Digest string
	Size              int64
}

// Taken is an entry that was cut because a filter said so.
type Taken struct {
	Entry    ocidoc.Descriptor
	Manifest *ocidoc.Document
	// Subject is the digest of the image that the manifest is about: of the
	// entry's annotation, else of the manifest's subject. It is "" when neither
	// says (buildah drops the annotations); the statements still do, see
	// [ParseStatement].
	Subject string
	Verdict Verdict
}

// Plan is what becomes of one document.
type Plan struct {
	// Changed is false when the very bytes received are to be forwarded.
	Changed bool
	// Bytes go upstream in the document's place. They are nil when Unwrapped (then
	// the child's own bytes go) or Empty.
	Bytes []byte
	// MediaType goes with what is forwarded; "" when Empty.
	MediaType string
	// Unwrapped is the entry whose manifest takes the index's place, as
	// forwarded, or nil.
	Unwrapped *ocidoc.Descriptor
	// Empty means that nothing is left to forward.
	Empty bool
	Taken []Taken
	Kept  []ocidoc.Descriptor // as forwarded
}

// Rewrite decides what becomes of a document: of an index, and of an image
// when the policy wants other media types. Of everything else the Plan says
// that it stays as it is.
//
// children holds manifests by digest: every one for which [NeedsChild] said
// true (but nested indexes that are in inner), and any other that is at hand.
// A child at hand is judged even when its entry does not hint at anything.
// inner holds, by the original digest, the nested indexes and the images that
// were forwarded as something else; their entries get the new values, under every policy,
// because upstream knows no others.
//
// The result is a function of the arguments alone. Errors: [ErrMissingChild] (not under Forward),
// [ErrRejected], an invalid policy, and values in inner that no document may
// have.
func Rewrite(index *ocidoc.Document, children map[string]*ocidoc.Document, inner map[string]Inner, p Policy) (*Plan, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("rewrite: %w", err)
	}
	plan := &Plan{Bytes: index.Bytes, MediaType: index.ContentType}
	docker := p.MediaTypes == MediaTypesDocker
	if docker && IsImage(index) {
		return toDocker(index)
	}
	if index.Kind != ocidoc.KindIndex {
		return plan, nil
	}
	if config := cacheConfig(index); config >= 0 && p.CacheIndex == CacheIndexManifest {
		return toCacheManifest(index, config)
	}
	var edits []ocidoc.Edit
	var sole *ocidoc.Document // the manifest of the last kept entry, if it had to be read
	cut := false
	for i, e := range index.Manifests {
		if ocidoc.KindOf(e.MediaType) == ocidoc.KindOther {
			plan.Kept = append(plan.Kept, e) // a blob, or nothing known here
			continue
		}
		if in, ok := inner[e.Digest]; ok {
			if in == (Inner{}) {
				cut = true
				edits = append(edits, ocidoc.Edit{Entry: i, Cut: true})
				continue
			}
			if !ocidoc.ValidDigest(in.Digest) || in.Size <= 0 || ocidoc.KindOf(in.MediaType) == ocidoc.KindOther {
				return nil, fmt.Errorf("rewrite: nested index %s cannot have been forwarded as %+v", e.Digest, in)
			}
			if edit, differs := replacement(i, e, in); differs {
				edits = append(edits, edit)
			}
			e.MediaType, e.Digest, e.Size = in.MediaType, in.Digest, in.Size
			plan.Kept, sole = append(plan.Kept, e), nil
			continue
		}
		child, needed := children[e.Digest], NeedsChild(index, e, p)
		if child == nil && needed && p.Attestations != Forward {
			return nil, fmt.Errorf("%w: entry %d refers to %s, which was neither pushed here nor found upstream; push it first", ErrMissingChild, i, e.Digest)
		}
		v := Judge(Subject{Index: index, Entry: e, Child: child, Policy: p})
		switch {
		case v.Reject:
			return nil, fmt.Errorf("%w by filter %s: entry %d, %s: %s", ErrRejected, v.Filter, i, e.Digest, v.Reason)
		case v.Action == Forward:
			plan.Kept, sole = append(plan.Kept, e), nil
			if needed {
				sole = child
			}
		default:
			cut = true
			edits = append(edits, ocidoc.Edit{Entry: i, Cut: true})
			plan.Taken = append(plan.Taken, Taken{Entry: e, Manifest: child, Subject: SubjectOf(e, child), Verdict: v})
		}
	}
	list := docker && becomesList(index, plan.Kept)
	if len(edits) == 0 && !list {
		return plan, nil
	}
	plan.Changed = true
	switch {
	case len(plan.Kept) == 0:
		plan.Bytes, plan.MediaType, plan.Empty = nil, "", true
		return plan, nil
	case cut && unwraps(index, plan.Kept, sole, p.Unwrap):
		plan.Unwrapped = &plan.Kept[0]
		plan.Bytes, plan.MediaType = nil, plan.Kept[0].MediaType
		return plan, nil
	}
	b, err := index.Rewrite(edits)
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", index.Digest(), err)
	}
	if list {
		if b, err = toDockerList(b); err != nil {
			return nil, fmt.Errorf("index %s as a manifest list: %w", index.Digest(), err)
		}
		plan.MediaType = ocidoc.MediaTypeDockerList
	}
	plan.Bytes = b
	return plan, nil
}

// replacement is the edit that gives an entry the values of in, and whether
// there is anything to change.
func replacement(i int, e ocidoc.Descriptor, in Inner) (ocidoc.Edit, bool) {
	edit := ocidoc.Edit{Entry: i}
	if in.MediaType != e.MediaType {
		edit.MediaType = in.MediaType
	}
	if in.Digest != e.Digest {
		edit.Digest = in.Digest
	}
	if in.Size != e.Size {
		edit.Size = in.Size
	}
	return edit, edit != ocidoc.Edit{Entry: i}
}

// SubjectOf returns the digest of the image that an attestation is about, or
// "". See [Taken]. m may be nil.
func SubjectOf(e ocidoc.Descriptor, m *ocidoc.Document) string {
	if d := e.Annotations[AnnotationReferenceDigest]; ocidoc.ValidDigest(d) {
		return d
	}
	if m != nil && m.Subject != nil {
		return m.Subject.Digest
	}
	return ""
}

// unwraps reports whether what is left of an index, of which something was
// cut, is one image that takes its place. An index that lists one image
// because its author wanted it so is never unwrapped: a build without
// attestations would have sent the same index (crane push --index).
//
// Something else than an image stays listed: a nested index, or an artifact,
// such as the signature that is left in a referrers index. m, the manifest of
// the entry that is left, is looked at only if it had to be read to judge the
// entry: whether it happens to be at hand must not matter.
func unwraps(index *ocidoc.Document, kept []ocidoc.Descriptor, m *ocidoc.Document, u Unwrap) bool {
	if u == UnwrapNever || len(kept) != 1 {
		return false
	}
	e := kept[0]
	if ocidoc.KindOf(e.MediaType) != ocidoc.KindManifest || e.ArtifactType != "" && !isImageConfig(e.ArtifactType) {
		return false
	}
	if m != nil && (m.ArtifactType != "" || m.Subject != nil || m.Config == nil || !isImageConfig(m.Config.MediaType)) {
		return false
	}
	return u == UnwrapAlways || len(index.Annotations) == 0 && index.Subject == nil && index.ArtifactType == ""
}
