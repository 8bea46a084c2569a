package conformance

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	mediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	mediaTypeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	mediaTypeUnknown        = "application/vnd.example.nobody.knows.v7+json"
)

// document is a manifest of any kind, as pushed.
type document struct {
	bytes     []byte
	mediaType string
	digest    string
}

func newDocument(b []byte, mediaType string) document {
	return document{b, mediaType, sha256Digest(b)}
}

func (d document) descriptor() v1.Descriptor {
	return v1.Descriptor{MediaType: d.mediaType, Digest: digest.Digest(d.digest), Size: int64(len(d.bytes))}
}

// accepts lists every manifest type, one header line each, as skopeo and Docker 20.10 do.
var accepts = withHeader("Accept", v1.MediaTypeImageManifest, v1.MediaTypeImageIndex, mediaTypeDockerManifest, mediaTypeDockerList, "*/*")

func blobPath(repo, digest string) string       { return "/v2/" + repo + "/blobs/" + digest }
func manifestPath(repo, ref string) string      { return "/v2/" + repo + "/manifests/" + ref }
func uploadsPath(repo string) string            { return "/v2/" + repo + "/blobs/uploads/" }
func tagsPath(repo string) string               { return "/v2/" + repo + "/tags/list" }
func referrersPath(repo, of string) string      { return "/v2/" + repo + "/referrers/" + of }
func (c *check) getBlob(repo, d string) *answer { return c.do(http.MethodGet, blobPath(repo, d), nil) }

func (c *check) headBlob(repo, d string) *answer {
	return c.do(http.MethodHead, blobPath(repo, d), nil)
}

func (c *check) getManifest(repo, ref string) *answer {
	return c.do(http.MethodGet, manifestPath(repo, ref), nil, accepts)
}

func (c *check) headManifest(repo, ref string) *answer {
	return c.do(http.MethodHead, manifestPath(repo, ref), nil, accepts)
}

func (c *check) putManifest(repo, ref string, d document, options ...option) *answer {
	options = append([]option{withHeader("Content-Type", d.mediaType)}, options...)
	return c.do(http.MethodPut, manifestPath(repo, ref), d.bytes, options...)
}

// startUpload opens a session and returns its URL and the shortest chunk that the registry takes.
func (c *check) startUpload(repo string, query url.Values) (location string, minimum int) {
	target := uploadsPath(repo)
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	a := c.want(c.do(http.MethodPost, target, nil), http.StatusAccepted)
	return c.location(a), c.minimum(a)
}

// pushBlob uploads by POST and PUT, the way that nothing else depends on.
func (c *check) pushBlob(repo string, b []byte) v1.Descriptor {
	d := sha256Digest(b)
	location, _ := c.startUpload(repo, nil)
	c.want(c.do(http.MethodPut, withQuery(location, "digest", d), b, octets), http.StatusCreated)
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: digest.Digest(d), Size: int64(len(b))}
}

// image pushes a config and a layer, and makes (does not push) an OCI manifest for them; change may alter it first.
func (c *check) image(repo string, change func(*v1.Manifest)) document {
	config := c.pushBlob(repo, []byte(`{"architecture":"amd64","os":"linux","author":"`+c.text()+`","rootfs":{"type":"layers","diff_ids":[]}}`))
	config.MediaType = v1.MediaTypeImageConfig
	m := v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: v1.MediaTypeImageManifest,
		Config:    config,
		Layers:    []v1.Descriptor{c.pushBlob(repo, c.random(300))},
	}
	if change != nil {
		change(&m)
	}
	return newDocument(c.marshal(m), m.MediaType)
}

// pushImage makes an image and pushes it under its digest and the tags.
func (c *check) pushImage(repo string, change func(*v1.Manifest), tags ...string) document {
	d := c.image(repo, change)
	for _, ref := range append([]string{d.digest}, tags...) {
		c.want(c.putManifest(repo, ref, d), http.StatusCreated)
	}
	return d
}

// index makes (does not push) an OCI index of two pushed images; change may alter it first.
func (c *check) index(repo string, change func(*v1.Index)) document {
	i := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	for _, architecture := range []string{"amd64", "arm64"} {
		entry := c.pushImage(repo, nil).descriptor()
		entry.Platform = &v1.Platform{OS: "linux", Architecture: architecture}
		i.Manifests = append(i.Manifests, entry)
	}
	if change != nil {
		change(&i)
	}
	return newDocument(c.marshal(i), i.MediaType)
}

// artifact pushes an OCI 1.1 artifact that is about subject, and returns it and the answer to its manifest.
func (c *check) artifact(repo, artifactType string, subject v1.Descriptor, annotations map[string]string) (document, *answer) {
	d := c.image(repo, func(m *v1.Manifest) {
		m.ArtifactType, m.Subject, m.Annotations = artifactType, &subject, annotations
		m.Config = c.pushBlob(repo, []byte("{}"))
		m.Config.MediaType = v1.MediaTypeEmptyJSON
		m.Layers[0].MediaType = "application/vnd.example.note"
	})
	return d, c.want(c.putManifest(repo, d.digest, d), http.StatusCreated)
}

// text is a word that no other content of this case has.
func (c *check) text() string {
	const letters = "abcdefghijklmnopqrstuvwxyz"
	return string(slices.Collect(func(yield func(byte) bool) {
		for range 12 {
			if !yield(letters[c.seed.IntN(len(letters))]) {
				return
			}
		}
	}))
}

func (c *check) marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		c.failf("making a document: %v", err)
	}
	return b
}

// missing is a digest that nothing has.
func (c *check) missing() string { return sha256Digest(c.random(64)) }

// wantDocument checks that the reference answers GET and HEAD with exactly this document.
func (c *check) wantDocument(repo, ref string, d document) {
	got := c.want(c.getManifest(repo, ref), http.StatusOK)
	c.wantBody(got, d.bytes)
	c.wantHeader(got, "Content-Type", d.mediaType)
	head := c.want(c.headManifest(repo, ref), http.StatusOK)
	c.wantHeader(head, "Content-Type", d.mediaType)
}
