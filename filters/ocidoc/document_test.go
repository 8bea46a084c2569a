package ocidoc

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// loose is what encoding/json reads of a document: the reader that others use.
type loose struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *looseDescriptor  `json:"config"`
	Subject      *looseDescriptor  `json:"subject"`
	Layers       []looseDescriptor `json:"layers"`
	Manifests    []looseDescriptor `json:"manifests"`
	Annotations  map[string]string `json:"annotations"`
}

type looseDescriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	ArtifactType string            `json:"artifactType"`
	Size         int64             `json:"size"`
	Annotations  map[string]string `json:"annotations"`
	Platform     *struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	} `json:"platform"`
}

func (l looseDescriptor) descriptor() Descriptor {
	d := Descriptor{MediaType: l.MediaType, Digest: l.Digest, ArtifactType: l.ArtifactType, Size: l.Size, Annotations: l.Annotations}
	if l.Platform != nil {
		d.Platform = &Platform{OS: l.Platform.OS, Architecture: l.Platform.Architecture}
	}
	return d
}

// sameAsEncodingJSON fails unless encoding/json sees the same document.
func sameAsEncodingJSON(t interface {
	Helper()
	Fatalf(string, ...any)
}, d *Document,
) {
	t.Helper()
	var l loose
	if err := json.Unmarshal(d.Bytes, &l); err != nil {
		t.Fatalf("encoding/json refuses what Parse accepted: %v\n%s", err, d.Bytes)
	}
	want := Document{BodyMediaType: l.MediaType, ArtifactType: l.ArtifactType, Annotations: l.Annotations}
	if l.Config != nil {
		c := l.Config.descriptor()
		want.Config = &c
	}
	if l.Subject != nil {
		c := l.Subject.descriptor()
		want.Subject = &c
	}
	for _, x := range l.Layers {
		want.Layers = append(want.Layers, x.descriptor())
	}
	for _, x := range l.Manifests {
		want.Manifests = append(want.Manifests, x.descriptor())
	}
	got := Document{
		BodyMediaType: d.BodyMediaType, ArtifactType: d.ArtifactType, Annotations: d.Annotations,
		Config: d.Config, Subject: d.Subject, Layers: d.Layers, Manifests: d.Manifests,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(Document{}), cmpopts.EquateEmpty()); diff != "" {
		t.Fatalf("encoding/json (-) and Parse (+) read different documents:\n%s", diff)
	}
}

func TestGenuineManifestsAndIndexesAreReadAsEncodingJSONReadsThem(t *testing.T) {
	known := 0
	for _, w := range wireFiles(t) {
		d, err := Parse(w.bytes, w.mediaType)
		if err != nil {
			t.Errorf("%s %s: %v", w.folder, w.role, err)
			continue
		}
		if d.Digest() != w.digest {
			t.Errorf("%s: digest %s, want %s", w.folder, d.Digest(), w.digest)
		}
		if d.Kind == KindOther {
			continue
		}
		known++
		sameAsEncodingJSON(t, d)
		if d.Kind == KindManifest && (d.Config == nil || len(d.Layers) == 0) || d.Kind == KindIndex && len(d.Manifests) == 0 {
			t.Errorf("%s %s: an empty %s", w.folder, w.role, d.Kind)
		}
	}
	if known < 60 {
		t.Errorf("only %d manifests and indexes among the wire documents", known)
	}
}

