package proxy

import (
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxListedText bounds what the entries that Sluice adds to a list of referrers say of themselves, together. Registries take
	// no larger manifest than that, and clients read no larger list.
	maxListedText = 4 << 20
	// maxType is the length of the longest media type (RFC 6838, section 4.2).
	maxType = 255
)

// A boundedList is a list of referrers in the making. Annotations are whatever a pusher wrote, up to 4 MiB of them in each
// of any number of manifests, so beyond the bound entries are listed without. Nothing in it refers to the documents that
// it was made from, which would stay in memory.
type boundedList struct {
	list  []ocispec.Descriptor
	bytes int
	cut   int // entries that are listed without their annotations
}

func (b *boundedList) add(d ocispec.Descriptor) {
	size := 0
	for k, v := range d.Annotations {
		size += len(k) + len(v)
	}
	if len(d.ArtifactType) > maxType {
		d.ArtifactType = "" // it is none
	}
	d.ArtifactType, d.MediaType = strings.Clone(d.ArtifactType), strings.Clone(d.MediaType)
	if b.bytes+size > maxListedText {
		b.cut++
		d.Annotations = nil
	} else {
		b.bytes += size
		d.Annotations = cloned(d.Annotations)
	}
	b.list = append(b.list, d)
}

func cloned(annotations map[string]string) map[string]string {
	if annotations == nil {
		return nil
	}
	own := make(map[string]string, len(annotations))
	for k, v := range annotations {
		own[strings.Clone(k)] = strings.Clone(v)
	}
	return own
}
