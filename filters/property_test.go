package filters

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"sluice/filters/ocidoc"
)

// push is a random index, what its entries are, and what was forwarded of the
// nested ones.
type push struct {
	entries  []pushEntry
	children map[string]*ocidoc.Document
	inner    map[string]Inner
	marshal  func([]json.RawMessage) []byte
}

type pushEntry struct {
	kind    string
	digest  string
	written json.RawMessage // as pushed
	want    json.RawMessage // as it should be forwarded; nil = cut
}

func genPush(t *rapid.T) push {
	att, err := ocidoc.Parse([]byte(manifest("", imageConfig, "", inToto)), ocidoc.MediaTypeOCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	img, err := ocidoc.Parse([]byte(manifest("", imageConfig, "", tarLayer)), ocidoc.MediaTypeOCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	p := push{children: map[string]*ocidoc.Document{}, inner: map[string]Inner{}}
	for i := range rapid.IntRange(0, 7).Draw(t, "entries") {
		digest := ocidoc.DigestOf([]byte{byte(i)})
		kind := rapid.SampledFrom([]string{"image", "attestation", "attestation", "mislabelled", "blob", "nested", "emptied"}).Draw(t, "kind")
		type platform struct {
			Architecture string `json:"architecture"`
			OS           string `json:"os"`
		}
		desc := struct {
			MediaType   string            `json:"mediaType"`
			Digest      string            `json:"digest"`
			Size        int64             `json:"size"`
			Annotations map[string]string `json:"annotations,omitempty"`
			Platform    *platform         `json:"platform,omitempty"`
		}{MediaType: ocidoc.MediaTypeOCIManifest, Digest: digest, Size: rapid.Int64Min(1).Draw(t, "size")}
		switch kind {
		case "image":
			desc.Platform = &platform{"amd64", "linux"}
		case "attestation", "mislabelled":
			desc.Platform = &platform{"unknown", "unknown"}
			if rapid.Bool().Draw(t, "annotated") {
				desc.Annotations = map[string]string{AnnotationReferenceType: "attestation-manifest", AnnotationReferenceDigest: digestA}
			}
			p.children[digest] = att
			if kind == "mislabelled" {
				p.children[digest] = img
			}
		case "blob":
			desc.MediaType = tarLayer
		case "nested":
			desc.MediaType = ocidoc.MediaTypeOCIIndex
			p.inner[digest] = Inner{MediaType: ocidoc.MediaTypeOCIIndex, Digest: ocidoc.DigestOf([]byte{1, byte(i)}), Size: 1 + int64(i)}
		case "emptied":
			desc.MediaType = ocidoc.MediaTypeOCIIndex
			p.inner[digest] = Inner{}
		}
		e := pushEntry{kind: kind, digest: digest}
		e.written, _ = json.Marshal(desc)
		switch kind {
		case "attestation", "emptied":
		case "nested":
			desc.Digest, desc.Size = p.inner[digest].Digest, p.inner[digest].Size
			fallthrough
		default:
			e.want, _ = json.Marshal(desc)
		}
		p.entries = append(p.entries, e)
	}
	compact := rapid.Bool().Draw(t, "compact")
	p.marshal = func(entries []json.RawMessage) []byte {
		index := map[string]any{"schemaVersion": 2, "manifests": entries, "x-unknown": []int{1}}
		b, err := json.Marshal(index)
		if !compact {
			b, err = json.MarshalIndent(index, "", "   ")
		}
		if err != nil {
			panic(err) // a bug of the test
		}
		return b
	}
	return p
}

func (p push) original() []byte {
	entries := []json.RawMessage{}
	for _, e := range p.entries {
		entries = append(entries, e.written)
	}
	return p.marshal(entries)
}

func (p push) forwarded() []byte {
	entries := []json.RawMessage{}
	for _, e := range p.entries {
		if e.want != nil {
			entries = append(entries, e.want)
		}
	}
	return p.marshal(entries)
}

var anyDigest = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

func TestARewriteIsTheIndexMarshalledWithoutWhatWasTaken(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := genPush(t)
		p.entries = rapid.Permutation(p.entries).Draw(t, "order")
		index, err := ocidoc.Parse(p.original(), ocidoc.MediaTypeOCIIndex)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Rewrite(index, p.children, p.inner, Policy{Attestations: Store, Unwrap: UnwrapNever})
		if err != nil {
			t.Fatal(err)
		}
		left := slices.ContainsFunc(p.entries, func(e pushEntry) bool { return e.want != nil })
		if want := !left && len(p.entries) > 0; plan.Empty != want {
			t.Fatalf("empty %v, want %v", plan.Empty, want)
		}
		if plan.Empty {
			return
		}
		if string(plan.Bytes) != string(p.forwarded()) {
			t.Fatalf("got\n%s\nwant\n%s", plan.Bytes, p.forwarded())
		}
		if plan.Changed != (string(plan.Bytes) != string(index.Bytes)) {
			t.Fatalf("changed %v", plan.Changed)
		}
		known := anyDigest.FindAllString(string(index.Bytes), -1)
		for _, in := range p.inner {
			known = append(known, in.Digest)
		}
		for _, d := range anyDigest.FindAllString(string(plan.Bytes), -1) {
			if !slices.Contains(known, d) {
				t.Fatalf("digest %s out of nowhere", d)
			}
		}
		for _, x := range plan.Taken {
			if slices.Contains(anyDigest.FindAllString(string(plan.Bytes), -1), x.Entry.Digest) {
				t.Fatalf("%s was taken and is still there", x.Entry.Digest)
			}
		}
		again, err := ocidoc.Parse(plan.Bytes, plan.MediaType)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(again.Manifests, plan.Kept, func(a, b ocidoc.Descriptor) bool {
			return a.Digest == b.Digest && a.Size == b.Size && a.MediaType == b.MediaType
		}) {
			t.Fatalf("kept %v, forwarded %v", plan.Kept, again.Manifests)
		}
	})
}

