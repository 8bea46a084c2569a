package ocidoc

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Edit is one change to an index: of the entry with this number, cut it, or
// replace those of its three values that are not zero here. With the digest go
// the entry's `data` and `urls`.
type Edit struct {
	Entry             int
	Cut               bool
	MediaType, Digest string
	Size              int64
}

// Rewrite returns the index with the edits made; the document itself does not
// change. Without edits it returns d.Bytes.
//
// A cut entry goes with one comma and the white space that separated it: the
// first entry that is left stands where the first one stood, the last one is
// followed by what followed the last. Of json.Marshal's and
// json.MarshalIndent's output that makes what they would have written for the
// shorter list; if nothing is left, `[]`. Cutting in several steps gives the
// same bytes as cutting at once.
//
// Errors are the caller's mistakes: the document is no index, there is no such
// entry, two edits of one entry, or a replacement that is not a media type,
// digest or size; and a result over [MaxBytes].
func (d *Document) Rewrite(edits []Edit) ([]byte, error) {
	if len(edits) == 0 {
		return d.Bytes, nil
	}
	if d.Kind != KindIndex {
		return nil, fmt.Errorf("rewrite: %s is no index", d.ContentType)
	}
	edits = slices.Clone(edits)
	slices.SortStableFunc(edits, func(a, b Edit) int { return a.Entry - b.Entry })
	for i, e := range edits {
		if err := e.check(len(d.entries)); err != nil {
			return nil, fmt.Errorf("rewrite: entry %d of %d: %w", e.Entry, len(d.entries), err)
		}
		if i > 0 && edits[i-1].Entry == e.Entry {
			return nil, fmt.Errorf("rewrite: two edits of entry %d", e.Entry)
		}
	}

	out := make([]byte, 0, len(d.src)+64*len(edits))
	out = append(out, d.src[:d.open]...)
	last := -1 // the last entry written
	for i, e := range d.entries {
		var edit Edit
		if len(edits) > 0 && edits[0].Entry == i {
			edit, edits = edits[0], edits[1:]
		}
		if edit.Cut {
			continue
		}
		out = d.appendSeparator(out, last, i)
		out = e.appendTo(out, d.src, edit)
		last = i
	}
	if last >= 0 {
		out = append(out, d.src[d.entries[len(d.entries)-1].value.end:d.close]...)
	}
	out = append(out, d.src[d.close:]...)
	if len(out) > MaxBytes {
		return nil, fmt.Errorf("rewrite: %w: %d bytes, at most %d are accepted", ErrTooLarge, len(out), MaxBytes)
	}
	return out, nil
}

func (e Edit) check(entries int) error {
	switch {
	case e.Entry < 0 || e.Entry >= entries:
		return errors.New("there is no such entry")
	case e.Cut:
		return nil
	case e.Size < 0:
		return fmt.Errorf("negative size %d", e.Size)
	case e.Digest != "" && !ValidDigest(e.Digest):
		return fmt.Errorf("bad digest %s", quote(e.Digest))
	case badMediaType(e.MediaType):
		return fmt.Errorf("bad media type %s", quote(e.MediaType))
	}
	return nil
}

// badMediaType reports what no media type has and JSON would escape.
func badMediaType(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"\<>&`, r) })
}

// appendSeparator writes what stands before entry next if entry last (-1:
// none) is the one before it.
func (d *Document) appendSeparator(out []byte, last, next int) []byte {
	if last < 0 {
		return append(out, d.src[d.open:d.entries[0].value.start]...)
	}
	after, before := d.gap(last), d.gap(next-1)
	out = append(out, after[:strings.IndexByte(after, ',')]...)
	return append(out, before[strings.IndexByte(before, ','):]...)
}

// gap returns what is between entry i and the next: white space and a comma.
func (d *Document) gap(i int) string {
	return d.src[d.entries[i].value.end:d.entries[i+1].value.start]
}

// appendTo writes the entry, with the edit's values in place of its own. All
// three are there, Parse sees to it, in whatever order. With another digest go
// `data` and `urls`, which hold the document that the old one names, or lead to
// it (image-spec "descriptor.md").
func (e entry) appendTo(out []byte, src string, edit Edit) []byte {
	p := patcher{src: e.value.of(src)}
	if edit == (Edit{Entry: edit.Entry}) {
		return append(out, p.src...)
	}
	replace := func(s span, text string) {
		p.replace(span{s.start - e.value.start, s.end - e.value.start}, text)
	}
	if edit.MediaType != "" {
		text, _ := json.Marshal(edit.MediaType) // a string always marshals
		replace(e.mediaType, string(text))
	}
	if edit.Digest != "" {
		replace(e.digest, `"`+edit.Digest+`"`)
		p.cut(p.members(0), []string{"data", "urls"})
	}
	if edit.Size != 0 {
		replace(e.size, strconv.FormatInt(edit.Size, 10))
	}
	return append(out, p.patched()...)
}
