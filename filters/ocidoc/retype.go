package ocidoc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Retyping says how a document is written in other media types: Docker's for
// OCI's. The zero value changes nothing.
type Retyping struct {
	// MediaType becomes the document's own. One that does not state its type
	// (OCI allows that, Docker schema 2 does not) gets it behind schemaVersion,
	// where Go's structs have it.
	MediaType string
	// Descriptors are media types of what config, layers and manifests refer
	// to, and what each becomes. Others stay.
	Descriptors map[string]string
	// CutSelf and CutDescriptors are names of members that the other form does
	// not have.
	CutSelf, CutDescriptors []string
}

// Retype returns the document written in other media types; the document
// itself does not change. Values are replaced and members cut in place, so of
// json.Marshal's and json.MarshalIndent's output it makes what they would have
// written of the changed struct.
//
// Errors are the caller's mistakes, an opaque document or a bad media type; a
// document with neither mediaType nor schemaVersion, which no registry takes;
// and a result over [MaxBytes].
func (d *Document) Retype(r Retyping) ([]byte, error) {
	if d.Kind == KindOther {
		return nil, fmt.Errorf("retype: %s is opaque", d.ContentType)
	}
	if badMediaType(r.MediaType) {
		return nil, fmt.Errorf("retype: bad media type %s", quote(r.MediaType))
	}
	for _, to := range r.Descriptors {
		if to == "" || badMediaType(to) {
			return nil, fmt.Errorf("retype: bad media type %s", quote(to))
		}
	}
	p := patcher{src: d.src}
	top := p.members(strings.IndexByte(d.src, '{'))
	if r.MediaType != "" {
		if err := p.setMediaType(top, r.MediaType); err != nil {
			return nil, fmt.Errorf("retype: %w", err)
		}
	}
	p.cut(top, r.CutSelf)
	for _, m := range top {
		if d.src[m.value.start] != '{' && d.src[m.value.start] != '[' {
			continue // null: absent
		}
		switch m.name {
		case "config":
			p.retype(m.value.start, r)
		case "layers", "manifests":
			for _, at := range p.elements(m.value.start) {
				p.retype(at, r)
			}
		}
	}
	return p.apply()
}

// AsManifest returns an index of blobs as the manifest whose config is the
// entry with this number and whose layers are the others, in their order. All
// other members stay what and where they are. That is how BuildKit's two forms
// of a registry cache differ.
func (d *Document) AsManifest(config int, mediaType string) ([]byte, error) {
	if d.Kind != KindIndex || mediaType == "" || badMediaType(mediaType) {
		return nil, fmt.Errorf("as manifest: %s is no index, or %s no media type", d.ContentType, quote(mediaType))
	}
	without, err := d.Rewrite([]Edit{{Entry: config, Cut: true}})
	if err != nil {
		return nil, err
	}
	p := patcher{src: d.src}
	top := p.members(strings.IndexByte(d.src, '{'))
	if err := p.setMediaType(top, mediaType); err != nil {
		return nil, fmt.Errorf("as manifest: %w", err)
	}
	i := slices.IndexFunc(top, func(m member) bool { return m.name == "manifests" })
	list := top[i] // there is one, since an entry of it was cut
	layers := string(without[list.value.start : len(without)-(len(d.src)-list.value.end)])
	colon := p.src[list.key.end:list.value.start]
	p.replace(span{list.key.start, list.value.end},
		`"config"`+colon+d.entries[config].value.of(d.src)+","+p.before(list)+`"layers"`+colon+layers)
	return p.apply()
}

func (s span) of(src string) string { return src[s.start:s.end] }

// member is one name and value of an object.
type member struct {
	name       string
	key, value span // key with its quotes
}

// patcher collects changes to a text that Parse has accepted.
type patcher struct {
	src     string
	patches []patch
}

type patch struct {
	span
	text string
}

func (p *patcher) replace(s span, text string) { p.patches = append(p.patches, patch{s, text}) }

