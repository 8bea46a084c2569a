package proxytest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker20 is docker push of Docker Engine 20.10's classic store: GET /v2/; per layer HEAD, POST, one chunked PATCH without
// types, an empty PUT, and the HEAD that must then find it; the configuration the same way; a schema 2 manifest to each
// tag. It knows no indexes: of a tree it pushes the first image. Nothing is retried.
func Docker20(ctx context.Context, o Options) (Result, error) {
	c := connect(o, "docker/20.10.24 go/go1.18.10 git-commit/5d6db84 kernel/5.15.0 os/linux arch/amd64")
	p := docker20Push{c}
	tree := schema2(o.Tree)
	c.result.Pushed = tree
	return c.finish(p.push(ctx, tree.Root))
}

type docker20Push struct{ *connection }

func (p docker20Push) push(ctx context.Context, image *Manifest) error {
	r, err := p.do(ctx, request{method: http.MethodGet, path: "/"})
	if err != nil {
		return err
	}
	if r.status != http.StatusOK {
		return dockerError(r)
	}
	for _, tag := range p.Tags {
		if err := each(ctx, p.concurrency(5), image.Layers, p.blob); err != nil {
			return err
		}
		if err := p.blob(ctx, image.Config); err != nil {
			return err
		}
		if err := p.manifest(ctx, image, tag); err != nil {
			return err
		}
	}
	return nil
}

// blob is distribution's v2 client: Stat, Create, ReadFrom (io.Pipe, hence chunked), Commit, which stats what it has made.
func (p docker20Push) blob(ctx context.Context, b *Blob) error {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "blobs/" + b.Digest})
	if err != nil {
		return err
	}
	if r.status == http.StatusOK {
		p.note(&p.result.Existing, b.Name)
		return nil
	}
	if r.status != http.StatusNotFound {
		return dockerError(r)
	}
	path := "blobs/uploads/"
	if p.MountFrom != "" {
		path += "?from=" + strings.ReplaceAll(p.MountFrom, "/", "%2F") + "&mount=" + strings.Replace(b.Digest, ":", "%3A", 1)
	}
	r, err = p.do(ctx, request{method: http.MethodPost, path: path})
	if err == nil && p.MountFrom != "" && r.status >= 400 { // falls back
		r, err = p.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/"})
	}
	if err != nil {
		return err
	}
	switch r.status {
	case http.StatusCreated:
		p.note(&p.result.Mounted, b.Name)
		return nil
	case http.StatusAccepted:
	default:
		return dockerError(r)
	}
	location, err := r.resolve()
	if err != nil {
		return err
	}
	r, err = p.do(ctx, request{method: http.MethodPatch, location: location, body: b.Open, size: -1})
	if err != nil {
		return err
	}
	if r.status/100 != 2 {
		return dockerError(r)
	}
	if location, err = r.resolve("digest", b.Digest); err != nil {
		return err
	}
	r, err = p.do(ctx, request{method: http.MethodPut, location: location, body: bytesBody(nil)})
	if err != nil {
		return err
	}
	if r.status/100 != 2 {
		return dockerError(r)
	}
	r, err = p.do(ctx, request{method: http.MethodHead, path: "blobs/" + b.Digest})
	if err != nil {
		return err
	}
	if r.status != http.StatusOK {
		return fmt.Errorf("unknown blob")
	}
	p.note(&p.result.Uploaded, b.Name)
	return nil
}

// manifest: the digest in the answer is what docker push prints; without one it fails, a wrong one it believes.
func (p docker20Push) manifest(ctx context.Context, m *Manifest, tag string) error {
	r, err := p.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + tag, header: headers("Content-Type", m.MediaType), body: bytesBody(m.content), size: m.Size,
	})
	if err != nil {
		return err
	}
	if r.status/100 != 2 {
		return dockerError(r)
	}
	if d := r.digest(); !strings.HasPrefix(d, "sha256:") || len(d) != len(m.Digest) {
		return fmt.Errorf("invalid checksum digest format")
	}
	p.note(&p.result.Manifests, tag)
	return nil
}

// dockerError is distribution's client: the first errors as code and message, else the status.
func dockerError(r *reply) error {
	var said []string
	for _, e := range r.errors() {
		said = append(said, strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))+": "+e.Message)
	}
	switch {
	case len(said) == 1:
		return fmt.Errorf("%s", said[0])
	case len(said) > 1:
		return fmt.Errorf("errors:\n%s\n", strings.Join(said, "\n")) //nolint:staticcheck // ST1005: the client's own words
	}
	return fmt.Errorf("received unexpected HTTP status: %s", r.statusText)
}

// schema2 is the first image as Docker's own manifest, indented by three spaces as it marshals them.
func schema2(t *Tree) *Tree {
	image := t.Images()[0]
	if image.MediaType == MediaTypeDockerManifest {
		return &Tree{Scenario: t.Scenario, Tag: t.Tag, Root: image}
	}
	config := *image.Config
	config.MediaType = "application/vnd.docker.container.image.v1+json"
	m := &Manifest{Blob: Blob{Name: image.Name + "-schema2", MediaType: MediaTypeDockerManifest}, Platform: image.Platform, Config: &config}
	doc := v1.Manifest{MediaType: m.MediaType, Config: descriptor(&config)}
	doc.SchemaVersion = 2
	for _, l := range image.Layers {
		layer := *l
		layer.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		m.Layers = append(m.Layers, &layer)
		doc.Layers = append(doc.Layers, descriptor(&layer))
	}
	b, err := json.MarshalIndent(doc, "", "   ")
	if err != nil {
		panic(fmt.Sprintf("proxytest: structs of image-spec always marshal: %v", err))
	}
	m.content, m.Digest, m.Size = b, digestOf(b), int64(len(b))
	return &Tree{Scenario: t.Scenario, Tag: t.Tag, Root: m}
}
