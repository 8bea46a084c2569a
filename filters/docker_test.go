package filters

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice/filters/ocidoc"
)

// The same images as imageAMD64 and imageARM64, and their list, as BuildKit
// 0.30 pushed them with --provenance=false, which meant Docker's media types
// then (testdata/wire/c-multi-noprov).
const (
	dockerAMD64 = "sha256:9d0582c7c7e7a1b407b8fb57f71e5b8baa4ccbabb9dd4d2f4aff27acf1e12804"
	dockerARM64 = "sha256:a080dde6d1a7621067007ac501ac9a8235abb460d63cb50a06f7a79bb56771f3"
	dockerList  = "sha256:219f2df93f920df8823cfd4d6ac3920bce29e2f508e8911edd9990ceb374a0ba"
)

var (
	storeDocker = Policy{Attestations: Store, Unwrap: UnwrapAuto, MediaTypes: MediaTypesDocker}
	stripDocker = Policy{Attestations: Strip, Unwrap: UnwrapAuto, MediaTypes: MediaTypesDocker}
)

// converted rewrites a document and what it lists, as the proxy does, and
// returns the plan of the root with those of all images below it.
func converted(t testing.TB, s scenario, doc *ocidoc.Document, p Policy) (*Plan, map[string]*Plan) {
	t.Helper()
	images, inner := map[string]*Plan{}, map[string]Inner{}
	for _, e := range doc.Manifests {
		child := s.docs[e.Digest]
		if child == nil {
			continue
		}
		plan, below := converted(t, s, child, p)
		maps.Copy(images, below)
		if !plan.Changed {
			continue
		}
		if plan.Unwrapped != nil {
			inner[e.Digest] = Inner{plan.Unwrapped.MediaType, plan.Unwrapped.Digest, plan.Unwrapped.Size}
			continue
		}
		inner[e.Digest] = Inner{plan.MediaType, ocidoc.DigestOf(plan.Bytes), int64(len(plan.Bytes))}
		if child.Kind == ocidoc.KindManifest {
			images[e.Digest] = plan
		}
	}
	return mustRewrite(t, doc, s.docs, inner, p), images
}

func TestGenuineImagesBecomeWhatBuildKitWritesWithDockerMediaTypes(t *testing.T) {
	all := scenarios(t)
	docker := all["c-multi-noprov"]
	for _, tc := range []struct {
		scenario, digest string // digest "" = the root
		want             string
	}{
		{"a-multi-min", "", dockerList},
		{"b-multi-max-sbom", "", dockerList},
		{"b-multi-max-slsa-v0.2", "", dockerList},
		{"d-oci-artifact", "", dockerList},
		{"k-nested-index", innerIndex, dockerList},
		{"f-matrix", "sha256:d928cdac5d6032a57ff3f94df86916d55e4a1e99a3e812039da8b58be3f13de5", dockerList},
		{"c-single-min", "", dockerAMD64},
		{"c-single-sbom-only", "", dockerAMD64},
		{"f-matrix", "", dockerAMD64},
	} {
		t.Run(tc.scenario+tc.digest, func(t *testing.T) {
			s := all[tc.scenario]
			doc := s.root
			if tc.digest != "" {
				doc = s.docs[tc.digest]
			}
			for _, p := range []Policy{storeDocker, stripDocker} {
				plan, images := converted(t, s, doc, p)
				got := ocidoc.DigestOf(plan.Bytes)
				if plan.Unwrapped != nil {
					got = plan.Unwrapped.Digest
				}
				if want := docker.docs[tc.want]; got != tc.want || plan.MediaType != want.ContentType {
					t.Errorf("%s %s:\n%s\nwant %s\n%s", got, plan.MediaType, plan.Bytes, want.ContentType, want.Bytes)
				}
				for original, want := range map[string]string{imageAMD64: dockerAMD64, imageARM64: dockerARM64} {
					image := images[original]
					if image == nil {
						continue // of another platform
					}
					if got := ocidoc.DigestOf(image.Bytes); got != want || image.MediaType != ocidoc.MediaTypeDockerManifest {
						t.Errorf("%s became %s %s, want %s:\n%s", original, got, image.MediaType, want, image.Bytes)
					}
				}
				if len(images) == 0 {
					t.Error("no image was converted")
				}
			}
		})
	}
}

