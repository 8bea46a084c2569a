package ocidoc

import (
	"errors"
	"strings"
	"testing"
)

func TestRetype(t *testing.T) {
	desc := func(more string) string {
		return `{` + more + `"mediaType":"t/a","digest":"` + digestA + `","size":1}`
	}
	plain := strings.Replace(desc(""), "t/a", "t/b", 1)
	r := Retyping{MediaType: MediaTypeDockerManifest, Descriptors: map[string]string{"t/a": "t/b"}, CutSelf: []string{"x", "y"}, CutDescriptors: []string{"annotations", "z"}}
	for what, tc := range map[string]struct{ in, want string }{
		"the type is replaced":       {`{"schemaVersion":2,"mediaType":"` + MediaTypeOCIManifest + `"}`, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `"}`},
		"or put in":                  {`{"schemaVersion":2,"a":1}`, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `","a":1}`},
		"as the last":                {"{\n \"schemaVersion\" : 2\n}", "{\n \"schemaVersion\" : 2,\n \"mediaType\" : \"" + MediaTypeDockerManifest + "\"\n}"},
		"where something goes":       {`{"schemaVersion":2,"x":1}`, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `"}`},
		"where more goes":            {`{"schemaVersion":2,"x":1,"y":[],"a":1}`, `{"schemaVersion":2,"mediaType":"` + MediaTypeDockerManifest + `","a":1}`},
		"the first goes":             {`{ "x":1 , "mediaType":""}`, `{ "mediaType":"` + MediaTypeDockerManifest + `"}`},
		"an escaped name":            {`{"mediaType":"","\u0078":1}`, `{"mediaType":"` + MediaTypeDockerManifest + `"}`},
		"of config and layers":       {`{"mediaType":"","config":` + desc("") + `,"layers":[` + desc("") + ` , ` + desc("") + `]}`, `{"mediaType":"` + MediaTypeDockerManifest + `","config":` + plain + `,"layers":[` + plain + ` , ` + plain + `]}`},
		"an escaped type":            {`{"mediaType":"","config":` + strings.Replace(desc(""), "t/a", `\u0074\/a`, 1) + `}`, `{"mediaType":"` + MediaTypeDockerManifest + `","config":` + plain + `}`},
		"other types stay":           {`{"mediaType":"","config":` + strings.Replace(desc(""), "t/a", "t/c", 1) + `}`, `{"mediaType":"` + MediaTypeDockerManifest + `","config":` + strings.Replace(desc(""), "t/a", "t/c", 1) + `}`},
		"members of descriptors go":  {`{"mediaType":"","config":` + desc(`"annotations":{"mediaType":"t/a"},"z":1,`) + `}`, `{"mediaType":"` + MediaTypeDockerManifest + `","config":` + plain + `}`},
		"a subject is left":          {`{"mediaType":"","subject":` + desc(`"annotations":{},`) + `}`, `{"mediaType":"` + MediaTypeDockerManifest + `","subject":` + desc(`"annotations":{},`) + `}`},
		"unknown fields are left":    {`{"mediaType":"","u":{"config":` + desc(`"annotations":{},`) + `}}`, `{"mediaType":"` + MediaTypeDockerManifest + `","u":{"config":` + desc(`"annotations":{},`) + `}}`},
		"a null is left":             {`{"mediaType":"","config":null,"layers":null}`, `{"mediaType":"` + MediaTypeDockerManifest + `","config":null,"layers":null}`},
		"white space around it all ": {" {\"mediaType\":\"\"}\n", " {\"mediaType\":\"" + MediaTypeDockerManifest + "\"}\n"},
	} {
		t.Run(what, func(t *testing.T) {
			d, err := Parse([]byte(tc.in), MediaTypeOCIManifest)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.Retype(r)
			if err != nil || string(got) != tc.want {
				t.Errorf("%v\n got %s\nwant %s", err, got, tc.want)
			}
			if same, err := d.Retype(Retyping{}); err != nil || string(same) != tc.in {
				t.Errorf("the zero value changes it: %v\n%s", err, same)
			}
		})
	}
}

