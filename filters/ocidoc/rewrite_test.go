package ocidoc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRewriteKeepsTheFormattingOfWhatIsLeft(t *testing.T) {
	entry := func(digest string) string { return `{"mediaType":"x","digest":"` + digest + `","size":1}` }
	a, b, c := entry(digestA), entry(digestB), entry("sha256:"+strings.Repeat("c", 64))
	for _, tc := range []struct {
		name, before string
		cut          []int
		after        string
	}{
		{"the first of a compact list", `{"manifests":[` + a + `,` + b + `]}`, []int{0}, `{"manifests":[` + b + `]}`},
		{"the last of a compact list", `{"manifests":[` + a + `,` + b + `]}`, []int{1}, `{"manifests":[` + a + `]}`},
		{"the middle", `{"manifests":[` + a + `,` + b + `,` + c + `]}`, []int{1}, `{"manifests":[` + a + `,` + c + `]}`},
		{"all but the middle", "{\"manifests\": [\n " + a + ",\n " + b + ",\n " + c + "\n]}", []int{2, 0}, "{\"manifests\": [\n " + b + "\n]}"},
		{"all", "{\"manifests\": [\n " + a + ",\n " + b + "\n] }\n", []int{0, 1}, "{\"manifests\": [] }\n"},
		{"the first of a list that opens differently", `{"manifests":[` + a + `, ` + b + `, ` + c + ` ]}`, []int{0}, `{"manifests":[` + b + `, ` + c + ` ]}`},
		{"commas in front", "{\"manifests\":[ " + a + "\n, " + b + "\n, " + c + "\n]}", []int{1}, "{\"manifests\":[ " + a + "\n, " + c + "\n]}"},
		{"what else there is", `{"x":"]","manifests":[` + a + `,` + b + `] , "y" : {"manifests":[1,2]}}`, []int{1}, `{"x":"]","manifests":[` + a + `] , "y" : {"manifests":[1,2]}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := mustParse(t, []byte(tc.before))
			var edits []Edit
			for _, i := range tc.cut {
				edits = append(edits, Edit{Entry: i, Cut: true})
			}
			got, err := d.Rewrite(edits)
			if err != nil || string(got) != tc.after {
				t.Fatalf("got  %s, %v\nwant %s", got, err, tc.after)
			}
			if string(d.Bytes) != tc.before {
				t.Error("the document itself changed")
			}
		})
	}
}

func TestRewriteReplacesValuesWhereTheyAre(t *testing.T) {
	d := mustParse(t, []byte(`{"manifests":[{ "size" : 10, "x":{"size":10}, "digest":"`+digestA+`" , "mediaType":"application\/x"},{"mediaType":"y","digest":"`+digestA+`","size":1}]}`))
	for _, tc := range []struct {
		name string
		edit Edit
		want string
	}{
		{"all three", Edit{MediaType: "application/z+json", Digest: digestB, Size: 12345}, `{ "size" : 12345, "x":{"size":10}, "digest":"` + digestB + `" , "mediaType":"application/z+json"}`},
		{"the digest alone", Edit{Digest: digestB}, `{ "size" : 10, "x":{"size":10}, "digest":"` + digestB + `" , "mediaType":"application\/x"}`},
		{"nothing", Edit{}, `{ "size" : 10, "x":{"size":10}, "digest":"` + digestA + `" , "mediaType":"application\/x"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := d.Rewrite([]Edit{tc.edit, {Entry: 1, Cut: true}})
			if want := `{"manifests":[` + tc.want + `]}`; err != nil || string(got) != want {
				t.Errorf("got  %s, %v\nwant %s", got, err, want)
			}
		})
	}
}

// What an entry carries of the old document, or says of where to get it, is not about the new one.
func TestAnEntryWithAnotherDigestLosesTheEmbeddedDocument(t *testing.T) {
	d := mustParse(t, []byte(`{"manifests":[{"data" : "e30=" ,"digest":"`+digestA+`" , "urls":["u"],"mediaType":"x","size":2}]}`))
	for edit, want := range map[Edit]string{
		{Digest: digestB, Size: 3}: `{"digest":"` + digestB + `" ,"mediaType":"x","size":3}`,
		{Size: 3}:                  `{"data" : "e30=" ,"digest":"` + digestA + `" , "urls":["u"],"mediaType":"x","size":3}`,
	} {
		if got := string(mustRewrite(t, d, []Edit{edit})); got != `{"manifests":[`+want+`]}` {
			t.Errorf("%+v: got  %s\nwant the entry %s", edit, got, want)
		}
	}
}

