package ecrsim

import (
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// image is a manifest or an index in one repository: ECR's unit of everything, the attestation manifests included.
type image struct {
	*document
	digest  string
	body    []byte
	pushed  time.Time
	size    int64 // of its layers; of an index that of its largest image (SDK, types.ImageDetail)
	visible time.Time
	misses  int // reads that do not find it yet
}

// put stores an image, as PutImage and PUT of a manifest do; the caller holds the lock. A tag may be "", and so may a digest.
func (s *Simulator) put(r *repository, body []byte, contentType, tag, asked string, sw *Switches) (*image, *failure) {
	limits := sw.Limits.withDefaults()
	if int64(len(body)) > limits.ManifestBytes {
		return nil, invalid("ImageManifest", "Member must have length less than or equal to 4194304")
	}
	got := digest.FromBytes(body).String()
	if asked != "" && asked != got {
		return nil, s.otherDigest(asked, r.name).with(sw.DigestMismatch)
	}
	d, f := parse(body, contentType, sw)
	if f != nil {
		return nil, f
	}
	if d.count > limits.LayersPerImage {
		return nil, invalid("ImageManifest", "Limit on number of layers per image exceeded")
	}
	size, f := r.complete(d, sw)
	if f != nil {
		return nil, f
	}
	if f := s.mayTag(r, tag, got, sw); f != nil {
		return nil, f
	}
	i := r.images[got]
	if i == nil {
		if len(r.images) >= limits.ImagesPerRepository {
			return nil, s.tooMany("images", r.name, limits.ImagesPerRepository)
		}
		i = &image{
			document: d, digest: got, body: body, pushed: s.now(), size: size,
			visible: s.now().Add(sw.ReadAfterWriteGap), misses: sw.ReadAfterWriteReads,
		}
		r.images[got] = i
		r.refer(d, 1)
	}
	if tag != "" && r.tagged[tag] != got {
		if len(r.tagsOf(got)) >= limits.TagsPerImage {
			return nil, s.tooMany("tags per image", r.name, limits.TagsPerImage)
		}
		r.tagged[tag] = got
	}
	return i, nil
}

// complete looks for everything that a document refers to, and finds its size.
func (r *repository) complete(d *document, sw *Switches) (size int64, f *failure) {
	for _, l := range d.layers {
		have := r.layers[l.Digest.String()]
		if have == nil {
			return 0, missingLayer(l.Digest.String()).or(sw.MissingLayer)
		}
		size += have.size
	}
	for _, m := range d.children {
		have := r.images[m.Digest.String()]
		if have == nil {
			return 0, missingChild(m.Digest.String()).or(sw.MissingChild)
		}
		size = max(size, have.size)
	}
	if d.subject != "" && sw.RefuseAbsentSubject && r.images[d.subject] == nil {
		return 0, missingSubject(d.subject).or(sw.AbsentSubject)
	}
	return size, nil
}

func (s *Simulator) mayTag(r *repository, tag, digest string, sw *Switches) *failure {
	old, taken := r.tagged[tag]
	if tag == "" || !taken || !r.isImmutable(tag) || old == digest && sw.AcceptSameImage {
		return nil
	}
	return immutable(tag, r.name, sw.OldImmutableText)
}

func (r *repository) refer(d *document, by int) {
	for _, l := range d.layers {
		if have := r.layers[l.Digest.String()]; have != nil {
			have.references += by
		}
	}
}

// find is an image by tag or digest, once it can be read; the caller holds the lock.
func (s *Simulator) find(r *repository, tag, digest string) (*image, *failure) {
	if tag != "" {
		digest = r.tagged[tag]
	}
	i := r.images[digest]
	if i == nil || s.now().Before(i.visible) {
		return nil, noImage()
	}
	if i.misses > 0 {
		i.misses--
		return nil, noImage()
	}
	return i, nil
}

// remove deletes an image with all tags, or a tag, and with the last tag the image.
func (r *repository) remove(tag, digest string) *failure {
	if tag != "" {
		if digest = r.tagged[tag]; digest == "" {
			return noImage()
		}
		if len(r.tagsOf(digest)) > 1 {
			delete(r.tagged, tag)
			return nil
		}
	}
	i := r.images[digest]
	if i == nil {
		return noImage()
	}
	for _, other := range r.images {
		for _, m := range other.children {
			if m.Digest.String() == digest {
				return referencedByIndex()
			}
		}
	}
	maps.DeleteFunc(r.tagged, func(_, d string) bool { return d == digest })
	delete(r.images, digest)
	r.refer(i.document, -1)
	return nil
}

// listed are all images in the order in which ECR has them: none that a client could rely on. This one is that of their
// digests.
func (r *repository) listed() []*image {
	var out []*image
	for _, d := range slices.Sorted(maps.Keys(r.images)) {
		out = append(out, r.images[d])
	}
	return out
}

// referrers of a digest, in the same order.
func (r *repository) referrers(digest string) []*image {
	return slices.DeleteFunc(r.listed(), func(i *image) bool { return i.subject != digest })
}
