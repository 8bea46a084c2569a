package ocidoc

import (
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"testing"
)

func seed(f *testing.F, add func(b []byte, contentType string)) {
	for _, w := range wireFiles(f) {
		add(w.bytes, w.mediaType)
	}
	for _, s := range []string{
		`{"MANIFESTS":[]}`, `{"manifests":[],"manifests":[]}`, `{"manifests":null}`, `{}`, "\x00", `{"a":"\ud800"}`,
		`{"manifests":[{"size":1,"digest":"` + digestA + `","mediaType":"x"} , {"mediaType":"\u0078","digest":"` + digestA + `","size":0}]}`,
	} {
		add([]byte(s), MediaTypeOCIIndex)
	}
}

// FuzzParse: no panic; what is accepted is what encoding/json reads; what
// encoding/json does not accept is refused; a refusal is ErrInvalid.
func FuzzParse(f *testing.F) {
	seed(f, func(b []byte, contentType string) { f.Add(b, contentType) })
	f.Fuzz(func(t *testing.T, b []byte, contentType string) {
		d, err := Parse(b, contentType)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		if string(d.Bytes) != string(b) {
			t.Fatal("other bytes than were parsed")
		}
		if d.Kind == KindOther {
			return
		}
		if !json.Valid(b) {
			t.Fatal("accepted what is not JSON")
		}
		sameAsEncodingJSON(t, d)
	})
}

var anyDigest = regexp.MustCompile(`sha(256|512):[0-9a-f]+`)

// FuzzRewrite: whatever is cut or replaced, the result parses, has exactly the
// kept entries, and names no digest that was not in the input or the edit.
func FuzzRewrite(f *testing.F) {
	seed(f, func(b []byte, _ string) { f.Add(b, uint64(0b1100), uint64(0b1)) })
	f.Fuzz(func(t *testing.T, b []byte, cut, replace uint64) {
		d, err := Parse(b, MediaTypeOCIIndex)
		if err != nil {
			return
		}
		var edits []Edit
		var want []string
		for i, m := range d.Manifests {
			switch {
			case cut>>(i%64)&1 == 1:
				edits = append(edits, Edit{Entry: i, Cut: true})
				continue
			case replace>>(i%64)&1 == 1:
				edits = append(edits, Edit{Entry: i, MediaType: MediaTypeOCIManifest, Digest: digestB, Size: 42})
				m.Digest = digestB
			}
			want = append(want, m.Digest)
		}
		out, err := d.Rewrite(edits)
		if err != nil {
			if errors.Is(err, ErrTooLarge) {
				return
			}
			t.Fatalf("%v\n%s", err, b)
		}
		again, err := Parse(out, MediaTypeOCIIndex)
		if err != nil {
			t.Fatalf("the result does not parse: %v\n%s", err, out)
		}
		var got []string
		for _, m := range again.Manifests {
			got = append(got, m.Digest)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("entries %v, want %v", got, want)
		}
		known := append(anyDigest.FindAllString(string(b), -1), digestB)
		for _, digest := range anyDigest.FindAllString(string(out), -1) {
			if !slices.Contains(known, digest) {
				t.Fatalf("digest %s out of nowhere", digest)
			}
		}
	})
}