func TestRewriteRefusesEditsThatMakeNoSense(t *testing.T) {
	index := mustParse(t, []byte(`{"manifests":[{"mediaType":"x","digest":"`+digestA+`","size":1}]}`))
	manifest, err := Parse([]byte(`{}`), MediaTypeOCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		d     *Document
		edits []Edit
		want  string
	}{
		{"of a manifest", manifest, []Edit{{Cut: true}}, "no index"},
		{"beyond the list", index, []Edit{{Entry: 1, Cut: true}}, "no such entry"},
		{"before the list", index, []Edit{{Entry: -1, Cut: true}}, "no such entry"},
		{"twice", index, []Edit{{Cut: true}, {Digest: digestB}}, "two edits"},
		{"a bad digest", index, []Edit{{Digest: `sha256:"`}}, "bad digest"},
		{"a bad media type", index, []Edit{{MediaType: `a"b`}}, "bad media type"},
		{"a negative size", index, []Edit{{Size: -1}}, "negative"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, err := tc.d.Rewrite(tc.edits); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s, %v, want error %q", got, err, tc.want)
			}
		})
	}
	if got, err := manifest.Rewrite(nil); err != nil || string(got) != `{}` {
		t.Errorf("no edits: %s, %v, want the bytes as they are", got, err)
	}
}

// refIndex is an index as a client would marshal it, with fields unknown here.
type refIndex struct {
	SchemaVersion int               `json:"schemaVersion"`
	Before        json.RawMessage   `json:"x-before,omitempty"`
	MediaType     string            `json:"mediaType,omitempty"`
	Manifests     []refEntry        `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	After         json.RawMessage   `json:"x-after,omitempty"`
}

type refEntry struct {
	MediaType   string            `json:"mediaType"`
	Unknown     json.RawMessage   `json:"x-unknown,omitempty"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	URLs        []string          `json:"urls,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Data        []byte            `json:"data,omitempty"`
	Platform    map[string]any    `json:"platform,omitempty"`
}

var (
	genUnknown = rapid.Map(rapid.SampledFrom([]string{
		"", "1", `"]},{\""`, `[{"digest":"x","manifests":[{}]},[]]`, `{"manifests":[1,2],"a":{"b":[]}}`, "null", "-1.5e9",
	}), func(s string) json.RawMessage { return json.RawMessage(s) })
	genDigest = rapid.Map(rapid.SliceOfN(rapid.Byte(), 32, 32), func(b []byte) string { return DigestOf(b) })
	genText   = rapid.StringMatching(`[a-z<>&"\\\x{e9}\x{1F600}\n ]{0,6}`)
	genNotes  = rapid.MapOfN(genText, genText, 0, 3)
	genEntry  = rapid.Custom(func(t *rapid.T) refEntry {
		e := refEntry{
			MediaType:   rapid.SampledFrom([]string{MediaTypeOCIManifest, MediaTypeOCIIndex, MediaTypeDockerManifest, "application/x"}).Draw(t, "mediaType"),
			Unknown:     genUnknown.Draw(t, "unknown"),
			Digest:      genDigest.Draw(t, "digest"),
			Size:        rapid.Int64Min(0).Draw(t, "size"),
			URLs:        rapid.SampledFrom([][]string{nil, nil, {"https://example.com/a"}}).Draw(t, "urls"),
			Annotations: genNotes.Draw(t, "annotations"),
			Data:        rapid.SampledFrom([][]byte{nil, nil, []byte("{}")}).Draw(t, "data"),
		}
		if rapid.Bool().Draw(t, "has platform") {
			e.Platform = map[string]any{"os": genText.Draw(t, "os"), "architecture": genText.Draw(t, "arch"), "features": []string{"a"}}
		}
		return e
	})
	genIndex = rapid.Custom(func(t *rapid.T) refIndex {
		return refIndex{
			SchemaVersion: 2,
			Before:        genUnknown.Draw(t, "before"),
			MediaType:     rapid.SampledFrom([]string{"", MediaTypeOCIIndex}).Draw(t, "mediaType"),
			Manifests:     rapid.SliceOfN(genEntry, 0, 6).Draw(t, "manifests"),
			Annotations:   genNotes.Draw(t, "annotations"),
			After:         genUnknown.Draw(t, "after"),
		}
	})
	// genMarshal draws one of the ways in which Go programs write JSON.
	genMarshal = rapid.Custom(func(t *rapid.T) func(any) []byte {
		prefix := rapid.SampledFrom([]string{"", "", "  ", "\t"}).Draw(t, "prefix")
		indent := rapid.SampledFrom([]string{"compact", "  ", "   ", "\t", ""}).Draw(t, "indent")
		return func(v any) []byte {
			b, err := json.Marshal(v)
			if indent != "compact" {
				b, err = json.MarshalIndent(v, prefix, indent)
			}
			if err != nil {
				panic(err) // a bug of the test
			}
			return b
		}
	})
)

type fataler interface {
	Helper()
	Fatalf(string, ...any)
}

func mustParse(t fataler, b []byte) *Document {
	t.Helper()
	d, err := Parse(b, MediaTypeOCIIndex)
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return d
}

func mustRewrite(t fataler, d *Document, edits []Edit) []byte {
	t.Helper()
	b, err := d.Rewrite(edits)
	if err != nil {
		t.Fatalf("%v\n%s", err, d.Bytes)
	}
	return b
}

// drawEdits returns random edits and the index as it should be after them.
func drawEdits(t *rapid.T, index refIndex) ([]Edit, refIndex) {
	var edits []Edit
	after := index
	after.Manifests = []refEntry{}
	for i, e := range index.Manifests {
		switch rapid.SampledFrom([]string{"keep", "cut", "cut", "replace"}).Draw(t, fmt.Sprint("entry", i)) {
		case "cut":
			edits = append(edits, Edit{Entry: i, Cut: true})
			continue
		case "replace":
			edit := Edit{Entry: i}
			if rapid.Bool().Draw(t, "type") {
				edit.MediaType = MediaTypeOCIManifest
				e.MediaType = edit.MediaType
			}
			if rapid.Bool().Draw(t, "size") {
				edit.Size = rapid.Int64Min(1).Draw(t, "new size")
				e.Size = edit.Size
			}
			edit.Digest = genDigest.Draw(t, "new digest")
			e.Digest, e.Data, e.URLs = edit.Digest, nil, nil
			edits = append(edits, edit)
		}
		after.Manifests = append(after.Manifests, e)
	}
	return rapid.Permutation(edits).Draw(t, "order of the edits"), after
}

func TestCuttingEqualsMarshallingTheShorterIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index, marshal := genIndex.Draw(t, "index"), genMarshal.Draw(t, "marshal")
		edits, after := drawEdits(t, index)
		d := mustParse(t, marshal(index))
		sameAsEncodingJSON(t, d)
		if got, want := mustRewrite(t, d, edits), marshal(after); !bytes.Equal(got, want) {
			t.Fatalf("edits %+v\ngot\n%s\nwant\n%s", edits, got, want)
		}
	})
}