func TestPeekDecidesTheSameHoweverABlobIsCutIntoChunks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		b := []byte(rapid.SampledFrom(append(slices.Clone(heldList()), "{}", "{", "", `{"architecture":"amd64"`)).Draw(rt, "begin"))
		b = b[:rapid.IntRange(0, len(b)).Draw(rt, "cut")]
		b = append(b, rapid.SliceOfN(rapid.Byte(), 0, 50).Draw(rt, "rest")...)
		checkPeek(t, b)
	})
}

func heldList() []string {
	h := held()
	return h[:]
}

// FuzzRewrite: whatever the index, a rewrite parses again, lists exactly what
// was kept, and names nothing that was taken.
func FuzzRewrite(f *testing.F) {
	all := scenarios(f)
	children := map[string]*ocidoc.Document{}
	for _, s := range all {
		for digest, d := range s.docs {
			f.Add(d.Bytes, d.ContentType, uint8(0))
			f.Add(d.Bytes, d.ContentType, uint8(7))
			if d.Kind == ocidoc.KindManifest {
				children[digest] = d
			}
		}
	}
	forwarded := Inner{MediaType: ocidoc.MediaTypeOCIManifest, Digest: digestC, Size: 9}
	f.Fuzz(func(t *testing.T, b []byte, contentType string, choice uint8) {
		index, err := ocidoc.Parse(b, contentType)
		if err != nil {
			return
		}
		p := Policy{
			Attestations: []Action{Store, Strip, Forward}[choice%3],
			Unwrap:       []Unwrap{UnwrapAuto, UnwrapAlways, UnwrapNever}[choice/3%3],
		}
		inner := map[string]Inner{}
		for _, e := range index.Manifests {
			if ocidoc.KindOf(e.MediaType) == ocidoc.KindIndex && choice/9%2 == 0 {
				inner[e.Digest] = forwarded
			}
		}
		plan, err := Rewrite(index, children, inner, p)
		if err != nil {
			if !errors.Is(err, ErrMissingChild) {
				t.Fatal(err)
			}
			return
		}
		if !plan.Changed {
			if string(plan.Bytes) != string(b) || plan.Unwrapped != nil || plan.Empty || len(plan.Taken) > 0 {
				t.Fatalf("unchanged, yet %+v", plan)
			}
			return
		}
		if plan.Unwrapped != nil || plan.Empty {
			if plan.Bytes != nil {
				t.Fatalf("bytes beside %+v", plan)
			}
			return
		}
		again, err := ocidoc.Parse(plan.Bytes, plan.MediaType)
		if err != nil {
			t.Fatalf("%v\n%s", err, plan.Bytes)
		}
		if !slices.Equal(digests(again.Manifests), digests(plan.Kept)) {
			t.Fatal(fmt.Sprint("kept ", digests(plan.Kept), ", forwarded ", digests(again.Manifests)))
		}
		if p.Attestations != Forward {
			for _, e := range again.Manifests {
				if child := children[e.Digest]; child != nil && IsAttestation(child) && ocidoc.KindOf(e.MediaType) == ocidoc.KindManifest {
					t.Fatalf("%s is an attestation and was forwarded", e.Digest)
				}
			}
		}
	})
}

func BenchmarkRewrite(b *testing.B) {
	for name, s := range scenarios(b) {
		if name != "b-multi-max-sbom" && name != "c-single-min" && name != "c-multi-noprov" {
			continue
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Rewrite(s.root, s.docs, nil, storeAuto); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
