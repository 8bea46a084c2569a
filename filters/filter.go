package filters

import (
	"errors"
	"fmt"

	"sluice/filters/ocidoc"
)

// Action is what a rule does with attestations.
type Action string

const (
	Forward Action = "forward" // leave them where they are
	Strip   Action = "strip"   // take them out and forget them
	Store   Action = "store"   // take them out and keep them
)

// Unwrap says when an index that is left with one image becomes that image's
// own manifest under the tag. It never touches an index nothing was cut from,
// nor one that is left with something else than an image.
type Unwrap string

const (
	// UnwrapAuto does it when the index has no annotations, subject or
	// artifactType of its own: BuildKit without attestations sends the bare
	// manifest for one platform.
	UnwrapAuto Unwrap = "auto"
	// UnwrapAlways does it whatever the index says about itself (AWS Lambda
	// takes no index).
	UnwrapAlways Unwrap = "always"
	// UnwrapNever leaves an index of one image. Referrers fallback tags
	// (`sha256-<hex>`) must be rewritten with it: their readers expect an index.
	UnwrapNever Unwrap = "never"
)

// Policy is what a rule says. The zero value is not valid: what to do with
// attestations is never a guess. The empty MediaTypes and CacheIndex keep.
type Policy struct {
	Attestations Action
	Unwrap       Unwrap
	MediaTypes   MediaTypes
	CacheIndex   CacheIndex
}

// Validate returns an error that names the setting with an unknown value.
func (p Policy) Validate() error {
	switch p.Attestations {
	case Forward, Strip, Store:
	default:
		return fmt.Errorf("attestations: %q is not one of forward, strip, store", p.Attestations)
	}
	switch p.Unwrap {
	case UnwrapAuto, UnwrapAlways, UnwrapNever:
	default:
		return fmt.Errorf("unwrap: %q is not one of auto, always, never", p.Unwrap)
	}
	switch p.MediaTypes {
	case "", MediaTypesKeep, MediaTypesDocker:
	default:
		return fmt.Errorf("media_types: %q is not one of keep, docker", p.MediaTypes)
	}
	switch p.CacheIndex {
	case "", CacheIndexKeep, CacheIndexManifest:
	default:
		return fmt.Errorf("cache_index: %q is not one of keep, manifest", p.CacheIndex)
	}
	if p.MediaTypes == MediaTypesDocker && p.Attestations == Forward {
		return errors.New("media_types: docker takes images apart from their attestations, which Docker's media types cannot list: attestations must be strip or store")
	}
	return nil
}

// Subject is one thing to judge: a manifest, and the index entry that names
// it.
type Subject struct {
	// Index is nil when the manifest is judged by itself, at its own PUT.
	Index *ocidoc.Document
	Entry ocidoc.Descriptor
	// Child is the entry's manifest. It is nil when the entry does not hint at
	// anything that would need it, see [NeedsChild].
	Child  *ocidoc.Document
	Policy Policy
}

// Verdict is what a filter wants done with a manifest.
type Verdict struct {
	Filter string // who says so; "" when no filter had an opinion
	Action Action // Forward keeps the entry, Strip and Store cut it
	Reject bool   // refuse the push that the manifest is part of
	Reason string // for logs and error messages
}

// Filter has an opinion about manifests. Implementations are pure functions of
// the Subject, safe for concurrent use.
type Filter interface {
	// Name is the filter's key in logs, metrics and the configuration.
	Name() string
	// Judge returns false to leave the decision to the next filter.
	Judge(Subject) (Verdict, bool)
}

// table returns the filters in the order in which they are asked.
func table() []Filter {
	return []Filter{
		attestations{},
	}
}

// Judge returns the verdict of the first filter that has an opinion; when none
// has, the manifest is forwarded. The policy must be a valid one.
func Judge(s Subject) Verdict {
	for _, f := range table() {
		if v, ok := f.Judge(s); ok {
			v.Filter = f.Name()
			return v
		}
	}
	return Verdict{Action: Forward}
}

// Converts reports whether a document goes upstream in another form under a
// policy, whatever it lists: an image in Docker's media types, a cache index as
// a manifest.
func Converts(doc *ocidoc.Document, p Policy) bool {
	return p.MediaTypes == MediaTypesDocker && IsImage(doc) || p.CacheIndex == CacheIndexManifest && IsCacheIndex(doc)
}

// Errors of [Rewrite].
var (
	// ErrMissingChild means that a manifest that has to be read to judge its
	// entry is not there: MANIFEST_BLOB_UNKNOWN to the client, nothing changed.
	ErrMissingChild = errors.New("manifest of an index entry is missing")
	// ErrRejected means that a filter refuses the push, or that a document cannot
	// be converted as the policy wants.
	ErrRejected = errors.New("rejected")
)