func TestWhatIsCutParsesAgainWithExactlyTheEntriesThatWereKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index, marshal := genIndex.Draw(t, "index"), genMarshal.Draw(t, "marshal")
		edits, after := drawEdits(t, index)
		again := mustParse(t, mustRewrite(t, mustParse(t, respace(t, marshal(index))), edits))
		var got, want []string
		for _, m := range again.Manifests {
			got = append(got, m.Digest)
		}
		for _, m := range after.Manifests {
			want = append(want, m.Digest)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestCuttingInStepsEqualsCuttingAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		index := genIndex.Draw(t, "index")
		d := mustParse(t, respace(t, genMarshal.Draw(t, "marshal")(index)))
		var all []Edit
		for i := range index.Manifests {
			if rapid.Bool().Draw(t, "cut") {
				all = append(all, Edit{Entry: i, Cut: true})
			}
		}
		stepwise := d
		for _, e := range slices.Backward(all) { // from the end, so that numbers stay
			stepwise = mustParse(t, mustRewrite(t, stepwise, []Edit{e}))
		}
		if got, want := stepwise.Bytes, mustRewrite(t, d, all); !bytes.Equal(got, want) {
			t.Fatalf("one by one\n%s\nat once\n%s", got, want)
		}
	})
}

// respace replaces the white space of a document by other white space.
func respace(t *rapid.T, b []byte) []byte {
	var compact bytes.Buffer
	if err := json.Compact(&compact, b); err != nil {
		t.Fatalf("%v", err)
	}
	rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "spaces"), 1))
	space := func() string { return strings.Repeat([]string{" ", "\n", "\t", "\r\n"}[rnd.IntN(4)], rnd.IntN(3)) }
	var out strings.Builder
	inString, escaped := false, false
	for _, c := range compact.Bytes() {
		structural := !inString && strings.IndexByte("[]{},:", c) >= 0
		if structural {
			out.WriteString(space())
		}
		out.WriteByte(c)
		if structural {
			out.WriteString(space())
		}
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		}
	}
	return []byte(out.String())
}