// members lists those of the object at this place.
func (p *patcher) members(at int) (ms []member) {
	sc := scanner{s: p.src, pos: at}
	_ = sc.object(func(name string) error { // it has been read before
		m := member{name: name, key: sc.key, value: span{start: sc.pos}}
		err := sc.skip()
		m.value.end = sc.pos
		ms = append(ms, m)
		return err
	})
	return ms
}

// elements are the places of the array's elements.
func (p *patcher) elements(at int) (starts []int) {
	sc := scanner{s: p.src, pos: at}
	_ = sc.array(func(int) error { // as above
		starts = append(starts, sc.pos)
		return sc.skip()
	})
	return starts
}

// retype changes one descriptor.
func (p *patcher) retype(at int, r Retyping) {
	ms := p.members(at)
	for _, m := range ms {
		if m.name != "mediaType" {
			continue
		}
		sc := scanner{s: p.src, pos: m.value.start}
		mediaType, _ := sc.text() // as above
		if to := r.Descriptors[mediaType]; to != "" {
			p.replace(m.value, `"`+to+`"`)
		}
	}
	p.cut(ms, r.CutDescriptors)
}

// setMediaType replaces the value of mediaType, or puts the member in behind
// schemaVersion, with the white space of that.
func (p *patcher) setMediaType(top []member, mediaType string) error {
	value := `"` + mediaType + `"`
	named := func(name string) int {
		return slices.IndexFunc(top, func(m member) bool { return m.name == name })
	}
	if i := named("mediaType"); i >= 0 {
		p.replace(top[i].value, value)
		return nil
	}
	i := named("schemaVersion")
	if i < 0 {
		return errors.New("the document has neither mediaType nor schemaVersion")
	}
	m := top[i]
	p.replace(span{m.value.end, m.value.end}, ","+p.before(m)+`"mediaType"`+p.src[m.key.end:m.value.start]+value)
	return nil
}

// before is the white space in front of a member.
func (p *patcher) before(m member) string {
	head := p.src[:m.key.start]
	return head[len(strings.TrimRight(head, " \t\r\n")):]
}

// cut takes out the members with these names, each with one comma and the white
// space that separated it, as [Document.Rewrite] does with entries.
func (p *patcher) cut(ms []member, names []string) {
	gone := func(i int) bool { return slices.Contains(names, ms[i].name) }
	for i := 0; i < len(ms); i++ {
		if !gone(i) {
			continue
		}
		first := i
		for i+1 < len(ms) && gone(i+1) {
			i++
		}
		switch last := i == len(ms)-1; {
		case first > 0 && last:
			p.replace(span{ms[first-1].value.end, ms[i].value.end}, "")
		case first > 0:
			p.replace(span{p.comma(ms[first-1]), p.comma(ms[i])}, "")
		case last:
			p.replace(span{ms[0].key.start, ms[i].value.end}, "")
		default:
			p.replace(span{ms[0].key.start, ms[i+1].key.start}, "")
		}
	}
}

// comma is the place of the comma behind a member.
func (p *patcher) comma(m member) int {
	return m.value.end + strings.IndexByte(p.src[m.value.end:], ',')
}

// patched is the text with the changes.
func (p *patcher) patched() []byte {
	slices.SortStableFunc(p.patches, func(a, b patch) int { return a.start - b.start })
	out := make([]byte, 0, len(p.src)+256)
	at := 0
	for _, c := range p.patches {
		out = append(append(out, p.src[at:c.start]...), c.text...)
		at = c.end
	}
	return append(out, p.src[at:]...)
}

// apply is the same for a whole document.
func (p *patcher) apply() ([]byte, error) {
	out := p.patched()
	if len(out) > MaxBytes {
		return nil, fmt.Errorf("rewrite: %w: %d bytes, at most %d are accepted", ErrTooLarge, len(out), MaxBytes)
	}
	return out, nil
}
