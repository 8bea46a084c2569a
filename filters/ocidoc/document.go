package ocidoc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MaxBytes is the size of the largest document that is parsed.
	// distribution-spec, "Pushing Manifests": registries SHOULD accept at
	// least 4 MiB.
	MaxBytes = 4 << 20
	// MaxDepth is how deep arrays and objects may be nested in a document. A
	// manifest needs 4; Docker's registry and encoding/json stop at 10,000.
	MaxDepth = 64
)

var (
	// ErrInvalid is in the chain of every error of [Parse]. The message says
	// where and why; it quotes at most a hundred bytes of the document.
	ErrInvalid = errors.New("invalid document")
	// ErrTooLarge is in the chain, beside ErrInvalid, when a document has more
	// than [MaxBytes].
	ErrTooLarge = errors.New("document too large")
)

// Platform is what an index entry says about where its manifest runs.
type Platform struct{ OS, Architecture string }

// Descriptor is a reference from one document to another or to a blob
// (image-spec "descriptor.md").
type Descriptor struct {
	MediaType, Digest, ArtifactType string
	Size                            int64
	Platform                        *Platform // nil when absent
	Annotations                     map[string]string
}

// Document is one parsed manifest or index, to be read only. Its strings share
// one copy of the bytes.
type Document struct {
	Bytes []byte // exactly what was parsed
	// ContentType is the media type the document was sent as, without
	// parameters and in lower case. It is authoritative: a body may lack its
	// mediaType (crane's outer index does). If the request said nothing (no
	// type, or only JSON), it is the body's mediaType, or stays as it was.
	ContentType string
	Kind        Kind

	BodyMediaType, ArtifactType string
	Config, Subject             *Descriptor
	Layers, Manifests           []Descriptor
	Annotations                 map[string]string

	src         string
	entries     []entry // places of Manifests
	open, close int     // behind the [ and at the ] of `manifests`
	layers      span    // the value of `layers`
}

type span struct{ start, end int }

// entry is where an index entry and its values are.
type entry struct{ value, mediaType, digest, size span }

// Parse reads a document that was sent as contentType. b is kept and must not
// be changed. Every error is [ErrInvalid]; see the package comment for what is
// refused. Time is linear in len(b), and memory a small multiple of it
// (at most some 30 times, for millions of tiny annotations).
func Parse(b []byte, contentType string) (*Document, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("%w: %w: %d bytes, at most %d are accepted", ErrInvalid, ErrTooLarge, len(b), MaxBytes)
	}
	d := &Document{Bytes: b, ContentType: canonicalMediaType(contentType), layers: span{-1, -1}}
	d.Kind = KindOf(d.ContentType)
	if d.Kind == KindOther && !(saysNothing(d.ContentType) && beginsObject(b)) {
		return d, nil
	}
	d.src = string(b)
	if d.Kind == KindOther {
		if err := d.typeByBody(); err != nil {
			return nil, fmt.Errorf("%w: the Content-Type says nothing, and the body: %w", ErrInvalid, err)
		}
		if d.Kind == KindOther {
			return d, nil
		}
	}
	p := parser{scanner: scanner{s: d.src}, d: d}
	if err := p.whole(p.document); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, d.Kind, err)
	}
	return d, nil
}