func TestRetypeRefusesMistakesOfItsCaller(t *testing.T) {
	d, err := Parse([]byte(`{"schemaVersion":2}`), MediaTypeOCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []Retyping{{MediaType: `a"b`}, {Descriptors: map[string]string{"a": ""}}, {Descriptors: map[string]string{"a": "b\n"}}} {
		if _, err := d.Retype(r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	nothing, err := Parse([]byte(`{"a":1}`), MediaTypeOCIManifest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nothing.Retype(Retyping{MediaType: MediaTypeDockerManifest}); err == nil {
		t.Error("a document without a version was taken")
	}
	opaque, err := Parse([]byte(`x`), "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opaque.Retype(Retyping{}); err == nil {
		t.Error("an opaque document was taken")
	}
	if _, err := d.AsManifest(0, MediaTypeOCIManifest); err == nil {
		t.Error("a manifest was taken for an index")
	}
	index, err := Parse([]byte(`{"manifests":[]}`), MediaTypeOCIIndex)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := index.AsManifest(0, MediaTypeOCIManifest); err == nil {
		t.Error("there is no entry 0")
	}
}

// FuzzRetype: whatever the document, the result parses as the new type, has the
// same references, and changing it again changes nothing.
func FuzzRetype(f *testing.F) {
	seed(f, func(b []byte, contentType string) { f.Add(b, KindOf(contentType) == KindIndex) })
	r := Retyping{
		Descriptors: map[string]string{"application/vnd.oci.image.layer.v1.tar+gzip": "t/gzip", "x": "t/x", MediaTypeOCIManifest: MediaTypeDockerManifest},
		CutSelf:     []string{"annotations", "a"}, CutDescriptors: []string{"annotations", "artifactType", "a"},
	}
	f.Fuzz(func(t *testing.T, b []byte, index bool) {
		from := MediaTypeOCIManifest
		r.MediaType = MediaTypeDockerManifest
		if index {
			from, r.MediaType = MediaTypeOCIIndex, MediaTypeDockerList
		}
		d, err := Parse(b, from)
		if err != nil {
			return
		}
		out, err := d.Retype(r)
		if err != nil {
			if errors.Is(err, ErrTooLarge) || strings.Contains(err.Error(), "neither mediaType nor schemaVersion") {
				return
			}
			t.Fatalf("%v\n%s", err, b)
		}
		again, err := Parse(out, r.MediaType)
		if err != nil {
			t.Fatalf("the result does not parse: %v\n%s\nof\n%s", err, out, b)
		}
		if len(again.Layers) != len(d.Layers) || len(again.Manifests) != len(d.Manifests) || (again.Config == nil) != (d.Config == nil) || len(again.Annotations) > 0 {
			t.Fatalf("other references:\n%s\nof\n%s", out, b)
		}
		for i, l := range append(d.Layers, d.Manifests...) {
			got := append(again.Layers, again.Manifests...)[i]
			want := l.MediaType
			if to := r.Descriptors[want]; to != "" {
				want = to
			}
			if got.Digest != l.Digest || got.Size != l.Size || got.MediaType != want || len(got.Annotations) > 0 || got.ArtifactType != "" {
				t.Fatalf("%d: %+v of %+v", i, got, l)
			}
		}
		if twice, err := again.Retype(r); err != nil || string(twice) != string(out) {
			t.Fatalf("twice: %v\n%s\n%s", err, twice, out)
		}
		if len(d.Manifests) > 0 {
			m, err := d.AsManifest(0, MediaTypeOCIManifest)
			if err != nil {
				if errors.Is(err, ErrTooLarge) {
					return
				}
				t.Fatalf("as manifest: %v\n%s", err, b)
			}
			as, err := Parse(m, MediaTypeOCIManifest)
			if err != nil && !strings.Contains(string(b), "null") && !strings.Contains(err.Error(), "twice") {
				t.Fatalf("as manifest: %v\n%s\nof\n%s", err, m, b)
			}
			if err == nil && (as.Config.Digest != d.Manifests[0].Digest || len(as.Layers) != len(d.Manifests)-1) {
				t.Fatalf("as manifest:\n%s\nof\n%s", m, b)
			}
		}
	})
}