// BuildKit keeps a manifest's annotations with Docker's media types, and
// refuses those of an index and its entries, for which a list has no place.
func TestAnnotationsOfImagesStayAndThoseOfTheirIndexGo(t *testing.T) {
	s := scenarios(t)["a-multi-annotated"]
	plan, images := converted(t, s, s.root, storeDocker)
	if len(s.root.Annotations) == 0 || plan.MediaType != ocidoc.MediaTypeDockerList || strings.Contains(string(plan.Bytes), "annotations") {
		t.Errorf("%s\n%s", plan.MediaType, plan.Bytes)
	}
	for original, image := range images {
		want, got := s.docs[original], parse(t, image.MediaType, string(image.Bytes))
		if len(want.Annotations) == 0 || !maps.Equal(want.Annotations, got.Annotations) {
			t.Errorf("%s: %v, want %v", original, got.Annotations, want.Annotations)
		}
	}
	if len(images) != 2 {
		t.Errorf("%d images", len(images))
	}
}

func TestWhatIsNoOCIImageKeepsItsMediaTypes(t *testing.T) {
	for name, s := range scenarios(t) {
		for digest, d := range s.docs {
			if d.Kind != ocidoc.KindManifest || name == "i-zstd" {
				continue
			}
			image := strings.HasPrefix(s.roles[digest], "child linux/") && d.ContentType == ocidoc.MediaTypeOCIManifest
			plan := mustRewrite(t, d, nil, nil, storeDocker)
			if plan.Changed != (image || IsImage(d)) || IsAttestation(d) && plan.Changed {
				t.Errorf("%s: %s (%s): changed %v", name, digest, s.roles[digest], plan.Changed)
			}
			if !plan.Changed && &plan.Bytes[0] != &d.Bytes[0] {
				t.Errorf("%s: %s is not the very document received", name, digest)
			}
		}
	}
	oci, docker := ocidoc.MediaTypeOCIManifest, ocidoc.MediaTypeDockerManifest
	for what, m := range map[string]*ocidoc.Document{
		"an attestation":                 parse(t, oci, manifest("", imageConfig, "", inToto)),
		"a Helm chart":                   parse(t, oci, manifest("", "application/vnd.cncf.helm.config.v1+json", "", "application/vnd.cncf.helm.chart.content.v1.tar+gzip")),
		"a signature of cosign's":        parse(t, oci, manifest("", imageConfig, "", "application/vnd.dev.cosign.simplesigning.v1+json")),
		"a referrer":                     parse(t, oci, manifest("", imageConfig, subjectA, tarLayer)),
		"an artifact":                    parse(t, oci, manifest(`"artifactType":"text/x",`, imageConfig, "", tarLayer)),
		"an artifact without a config":   parse(t, oci, manifest("", emptyConfig, "", tarLayer)),
		"BuildKit's cache":               parse(t, oci, manifest("", mediaTypeCacheConfig, "", tarLayer)),
		"a manifest without a config":    parse(t, oci, `{"schemaVersion":2,"layers":[]}`),
		"an image that is Docker's":      parse(t, docker, manifest("", "application/vnd.docker.container.image.v1+json", "", tarLayer)),
		"an image with a layer of wasm":  parse(t, oci, manifest("", imageConfig, "", "application/wasm")),
		"an image with a nydus boot set": parse(t, oci, manifest("", imageConfig, "", "application/vnd.oci.image.layer.nydus.blob.v1")),
	} {
		plan, err := Rewrite(m, nil, nil, storeDocker)
		if what == "an image with a nydus boot set" {
			if !errors.Is(err, ErrRejected) {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		if err != nil || plan.Changed {
			t.Errorf("%s: %v, changed", what, err)
		}
	}
}

func TestALayerThatDockerHasNoMediaTypeForIsRefused(t *testing.T) {
	s := scenarios(t)["i-zstd"]
	_, err := Rewrite(s.docs["sha256:70288b7c12e4f2768d87762e786deb47f1a426af61dbe96c45a8813051f8b84f"], nil, nil, storeDocker)
	if !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), "layer 0 is application/vnd.oci.image.layer.v1.tar+zstd") || !strings.Contains(err.Error(), "compression=gzip") {
		t.Errorf("error %v", err)
	}
}

