//go:build e2e

package e2e

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// demoImage is what `sluice demo` pushes: an OCI layout as BuildKit exports it.
const demoImage = "../cmd/sluice/demo/image.oci.tar"

// demoDockerfile has stages and steps as a small service has them. The provenance lists them all, which makes it
// as large as people see in ECR.
const demoDockerfile = `FROM scratch AS assets
COPY common /srv/assets/common
COPY common /srv/assets/fallback

FROM scratch AS program
ARG TARGETARCH
COPY payload-$TARGETARCH /usr/local/bin/service

FROM scratch
LABEL org.opencontainers.image.title="demo" \
      org.opencontainers.image.description="What a build sends to a registry" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=assets /srv/assets/common /srv/assets/common
COPY --from=program /usr/local/bin/service /usr/local/bin/service
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/service"]
`

var updateDemo = flag.Bool("update-demo-image", false, "build "+demoImage+" anew")

// The demo shows what a build really sends, so its image must be one: the same build today has the same image
// manifests, and as many attestations of the same types.
func TestTheDemosImageIsWhatBuildKitMakes(t *testing.T) {
	k, scanner := needBuilder(t, "new"), shared(t, bench.scanner)
	fresh, dir := filepath.Join(scratch(t), "image.oci.tar"), newApplication(t, 90)
	if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(demoDockerfile), 0o644); err != nil {
		t.Fatal(err)
	}
	k.mustBuild(t, dir, bothPlatforms, "--provenance=mode=max", "--attest", "type=sbom,generator="+scanner,
		"--output", "type=oci,rewrite-timestamp=true,dest="+fresh)
	if *updateDemo {
		b, err := os.ReadFile(fresh)
		if err == nil {
			err = os.WriteFile(demoImage, b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	images, attested := describeLayout(t, demoImage)
	wantImages, wantAttested := describeLayout(t, fresh)
	if !slices.Equal(images, wantImages) {
		t.Errorf("the demo's images are %v, the same build makes %v (go test -tags e2e ./e2e -run TestTheDemosImage -update-demo-image)", images, wantImages)
	}
	if !slices.Equal(attested, wantAttested) || len(attested) != 4 {
		t.Errorf("the demo's image has the statements %v, the same build makes %v", attested, wantAttested)
	}
}

// describeLayout lists the digests of a layout's images and the types of its statements.
func describeLayout(t *testing.T, file string) (images, predicateTypes []string) {
	t.Helper()
	blobs := readTar(t, file)
	var top struct {
		Manifests []struct{ Digest string }
	}
	if err := json.Unmarshal(blobs["index.json"], &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("%s: index.json lists %d documents, %v", file, len(top.Manifests), err)
	}
	document := func(digest, mediaType string) *ocidoc.Document {
		doc, err := ocidoc.Parse(blobs["blobs/sha256/"+strings.TrimPrefix(digest, "sha256:")], mediaType)
		if err != nil || doc.Digest() != digest {
			t.Fatalf("%s: %s: %v", file, digest, err)
		}
		return doc
	}
	for _, e := range document(top.Manifests[0].Digest, ocidoc.MediaTypeOCIIndex).Manifests {
		m := document(e.Digest, e.MediaType)
		if !filters.IsAttestation(m) {
			images = append(images, e.Digest)
			continue
		}
		for _, l := range m.Layers {
			predicateTypes = append(predicateTypes, l.Annotations[filters.AnnotationPredicateType])
		}
	}
	return images, predicateTypes
}

func readTar(t *testing.T, file string) map[string][]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}
