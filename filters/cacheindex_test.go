package filters

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"sluice/filters/ocidoc"
)

// cacheManifest is the same cache as in h-cache-oci-index and
// h-cache-docker-list, exported by BuildKit with image-manifest=true.
const cacheManifest = "sha256:63b634ba0d74495b025e16d3d99a7452bf5e197194eb305b67dbbc7ef9b046d0"

var cachePolicy = Policy{Attestations: Store, Unwrap: UnwrapAuto, CacheIndex: CacheIndexManifest}

func TestAGenuineCacheIndexBecomesWhatBuildKitWritesAsAManifest(t *testing.T) {
	all := scenarios(t)
	want := all["h-cache-image-manifest"].docs[cacheManifest]
	for _, name := range []string{"h-cache-oci-index", "h-cache-docker-list"} {
		for _, action := range []Action{Store, Strip, Forward} {
			p := cachePolicy
			p.Attestations = action
			plan := mustRewrite(t, all[name].root, nil, nil, p)
			if string(plan.Bytes) != string(want.Bytes) || plan.MediaType != want.ContentType || !plan.Changed || plan.Unwrapped != nil || plan.Empty {
				t.Errorf("%s: %s\n%s\nwant\n%s", name, plan.MediaType, plan.Bytes, want.Bytes)
			}
		}
	}
	if plan := mustRewrite(t, want, nil, nil, cachePolicy); plan.Changed {
		t.Error("the manifest form is not left alone")
	}
}

func TestOnlyACacheIndexIsTakenForOne(t *testing.T) {
	for name, s := range scenarios(t) {
		for digest, d := range s.docs {
			if got := IsCacheIndex(d); got != (digest == s.root.Digest() && strings.HasPrefix(name, "h-cache-") && d.Kind == ocidoc.KindIndex) {
				t.Errorf("%s: %s: %v", name, digest, got)
			}
		}
	}
	layer, config := entry(tarLayer, digestA, ""), entry(mediaTypeCacheConfig, digestB, "")
	for what, index := range map[string]string{
		"no config":            `{"manifests":[` + layer + `]}`,
		"two configs":          `{"manifests":[` + config + `,` + layer + `,` + config + `]}`,
		"an image beside it":   `{"manifests":[` + entry(ocidoc.MediaTypeOCIManifest, digestA, linuxPlatform) + `,` + config + `]}`,
		"a type of its own":    `{"artifactType":"text/x","manifests":[` + layer + `,` + config + `]}`,
		"a subject of its own": `{"subject":` + layer + `,"manifests":[` + layer + `,` + config + `]}`,
		"nothing":              `{"manifests":[]}`,
	} {
		d := parse(t, ocidoc.MediaTypeOCIIndex, index)
		if plan := mustRewrite(t, d, nil, nil, cachePolicy); plan.Changed || IsCacheIndex(d) {
			t.Errorf("%s: changed", what)
		}
	}
}

func TestWhereTheConfigStandsAndWhatElseThereIsDoesNotMatter(t *testing.T) {
	layer, config := entry(tarLayer, digestA, ""), entry(mediaTypeCacheConfig, digestB, "")
	for index, want := range map[string]string{
		`{"schemaVersion":2,"manifests":[` + config + `,` + layer + `],"x":[1, 2]}`:                      `{"schemaVersion":2,"mediaType":"` + ocidoc.MediaTypeOCIManifest + `","config":` + config + `,"layers":[` + layer + `],"x":[1, 2]}`,
		`{"mediaType":"","manifests": [` + config + `], "annotations": {"a":"b"}}`:                       `{"mediaType":"` + ocidoc.MediaTypeOCIManifest + `","config": ` + config + `,"layers": [], "annotations": {"a":"b"}}`,
		"{\n  \"schemaVersion\": 2,\n  \"manifests\": [\n    " + layer + ",\n    " + config + "\n  ]\n}": "{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"" + ocidoc.MediaTypeOCIManifest + "\",\n  \"config\": " + config + ",\n  \"layers\": [\n    " + layer + "\n  ]\n}",
	} {
		d := parse(t, ocidoc.MediaTypeOCIIndex, index)
		plan := mustRewrite(t, d, nil, nil, cachePolicy)
		if string(plan.Bytes) != want || !IsCacheIndex(d) {
			t.Errorf("got\n%s\nwant\n%s", plan.Bytes, want)
		}
	}
}

func TestAConvertedCacheIsTheManifestMarshalled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desc := func(mediaType string) wireDescriptor {
			return wireDescriptor{MediaType: mediaType, Digest: ocidoc.DigestOf([]byte(rapid.String().Draw(t, "content"))), Size: rapid.Int64Min(0).Draw(t, "size")}
		}
		var index struct {
			SchemaVersion int              `json:"schemaVersion"`
			MediaType     string           `json:"mediaType"`
			Manifests     []wireDescriptor `json:"manifests"`
		}
		docker := rapid.Bool().Draw(t, "docker")
		index.SchemaVersion, index.MediaType = 2, ocidoc.MediaTypeOCIIndex
		if docker {
			index.MediaType = ocidoc.MediaTypeDockerList
		}
		want := wireManifest{SchemaVersion: 2, MediaType: ocidoc.MediaTypeOCIManifest}
		for oci, dockers := range map[string]string{
			"application/vnd.oci.image.layer.v1.tar+gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip",
			"application/vnd.oci.image.layer.v1.tar+zstd": "application/vnd.docker.image.rootfs.diff.tar.zstd",
			"application/vnd.oci.image.layer.v1.tar":      "application/vnd.docker.image.rootfs.diff.tar",
			"application/vnd.example.unknown":             "application/vnd.example.unknown",
		} {
			l := desc(oci)
			l.Annotations = map[string]string{"buildkit/createdat": rapid.String().Draw(t, "annotation")}
			want.Layers = append(want.Layers, l)
			if docker {
				l.MediaType = dockers
			}
			index.Manifests = append(index.Manifests, l)
		}
		want.Config = desc(mediaTypeCacheConfig)
		index.Manifests = append(index.Manifests, want.Config)
		b, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := ocidoc.Parse(b, index.MediaType)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := Rewrite(doc, nil, nil, cachePolicy)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ = json.Marshal(want); string(plan.Bytes) != string(b) {
			t.Fatalf("got\n%s\nwant\n%s", plan.Bytes, b)
		}
	})
}