// Who pushes first the image of Docker's and then an index of it with OCI's type (imagetools create) gets a list, too.
func TestAnIndexOfNothingButDockersDocumentsBecomesAList(t *testing.T) {
	image, list := entry(ocidoc.MediaTypeDockerManifest, digestA, linuxPlatform), entry(ocidoc.MediaTypeDockerList, digestB, "")
	nested := map[string]*ocidoc.Document{digestB: parse(t, ocidoc.MediaTypeDockerList, `{"manifests":[]}`)}
	for entries, want := range map[string]string{
		image: ocidoc.MediaTypeDockerList, image + "," + list: ocidoc.MediaTypeDockerList,
		list: ocidoc.MediaTypeDockerList, "": ocidoc.MediaTypeOCIIndex,
	} {
		index := parse(t, ocidoc.MediaTypeOCIIndex, `{"schemaVersion":2,"manifests":[`+entries+`]}`)
		plan := mustRewrite(t, index, nested, nil, storeDocker)
		if plan.MediaType != want || plan.Changed != (entries != "") || plan.Empty || plan.Unwrapped != nil {
			t.Errorf("%s: %s, changed %v, empty %v", index.Bytes, plan.MediaType, plan.Changed, plan.Empty)
		}
	}
}

func TestLayersThatHaveDockersTypesInAnOCIImageKeepThem(t *testing.T) {
	const docker = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	plan := mustRewrite(t, parse(t, ocidoc.MediaTypeOCIManifest, manifest("", imageConfig, "", docker, tarLayer)), nil, nil, storeDocker)
	d := parse(t, plan.MediaType, string(plan.Bytes))
	if plan.MediaType != ocidoc.MediaTypeDockerManifest || len(d.Layers) != 2 || d.Layers[0].MediaType != docker || d.Layers[1].MediaType != docker {
		t.Errorf("%s\n%s", plan.MediaType, plan.Bytes)
	}
}

// The proxy reads and waits for the blobs of what converts, so both have to agree.
func TestConvertsSaysWhatRewriteDoes(t *testing.T) {
	both := storeDocker
	both.CacheIndex = CacheIndexManifest
	for name, s := range scenarios(t) {
		for digest, d := range s.docs {
			if d.Kind == ocidoc.KindIndex && !strings.HasPrefix(name, "h-cache-") {
				continue // changed or not for what it lists
			}
			for _, p := range []Policy{storeAuto, storeDocker, cachePolicy, both} {
				plan, err := Rewrite(d, nil, nil, p)
				if want := err != nil || plan.Changed; Converts(d, p) != want {
					t.Errorf("%s: %s under %+v: %v", name, digest, p, !want)
				}
			}
		}
	}
}