// beginsObject tells whether b can be a JSON object.
func beginsObject(b []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{"))
}

// typeByBody takes the type of a document that was sent without one from its
// mediaType, if it has one. A body of which readers could disagree about that
// is refused.
func (d *Document) typeByBody() error {
	p := parser{scanner: scanner{s: d.src}, d: d}
	err := p.whole(func() error {
		return p.object(func(name string) error {
			if name == "mediaType" {
				return p.optional(&d.BodyMediaType)
			}
			return p.unknown(name, "mediaType")
		})
	})
	if err != nil {
		return err
	}
	if t := canonicalMediaType(d.BodyMediaType); t != "" {
		d.ContentType, d.Kind = t, KindOf(t)
	}
	return nil
}

// RawLayers returns the bytes of the value of `layers`, brackets and
// formatting included, or nil when the document has none.
func (d *Document) RawLayers() []byte {
	if d.layers.start < 0 {
		return nil
	}
	return []byte(d.src[d.layers.start:d.layers.end])
}

type parser struct {
	scanner
	d *Document
}

// whole reads the JSON text by read and sees to it that nothing follows.
func (p *parser) whole(read func() error) error {
	if !utf8.ValidString(p.s) {
		return errors.New("not UTF-8 (RFC 8259, section 8.1)")
	}
	p.space()
	if err := read(); err != nil {
		return err
	}
	p.space()
	if p.pos < len(p.s) {
		return p.errorf("more bytes after the end of the JSON value")
	}
	return nil
}

// unknown skips the value of a field that is not looked at. known are the
// fields of this object that are: a reader that ignores case, as Go's does,
// would take the one for the other.
func (p *parser) unknown(name string, known ...string) error {
	for _, k := range known {
		if strings.EqualFold(name, k) {
			return p.errorf("the field %s differs from %q only in case, and readers disagree about which one counts", quote(name), k)
		}
	}
	return p.skip()
}

func (p *parser) optional(into *string) error {
	if p.null() {
		return nil
	}
	value, err := p.text()
	*into = value
	return err
}

// absent reads the value of a field that documents of this kind do not have.
func (p *parser) absent(name string) error {
	if p.null() {
		return nil
	}
	return p.errorf("it has %q, but was sent as %s: readers would disagree about what it refers to", name, p.d.ContentType)
}

func (p *parser) document() error {
	d := p.d
	err := p.object(func(name string) error {
		var err error
		switch name {
		case "mediaType":
			err = p.optional(&d.BodyMediaType)
		case "artifactType":
			err = p.optional(&d.ArtifactType)
		case "annotations":
			d.Annotations, err = p.annotations()
		case "subject":
			d.Subject, err = p.reference()
		case "config":
			if d.Kind == KindIndex {
				return p.absent(name)
			}
			d.Config, err = p.reference()
		case "layers":
			if d.Kind == KindIndex {
				return p.absent(name)
			}
			err = p.layers()
		case "manifests":
			if d.Kind == KindManifest {
				return p.absent(name)
			}
			err = p.manifests()
		default:
			return p.unknown(name, "mediaType", "artifactType", "annotations", "subject", "config", "layers", "manifests")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if k := KindOf(d.BodyMediaType); k != KindOther && k != d.Kind {
		return fmt.Errorf("its mediaType is %q, but it was sent as %s", d.BodyMediaType, d.ContentType)
	}
	return nil
}

// reference reads an optional descriptor.
func (p *parser) reference() (*Descriptor, error) {
	if p.null() {
		return nil, nil
	}
	var desc Descriptor
	if _, err := p.descriptor(&desc); err != nil {
		return nil, err
	}
	return &desc, nil
}

func (p *parser) layers() error {
	d := p.d
	if p.null() { // what Go writes for no layers
		return nil
	}
	start := p.pos
	err := p.array(func(i int) error {
		var desc Descriptor
		if _, err := p.descriptor(&desc); err != nil {
			return fmt.Errorf("%d: %w", i, err)
		}
		d.Layers = append(d.Layers, desc)
		return nil
	})
	d.layers = span{start, p.pos}
	return err
}

func (p *parser) manifests() error {
	d := p.d
	if p.null() {
		return nil
	}
	d.open = p.pos + 1
	err := p.array(func(i int) error {
		var desc Descriptor
		e, err := p.descriptor(&desc)
		if err != nil {
			return fmt.Errorf("%d: %w", i, err)
		}
		d.Manifests = append(d.Manifests, desc)
		d.entries = append(d.entries, e)
		return nil
	})
	d.close = p.pos - 1
	return err
}

func (p *parser) descriptor(desc *Descriptor) (e entry, err error) {
	e.value.start = p.pos
	err = p.object(func(name string) error {
		start := p.pos
		var err error
		switch name {
		case "mediaType":
			desc.MediaType, err = p.text()
			e.mediaType = span{start, p.pos}
		case "digest":
			desc.Digest, err = p.text()
			e.digest = span{start, p.pos}
		case "size":
			desc.Size, err = p.size()
			e.size = span{start, p.pos}
		case "artifactType":
			err = p.optional(&desc.ArtifactType)
		case "annotations":
			desc.Annotations, err = p.annotations()
		case "platform":
			desc.Platform, err = p.platform()
		default:
			return p.unknown(name, "mediaType", "digest", "size", "artifactType", "annotations", "platform")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return e, err
	}
	e.value.end = p.pos
	switch {
	case desc.MediaType == "":
		return e, p.errorf("a descriptor without mediaType")
	case e.size.end == 0:
		return e, p.errorf("a descriptor without size")
	case !ValidDigest(desc.Digest):
		return e, p.errorf("the digest %s is not sha256: or sha512: with as many lower-case hexadecimal digits as it takes", quote(desc.Digest))
	}
	return e, nil
}

func (p *parser) platform() (*Platform, error) {
	if p.null() {
		return nil, nil
	}
	var pl Platform
	err := p.object(func(name string) error {
		switch name {
		case "os":
			return p.optional(&pl.OS)
		case "architecture":
			return p.optional(&pl.Architecture)
		}
		return p.unknown(name, "os", "architecture")
	})
	return &pl, err
}

func (p *parser) annotations() (map[string]string, error) {
	if p.null() {
		return nil, nil
	}
	all := map[string]string{}
	err := p.object(func(name string) error {
		var value string
		err := p.optional(&value) // encoding/json, and so every registry in Go, takes null for ""
		all[name] = value
		return err
	})
	return all, err
}