func TestParse(t *testing.T) {
	desc := func(more string) string {
		return fmt.Sprintf(`{"mediaType":"application/x","digest":%q,"size":1%s}`, digestA, more)
	}
	index := func(more string) string { return `{"schemaVersion":2,"manifests":[` + desc("") + `]` + more + `}` }
	deep := func(n int) string {
		return `{"x":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + `,"manifests":[]}`
	}
	for _, tc := range []struct {
		name        string
		contentType string
		body        string
		refused     string // part of the message; "" = accepted
		kind        Kind   // if accepted
	}{
		{"an index", MediaTypeOCIIndex, index(""), "", KindIndex},
		{"a manifest list", MediaTypeDockerList, index(""), "", KindIndex},
		{"white space around the value", MediaTypeOCIIndex, " \r\n\t" + index("") + "\n", "", KindIndex},
		{"a Content-Type with parameters in upper case", "Application/vnd.OCI.image.index.v1+json; charset=utf-8", index(""), "", KindIndex},
		{"unknown fields of any shape", MediaTypeOCIIndex, index(`,"x":[{"digest":7,"DIGEST":[]},-0.5e+3,1E5,2e5,7E-10,true,null,"\u00e9\n"]`), "", KindIndex},
		{"unknown fields of an entry", MediaTypeOCIIndex, `{"manifests":[` + desc(`,"urls":["u"],"data":"e30=","platform":{"os":"linux","architecture":"arm64","variant":"v8","features":[]}`) + `]}`, "", KindIndex},
		{"null for optional fields", MediaTypeOCIIndex, `{"manifests":null,"subject":null,"annotations":null,"artifactType":null,"config":null,"layers":null,"mediaType":null}`, "", KindIndex},
		{"null for optional fields of an entry", MediaTypeOCIIndex, `{"manifests":[` + desc(`,"platform":null,"annotations":null,"artifactType":null`) + `]}`, "", KindIndex},
		{"an annotation that is null", MediaTypeOCIIndex, index(`,"annotations":{"a":null,"b":"c"}`), "", KindIndex},
		{"annotations that differ only in case", MediaTypeOCIIndex, index(`,"annotations":{"a":"1","A":"2"}`), "", KindIndex},
		{"a manifest without layers", MediaTypeOCIManifest, `{"config":` + desc("") + `,"layers":null}`, "", KindManifest},
		{"a sha512 digest", MediaTypeOCIManifest, `{"config":{"mediaType":"x","size":0,"digest":"sha512:` + strings.Repeat("0", 128) + `"}}`, "", KindManifest},
		{"every escape, whole and half surrogate pairs", MediaTypeOCIIndex, index(`,"annotations":{"\"\\\/\b\f\n\r\t":"\u00e9\u20AC\ud83d\ude00","a":"\ud83d","b":"\ude00\ud83d","c":"\ud83dx","d":"\ud83d\u0041","e":"\ud83d\n\ud83d\ud83d\ude00\u0000"}`), "", KindIndex},
		{"an escaped name", MediaTypeOCIIndex, strings.Replace(index(""), "manifests", `\u006danifests`, 1), "", KindIndex},
		{"as deep as allowed", MediaTypeOCIIndex, deep(MaxDepth), "", KindIndex},

		{"schema 1 is opaque", "application/vnd.docker.distribution.manifest.v1+prettyjws", `{"fsLayers":[],"fsLayers":[]}`, "", KindOther},
		{"an unknown type is opaque, whatever is in it", "application/vnd.example+json", "\xff{{", "", KindOther},
		{"JSON of unknown body type", "application/json", `{"mediaType":"application/vnd.example","config":1}`, "", KindOther},
		{"JSON without a body type", "", index(""), "", KindOther},
		{"no type and no JSON", "", "hello", "", KindOther},
		{"no type and nothing", "", "", "", KindOther},
		{"the body's type counts when the request has none", "", index(`,"mediaType":"` + MediaTypeOCIIndex + `"`), "", KindIndex},
		{"the body's type counts when the request says JSON", "application/json; charset=utf-8", index(`,"mediaType":"` + MediaTypeDockerList + `"`), "", KindIndex},

		{"a body type twice when the request has none", "", index(`,"mediaType":"a","mediaType":"` + MediaTypeOCIIndex + `"`), "twice", 0},
		{"a body type in upper case when the request has none", "", index(`,"MediaType":"` + MediaTypeOCIIndex + `"`), "only in case", 0},
		{"no type and half a JSON", "", `{"mediaType":"x"`, "ends where", 0},
		{"nothing", MediaTypeOCIIndex, "", "ends where an object", 0},
		{"no object", MediaTypeOCIIndex, "[]", "where an object", 0},
		{"null", MediaTypeOCIIndex, "null", "where an object", 0},
		{"half", MediaTypeOCIIndex, index("")[:50], "ends where", 0},
		{"trailing bytes", MediaTypeOCIIndex, index("") + "{}", "more bytes", 0},
		{"a trailing NUL", MediaTypeOCIIndex, index("") + "\x00", "more bytes", 0},
		{"a byte order mark", MediaTypeOCIIndex, "\xef\xbb\xbf" + index(""), "where an object", 0},
		{"invalid UTF-8", MediaTypeOCIIndex, index(",\"\xff\":1"), "UTF-8", 0},
		{"manifests twice", MediaTypeOCIIndex, index(`,"manifests":[]`), `"manifests" is twice`, 0},
		{"manifests twice, once escaped", MediaTypeOCIIndex, index(`,"m\u0061nifests":[]`), `"manifests" is twice`, 0},
		{"MANIFESTS as well", MediaTypeOCIIndex, index(`,"MANIFESTS":[]`), "only in case", 0},
		{"MANIFESTS alone", MediaTypeOCIIndex, `{"MANIFESTS":[]}`, "only in case", 0},
		{"manifeſts with a long s, which Go folds", MediaTypeOCIIndex, index(`,"manifeſts":[]`), "only in case", 0},
		{"Digest in an entry", MediaTypeOCIIndex, `{"manifests":[` + desc(`,"Digest":"x"`) + `]}`, "only in case", 0},
		{"OS in a platform", MediaTypeOCIIndex, `{"manifests":[` + desc(`,"platform":{"OS":"unknown"}`) + `]}`, "only in case", 0},
		{"an annotation twice", MediaTypeOCIIndex, index(`,"annotations":{"a":"1","a":"2"}`), "twice", 0},
		{"an unknown field twice deep inside", MediaTypeOCIIndex, index(`,"x":[[{"y":{"a":1,"b":2,"a":3}}]]`), "twice", 0},
		{"one of many names twice", MediaTypeOCIIndex, index(`,"x":{` + manyNames(1000) + `,"n500":0}`), `"n500" is twice`, 0},
		{"too deep", MediaTypeOCIIndex, deep(MaxDepth + 1), "nested more than", 0},
		{"far too deep", MediaTypeOCIIndex, strings.Repeat("[", MaxBytes), "where an object", 0},
		{"far too deep inside", MediaTypeOCIIndex, `{"x":` + strings.Repeat("[", MaxBytes-100), "nested more than", 0},
		{"an index with layers", MediaTypeOCIIndex, index(`,"layers":[]`), "readers would disagree", 0},
		{"an index with a config", MediaTypeOCIIndex, index(`,"config":{}`), "readers would disagree", 0},
		{"a manifest with manifests", MediaTypeOCIManifest, `{"layers":[],"manifests":[]}`, "readers would disagree", 0},
		{"a manifest that says it is an index", MediaTypeOCIManifest, `{"mediaType":"` + MediaTypeOCIIndex + `"}`, "but it was sent as", 0},
		{"a negative size", MediaTypeOCIIndex, strings.Replace(index(""), `"size":1`, `"size":-1`, 1), "not a number of bytes", 0},
		{"a size with a fraction", MediaTypeOCIIndex, strings.Replace(index(""), `"size":1`, `"size":1.0`, 1), "not a number of bytes", 0},
		{"a size beyond int64", MediaTypeOCIIndex, strings.Replace(index(""), `"size":1`, `"size":9223372036854775808`, 1), "not a number of bytes", 0},
		{"a size as a string", MediaTypeOCIIndex, strings.Replace(index(""), `"size":1`, `"size":"1"`, 1), "a number of bytes should be", 0},
		{"a size with a leading zero", MediaTypeOCIIndex, strings.Replace(index(""), `"size":1`, `"size":01`, 1), "comma", 0},
		{"no size", MediaTypeOCIIndex, strings.Replace(index(""), `,"size":1`, ``, 1), "without size", 0},
		{"a null size", MediaTypeOCIIndex, strings.Replace(index(""), `"size":1`, `"size":null`, 1), "a number of bytes should be", 0},
		{"no mediaType in an entry", MediaTypeOCIIndex, strings.Replace(index(""), `"mediaType":"application/x",`, ``, 1), "without mediaType", 0},
		{"no digest", MediaTypeOCIIndex, `{"manifests":[{"mediaType":"x","size":1}]}`, `the digest ""`, 0},
		{"a short digest", MediaTypeOCIIndex, strings.Replace(index(""), digestA, digestA[:70], 1), "the digest", 0},
		{"an upper-case digest", MediaTypeOCIIndex, strings.Replace(index(""), digestA, strings.ToUpper(digestA), 1), "the digest", 0},
		{"a digest that climbs", MediaTypeOCIIndex, strings.Replace(index(""), digestA, "sha256:../../../etc/passwd", 1), "the digest", 0},
		{"a null entry", MediaTypeOCIIndex, `{"manifests":[null]}`, "where an object", 0},
		{"manifests as an object", MediaTypeOCIIndex, `{"manifests":{}}`, "where an array", 0},
		{"a number as annotation", MediaTypeOCIIndex, index(`,"annotations":{"a":1}`), "where a string", 0},
		{"a number as artifactType", MediaTypeOCIIndex, index(`,"artifactType":1`), "where a string", 0},
		{"a control character in a string", MediaTypeOCIIndex, index(",\"x\":\"\n\""), "control character", 0},
		{"an unknown escape", MediaTypeOCIIndex, index(`,"x":"\x"`), "an escape", 0},
		{"a short \\u", MediaTypeOCIIndex, index(`,"x":"\u12g4"`), "hexadecimal", 0},
		{"a bare word", MediaTypeOCIIndex, index(`,"x":NaN`), "a JSON value", 0},
		{"a comma too many", MediaTypeOCIIndex, index(`,`), "where a string", 0},
		{"a comment", MediaTypeOCIIndex, "/**/" + index(""), "where an object", 0},
		{"a number without digits", MediaTypeOCIIndex, index(`,"x":-`), "a digit", 0},
		{"a number that ends with a point", MediaTypeOCIIndex, index(`,"x":1.`), "a digit", 0},
		{"an exponent without digits", MediaTypeOCIIndex, index(`,"x":1e`), "a digit", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, err := Parse([]byte(tc.body), tc.contentType)
			if tc.refused != "" {
				if !errors.Is(err, ErrInvalid) || errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), tc.refused) {
					t.Fatalf("error %v, want ErrInvalid and %q", err, tc.refused)
				}
				if len(err.Error()) > 600 {
					t.Errorf("an error of %d bytes", len(err.Error()))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Kind != tc.kind || string(d.Bytes) != tc.body {
				t.Fatalf("read as %s, want %s; same bytes: %v", d.Kind, tc.kind, string(d.Bytes) == tc.body)
			}
			if d.Kind != KindOther {
				sameAsEncodingJSON(t, d)
			}
		})
	}
}

func manyNames(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf(`"n%d":0`, i)
	}
	return strings.Join(names, ",")
}

func TestADocumentOverTheLimitIsRefusedWhateverItsType(t *testing.T) {
	for _, contentType := range []string{MediaTypeOCIIndex, "application/vnd.example", ""} {
		body := []byte(`{"manifests":[]}` + strings.Repeat(" ", MaxBytes))
		if _, err := Parse(body, contentType); !errors.Is(err, ErrInvalid) || !errors.Is(err, ErrTooLarge) {
			t.Errorf("%q: error %v, want ErrTooLarge", contentType, err)
		}
		if _, err := Parse(body[:MaxBytes], contentType); err != nil {
			t.Errorf("%q with exactly MaxBytes: %v", contentType, err)
		}
	}
}

// hostile are documents of at most size bytes made of as many of something as
// fit. Parse accepts them all.
func hostile(size int) map[string][]byte {
	fill := func(before, unit, after string) []byte {
		n := (size - len(before) - len(after)) / (len(unit) + 1)
		return []byte(before + strings.TrimSuffix(strings.Repeat(unit+",", n), ",") + after)
	}
	names := func(before, escape, value, after string) []byte {
		b := []byte(before)
		for i := 0; len(b) < size-len(after)-20; i++ {
			b = fmt.Appendf(b, `"%s%x":%s,`, escape, i, value)
		}
		return append(b, `"last":`+value+after...)
	}
	return map[string][]byte{
		"entries":            fill(`{"manifests":[`, `{"mediaType":"`+MediaTypeOCIManifest+`","digest":"`+digestA+`","size":1}`, `]}`),
		"smallest entries":   fill(`{"manifests":[`, `{"mediaType":"x","digest":"`+digestA+`","size":1}`, `]}`),
		"annotated entries":  fill(`{"manifests":[`, `{"mediaType":"x","digest":"`+digestA+`","size":1,"annotations":{"":""},"platform":{}}`, `]}`),
		"numbers":            fill(`{"manifests":[],"x":[`, `1`, `]}`),
		"empty objects":      fill(`{"manifests":[],"x":[`, `{}`, `]}`),
		"names":              names(`{"manifests":[],"x":{`, ``, `0`, `}}`),
		"escaped names":      names(`{"manifests":[],"x":{`, `\n`, `0`, `}}`),
		"names of the index": names(`{"manifests":[],`, ``, `0`, `}`),
		"annotations":        names(`{"manifests":[],"annotations":{`, `\t`, `"\n"`, `}}`),
	}
}

func TestHostileDocumentsCostLittleMemory(t *testing.T) {
	const size = 1 << 20 // time and memory are linear; BenchmarkParse has the largest
	for name, body := range hostile(size) {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(body, MediaTypeOCIIndex)
			runtime.ReadMemStats(&after)
			if err != nil || len(body) > size || len(body) < size-1000 {
				t.Fatalf("%d bytes: %v", len(body), err)
			}
			perRun := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d bytes: %d MiB allocated", len(body), perRun>>20)
			if perRun > 32*size {
				t.Errorf("%d bytes allocated for a document of %d", perRun, len(body))
			}
		})
	}
}

// Nesting as deep as fits is refused where it gets too deep, not when it has been followed to its end.
func TestTheDeepestNestingCostsLittle(t *testing.T) {
	for name, body := range map[string]string{
		"arrays":            `{"manifests":[],"x":` + strings.Repeat("[", MaxBytes-100),
		"objects":           `{"manifests":[],"x":` + strings.Repeat(`{"a":`, MaxBytes/5-100),
		"closed":            `{"manifests":[],"x":` + strings.Repeat("[", MaxBytes/2-100) + strings.Repeat("]", MaxBytes/2-100) + `}`,
		"inside of entries": `{"manifests":` + strings.Repeat(`[{"platform":`, MaxBytes/13-100),
		"annotations":       `{"manifests":[],"annotations":{"a":` + strings.Repeat("[", MaxBytes-100),
	} {
		t.Run(name, func(t *testing.T) {
			sent := []byte(body)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(sent, MediaTypeOCIIndex)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("error %v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > uint64(len(body))+1<<20 { // one copy of it
				t.Errorf("%d bytes allocated for %d", n, len(body))
			}
		})
	}
}

func TestValidDigest(t *testing.T) {
	for s, want := range map[string]bool{
		digestA: true,
		"sha512:" + strings.Repeat("0123456789abcdef", 8): true,
		"":                                   false,
		"sha256":                             false,
		"sha256:":                            false,
		strings.ToUpper(digestA):             false,
		digestA + "0":                        false,
		digestA[:len(digestA)-1]:             false,
		digestA[:len(digestA)-1] + "g":       false,
		"sha512:" + digestA[7:]:              false,
		"sha512:" + strings.Repeat("/", 128): false,
		"sha512:" + strings.Repeat("A", 128): false,
		"md5:d41d8cd98f00b204e9800998ecf":    false,
		digestA + "\n":                       false,
		"sha256:" + strings.Repeat("/", 64):  false,
	} {
		if ValidDigest(s) != want {
			t.Errorf("ValidDigest(%q) = %v", s, !want)
		}
	}
}

func TestRawLayersAreTheBytesOfTheList(t *testing.T) {
	list := "[ {\"mediaType\":\"x\", \"digest\":\"" + digestA + "\", \"size\":1}\n]"
	d, err := Parse([]byte(`{"layers": `+list+` }`), MediaTypeOCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(d.RawLayers()); got != list {
		t.Errorf("got %q, want %q", got, list)
	}
	for _, body := range []string{`{}`, `{"layers":null}`} {
		if d, err = Parse([]byte(body), MediaTypeOCIManifest); err != nil || d.RawLayers() != nil {
			t.Errorf("%s: %q, %v, want none", body, d.RawLayers(), err)
		}
	}
}