func TestAnIndexWithSomethingElseThanImagesStaysOne(t *testing.T) {
	oci := ocidoc.MediaTypeOCIManifest
	image := parse(t, oci, manifest("", imageConfig, "", tarLayer))
	chart := parse(t, oci, manifest("", "application/vnd.cncf.helm.config.v1+json", "", tarLayer))
	children := map[string]*ocidoc.Document{digestA: image, digestB: chart}
	inner := map[string]Inner{digestA: {ocidoc.MediaTypeDockerManifest, digestC, 9}}
	both := entry(oci, digestA, linuxPlatform) + "," + entry(oci, digestB, linuxPlatform)
	for name, tc := range map[string]struct{ entries, tail string }{
		"a chart beside the image": {both, ""},
		"a type of its own":        {entry(oci, digestA, linuxPlatform), `,"artifactType":"text/x"`},
		"a subject":                {entry(oci, digestA, linuxPlatform), `,"subject":` + entry(oci, digestA, "")},
	} {
		t.Run(name, func(t *testing.T) {
			index := parse(t, ocidoc.MediaTypeOCIIndex, `{"schemaVersion":2,"manifests":[`+tc.entries+`]`+tc.tail+`}`)
			plan := mustRewrite(t, index, children, inner, storeDocker)
			want := strings.NewReplacer(oci+`","digest":"`+digestA+`","size":1,"platform"`, ocidoc.MediaTypeDockerManifest+`","digest":"`+digestC+`","size":9,"platform"`).Replace(string(index.Bytes))
			if string(plan.Bytes) != want || plan.MediaType != ocidoc.MediaTypeOCIIndex {
				t.Errorf("%s\n%s\nwant\n%s", plan.MediaType, plan.Bytes, want)
			}
		})
	}
}

func TestUnderDockerMediaTypesEveryOCIManifestOfAnIndexIsRead(t *testing.T) {
	index := parse(t, ocidoc.MediaTypeOCIIndex, `{"schemaVersion":2,"manifests":[`+entry(ocidoc.MediaTypeOCIManifest, digestA, linuxPlatform)+`]}`)
	if _, err := Rewrite(index, nil, nil, storeDocker); !errors.Is(err, ErrMissingChild) {
		t.Errorf("error %v", err)
	}
	list := parse(t, ocidoc.MediaTypeDockerList, `{"schemaVersion":2,"manifests":[`+entry(ocidoc.MediaTypeDockerManifest, digestA, linuxPlatform)+`]}`)
	if plan := mustRewrite(t, list, nil, nil, storeDocker); plan.Changed || NeedsChild(list, list.Manifests[0], storeDocker) {
		t.Errorf("a list of Docker images: %+v", plan)
	}
}

func TestDockerMediaTypesNeedAttestationsOutOfTheWay(t *testing.T) {
	if err := (Policy{Attestations: Forward, Unwrap: UnwrapAuto, MediaTypes: MediaTypesDocker}).Validate(); err == nil {
		t.Error("valid")
	}
	for _, p := range []Policy{storeDocker, stripDocker, {Attestations: Forward, Unwrap: UnwrapAuto, MediaTypes: MediaTypesKeep, CacheIndex: CacheIndexManifest}} {
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []Policy{{Attestations: Store, Unwrap: UnwrapAuto, MediaTypes: "oci"}, {Attestations: Store, Unwrap: UnwrapAuto, CacheIndex: "auto"}} {
		if err := p.Validate(); err == nil {
			t.Errorf("%+v is valid", p)
		}
	}
}

// FuzzConvert: whatever the document, its conversion parses as what it says it
// is, refers to the same blobs, has no OCI types left if it is Docker's, and is
// not converted again.
func FuzzConvert(f *testing.F) {
	for _, s := range scenarios(f) {
		for _, d := range s.docs {
			f.Add(d.Bytes, d.ContentType)
		}
	}
	p := storeDocker
	p.CacheIndex = CacheIndexManifest
	f.Fuzz(func(t *testing.T, b []byte, contentType string) {
		doc, err := ocidoc.Parse(b, contentType)
		if err != nil || !Converts(doc, p) {
			return
		}
		plan, err := Rewrite(doc, nil, nil, p)
		if err != nil {
			return // a layer without a Docker type, or a document that no registry takes
		}
		again, err := ocidoc.Parse(plan.Bytes, plan.MediaType)
		if err != nil || !plan.Changed || again.Config == nil || Converts(again, p) {
			t.Fatalf("%v, %+v\n%s\nof\n%s", err, plan, plan.Bytes, b)
		}
		want := digests(doc.Layers)
		if doc.Kind == ocidoc.KindIndex {
			config := cacheConfig(doc)
			want = slices.Delete(digests(doc.Manifests), config, config+1)
		}
		if !slices.Equal(digests(again.Layers), want) {
			t.Fatalf("layers %v, want %v", digests(again.Layers), want)
		}
		for _, l := range append(again.Layers, *again.Config) {
			if plan.MediaType == ocidoc.MediaTypeDockerManifest && (strings.Contains(l.MediaType, "vnd.oci") || len(l.Annotations) > 0) {
				t.Fatalf("%+v in\n%s", l, plan.Bytes)
			}
		}
	})
}

// wireManifest has the members of image-spec's structs, in their order.
type wireManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	Config        wireDescriptor    `json:"config"`
	Layers        []wireDescriptor  `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	Unknown       json.RawMessage   `json:"x-unknown,omitempty"`
}

type wireDescriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	URLs        []string          `json:"urls,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Data        []byte            `json:"data,omitempty"`
}

