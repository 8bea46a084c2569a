package proxytest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// SyntheticOptions say what to generate; the zero value is two platforms with one small layer each and no attestations.
type SyntheticOptions struct {
	Seed         uint64   // other seed, other layers: nothing in common with another tree
	Build        int      // other build of the same source: images keep their digests, statements change (invocationId, times)
	Platforms    []string // default linux/amd64, linux/arm64
	Layers       int      // per platform, default 1
	LayerSize    int64    // bytes, default 256; from 1 MiB on layers are generated at each reading and not held
	SharedLayers int      // so many first layers are the same for all platforms

	Form          Form // of attestations; FormNone: an index of images, or the bare image manifest for one platform
	Statements    int  // provenance statements per attestation manifest, default 1
	SBOM          bool // one more statement, in front as BuildKit puts it
	StatementSize int  // pads statements to at least so many bytes

	Compact     bool              // one-line JSON without entry annotations in the index, as buildah re-assembles it
	DockerTypes bool              // schema 2 media types, as provenance=false gives before BuildKit 0.32 (needs FormNone)
	Annotations map[string]string // on the index
	AlwaysIndex bool              // an index also for one platform without attestations
}

const heldLayer = 1 << 20

// Synthetic generates what BuildKit would push, with layers. The same options give the same bytes; two trees that differ
// only in Form, Statements, SBOM, StatementSize or Build have the same images: FormNone is what must be upstream after
// a push of any other through Sluice.
func Synthetic(o SyntheticOptions) *Tree {
	if len(o.Platforms) == 0 {
		o.Platforms = []string{"linux/amd64", "linux/arm64"}
	}
	o.Layers = max(o.Layers, 1)
	if o.LayerSize == 0 {
		o.LayerSize = 256
	}
	imageType, indexType := MediaTypeOCIManifest, MediaTypeOCIIndex
	if o.DockerTypes {
		imageType, indexType = MediaTypeDockerManifest, MediaTypeDockerList
	}
	s := shape{}
	var images, attestations []*Manifest
	for i, platform := range o.Platforms {
		image := s.image(imageType, platform, nil, o.config(platform), o.layers(i, platform)...)
		images = append(images, image)
		if o.Form != FormNone {
			attestations = append(attestations, s.attestation(o.Form, image, o.statements(image)...))
		}
	}
	tree := &Tree{Scenario: "synthetic", Tag: "1"}
	if len(images) == 1 && o.Form == FormNone && !o.AlwaysIndex {
		tree.Root = images[0]
		return tree
	}
	s.compact = o.Compact
	tree.Root = s.index(indexType, o.Annotations, append(images, attestations...)...)
	return tree
}

func (o SyntheticOptions) layers(platformNumber int, platform string) []*Blob {
	mediaType := v1.MediaTypeImageLayerGzip
	if o.DockerTypes {
		mediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	}
	var layers []*Blob
	for n := range o.Layers {
		name, number := fmt.Sprintf("layer-%s-%d", arch(platform), n+1), uint64(platformNumber+1)<<32|uint64(n)
		if n < o.SharedLayers {
			name, number = fmt.Sprintf("layer-shared-%d", n+1), uint64(n)
		}
		layers = append(layers, RandomLayer(name, mediaType, o.Seed, number, o.LayerSize))
	}
	return layers
}

// RandomLayer is incompressible content behind the first bytes of a gzip stream, the same for the same seed and number.
func RandomLayer(name, mediaType string, seed, number uint64, size int64) *Blob {
	b := &Blob{Name: name, MediaType: mediaType, Size: size}
	b.open = func() io.ReadCloser {
		var key [32]byte
		binary.LittleEndian.PutUint64(key[:], seed)
		binary.LittleEndian.PutUint64(key[8:], number)
		gzip := strings.NewReader("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
		return io.NopCloser(io.LimitReader(io.MultiReader(gzip, rand.NewChaCha8(key)), size))
	}
	hash := sha256.New()
	if size < heldLayer {
		content, _ := io.ReadAll(b.open()) // a generator cannot fail
		b.content, b.open = content, nil
		hash.Write(content)
	} else {
		_, _ = io.Copy(hash, b.open()) // as above
	}
	b.Digest = "sha256:" + hex.EncodeToString(hash.Sum(nil))
	return b
}

// config is compact JSON with the members in the order BuildKit writes them.
func (o SyntheticOptions) config(platform string) *Blob {
	os, architecture, _ := strings.Cut(platform, "/")
	mediaType := v1.MediaTypeImageConfig
	if o.DockerTypes {
		mediaType = "application/vnd.docker.container.image.v1+json"
	}
	const created = "2026-11-20T17:46:56.126513402Z"
	var ids, history []string
	for n := range o.Layers {
		// The digest of an unpacked layer that nobody unpacks.
		ids = append(ids, `"`+digestOf(fmt.Appendf(nil, "%d %s %d", o.Seed, platform, n))+`"`)
		history = append(history, `{"created":"`+created+fmt.Sprintf(`","created_by":"COPY %d /%d # buildkit","comment":"buildkit.dockerfile.v0"}`, n, n))
	}
	return NewBlob("config-"+architecture, mediaType, []byte(
		`{"architecture":"`+architecture+`","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"WorkingDir":"/"},"created":"`+
			created+`","history":[`+strings.Join(history, ",")+`],"os":"`+os+`","rootfs":{"type":"layers","diff_ids":[`+strings.Join(ids, ",")+`]}}`))
}

func (o SyntheticOptions) statements(image *Manifest) []statement {
	suffix := "-" + arch(image.Platform)
	mediaType := MediaTypeStatement
	if o.Form == FormDSSE {
		mediaType = MediaTypeDSSE
	}
	make1 := func(name, predicateType, predicate string) statement {
		b := []byte(`{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"` + predicateType +
			`","subject":[{"name":"pkg:docker/app@1?platform=` + strings.ReplaceAll(image.Platform, "/", "%2F") +
			`","digest":{"sha256":"` + strings.TrimPrefix(image.Digest, "sha256:") + `"}}],"predicate":` + predicate + `}`)
		if o.Form == FormDSSE {
			b = envelope(b)
		}
		return statement{NewBlob("statement"+suffix+"-"+name, mediaType, b), predicateType}
	}
	padding := strings.Repeat("x", o.StatementSize)
	var all []statement
	if o.SBOM {
		all = append(all, make1("sbom", "https://spdx.dev/Document", fmt.Sprintf(
			`{"spdxVersion":"SPDX-2.3","dataLicense":"CC0-1.0","SPDXID":"SPDXRef-DOCUMENT","name":"sbom","documentNamespace":"https://example.com/spdx/%d-%d","comment":"%s"}`,
			o.Seed, o.Build, padding)))
	}
	for n := range max(o.Statements, 1) {
		name := "provenance"
		if n > 0 {
			name = fmt.Sprintf("provenance%d", n+1)
		}
		all = append(all, make1(name, "https://slsa.dev/provenance/v1", fmt.Sprintf(
			`{"buildDefinition":{"buildType":"https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md","resolvedDependencies":[],`+
				`"externalParameters":{"configSource":{"path":"Dockerfile"},"request":{"frontend":"dockerfile.v0"}},"internalParameters":{"builderPlatform":"%s","padding":"%s"}},`+
				`"runDetails":{"builder":{"id":""},"metadata":{"invocationId":"build-%d-%d-%d"}}}`, image.Platform, padding, o.Seed, o.Build, n)))
	}
	return all
}