func TestAConvertedImageIsTheChangedStructMarshalled(t *testing.T) {
	types := dockerTypes()
	layerTypes := slices.DeleteFunc(slices.Sorted(maps.Keys(types)), func(s string) bool { return s == mediaTypeImageConfig })
	words := rapid.MapOfN(rapid.StringN(1, 8, 20), rapid.StringN(0, 8, 20), 0, 3)
	rapid.Check(t, func(t *rapid.T) {
		desc := func(mediaType string) wireDescriptor {
			return wireDescriptor{
				MediaType: mediaType, Digest: ocidoc.DigestOf([]byte(rapid.String().Draw(t, "content"))), Size: rapid.Int64Min(0).Draw(t, "size"),
				URLs:        rapid.SliceOfN(rapid.SampledFrom([]string{"https://a.example", "x"}), 0, 2).Draw(t, "urls"),
				Annotations: words.Draw(t, "annotations"), Data: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "data"),
			}
		}
		m := wireManifest{
			SchemaVersion: 2, MediaType: rapid.SampledFrom([]string{"", ocidoc.MediaTypeOCIManifest}).Draw(t, "mediaType"),
			Config: desc(mediaTypeImageConfig), Annotations: words.Draw(t, "of the manifest"),
			Unknown: rapid.SampledFrom([]json.RawMessage{nil, json.RawMessage(`{"annotations":{"a":"b"},"mediaType":1}`)}).Draw(t, "unknown"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "layers") {
			m.Layers = append(m.Layers, desc(rapid.SampledFrom(layerTypes).Draw(t, "layer")))
		}
		indent := rapid.SampledFrom([]string{"", "  ", "\t"}).Draw(t, "indent")
		marshal := func(m wireManifest) []byte {
			b, err := json.Marshal(m)
			if indent != "" {
				b, err = json.MarshalIndent(m, "", indent)
			}
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		doc, err := ocidoc.Parse(marshal(m), ocidoc.MediaTypeOCIManifest)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Rewrite(doc, nil, nil, storeDocker)
		if err != nil {
			t.Fatal(err)
		}
		m.MediaType = ocidoc.MediaTypeDockerManifest
		m.Config.MediaType, m.Config.Annotations = mediaTypeDockerConfig, nil
		m.Layers = slices.Clone(m.Layers)
		for i := range m.Layers {
			m.Layers[i].MediaType, m.Layers[i].Annotations = types[m.Layers[i].MediaType], nil
		}
		if want := marshal(m); string(plan.Bytes) != string(want) {
			t.Fatalf("got\n%s\nwant\n%s", plan.Bytes, want)
		}
		again, err := ocidoc.Parse(plan.Bytes, plan.MediaType)
		if err != nil {
			t.Fatal(err)
		}
		if plan, err := Rewrite(again, nil, nil, storeDocker); err != nil || plan.Changed {
			t.Fatalf("converted twice: %v", err)
		}
	})
}
