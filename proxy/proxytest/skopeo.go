package proxytest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Skopeo is skopeo copy --all (containers/image docker_image_dest.go; buildah and podman push the same): GET /v2/; the
// children strictly in the order of the index, each with its layers (HEAD, mount, POST, PATCH with a length, empty PUT),
// then its configuration, then its PUT without a HEAD; the index by tag. It checks no digests and retries nothing.
func Skopeo(ctx context.Context, o Options) (Result, error) {
	c := connect(o, "skopeo/1.9.3")
	p := skopeoPush{c}
	return c.finish(p.push(ctx))
}

type skopeoPush struct{ *connection }

func (p skopeoPush) push(ctx context.Context) error {
	r, err := p.do(ctx, request{method: http.MethodGet, path: "/"})
	if err != nil {
		return fmt.Errorf("pinging container registry %s: %w", hostOf(p.BaseURL), err)
	}
	if r.status != http.StatusOK && r.status != http.StatusUnauthorized {
		return fmt.Errorf("pinging container registry %s: invalid status code from registry %d (%s)", hostOf(p.BaseURL), r.status, http.StatusText(r.status))
	}
	references := p.Tags
	if p.ByDigest {
		references = append(references[:len(references):len(references)], p.Tree.Digest())
	}
	for _, reference := range references {
		for _, m := range p.Tree.Manifests() { // children before their index, in its order
			if err := p.image(ctx, m); err != nil {
				return err
			}
			at := m.Digest
			if m == p.Tree.Root {
				at = reference
			}
			if err := p.manifest(ctx, m, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// image copies what one manifest needs; a layer that an earlier image had is asked for again (TryReusingBlob).
func (p skopeoPush) image(ctx context.Context, m *Manifest) error {
	blobs := m.Blobs()
	if m.Config == nil {
		return each(ctx, p.concurrency(6), blobs, p.blob)
	}
	if err := each(ctx, p.concurrency(6), blobs[1:], p.blob); err != nil {
		return err
	}
	return p.blob(ctx, m.Config)
}

func (p skopeoPush) blob(ctx context.Context, b *Blob) error {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "blobs/" + b.Digest})
	if err != nil {
		return fmt.Errorf("trying to reuse blob %s at destination: %w", b.Digest, err)
	}
	switch r.status {
	case http.StatusOK:
		p.note(&p.result.Existing, b.Name)
		return nil
	case http.StatusNotFound:
	default:
		return fmt.Errorf("trying to reuse blob %s at destination: checking whether a blob %s exists in %s/%s: %s",
			b.Digest, b.Digest, hostOf(p.BaseURL), p.Repository, skopeoError(r))
	}
	if p.MountFrom != "" {
		path := "blobs/uploads/?from=" + strings.ReplaceAll(p.MountFrom, "/", "%2F") + "&mount=" + strings.Replace(b.Digest, ":", "%3A", 1)
		if r, err = p.do(ctx, request{method: http.MethodPost, path: path}); err != nil {
			return fmt.Errorf("trying to reuse blob %s at destination: %w", b.Digest, err)
		}
		switch r.status {
		case http.StatusCreated:
			p.note(&p.result.Mounted, b.Name)
			return nil
		case http.StatusAccepted: // not mounted: the session that was opened is cancelled, docker_image_dest.go mountBlob
			location, err := r.resolve()
			if err != nil {
				return fmt.Errorf("determining upload URL after a mount attempt: %w", err)
			}
			if _, err := p.do(ctx, request{method: http.MethodDelete, location: location}); err != nil {
				return fmt.Errorf("canceling upload after a mount attempt: %w", err)
			}
		}
	}
	if err := p.upload(ctx, b); err != nil {
		return fmt.Errorf("writing blob: %w", err)
	}
	p.note(&p.result.Uploaded, b.Name)
	return nil
}

func (p skopeoPush) upload(ctx context.Context, b *Blob) error {
	r, err := p.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/"})
	if err != nil {
		return err
	}
	if r.status != http.StatusAccepted {
		return fmt.Errorf("initiating layer upload to /v2/%s/blobs/uploads/ in %s: %s", p.Repository, hostOf(p.BaseURL), skopeoError(r))
	}
	location, err := r.resolve()
	if err != nil {
		return fmt.Errorf("determining upload URL: %w", err)
	}
	r, err = p.do(ctx, request{
		method: http.MethodPatch, location: location, header: headers("Content-Type", "application/octet-stream"), body: b.Open, size: b.Size,
	})
	if err != nil {
		return fmt.Errorf("uploading layer chunked: %w", err)
	}
	if r.status/100 != 2 {
		return fmt.Errorf("uploading layer chunked: %s", skopeoError(r))
	}
	if location, err = r.resolve("digest", b.Digest); err != nil {
		return fmt.Errorf("determining upload URL: %w", err)
	}
	r, err = p.do(ctx, request{method: http.MethodPut, location: location, header: headers("Content-Type", "application/octet-stream"), body: bytesBody(nil)})
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return fmt.Errorf("uploading layer to %s: %s", location, skopeoError(r))
	}
	return nil
}

func (p skopeoPush) manifest(ctx context.Context, m *Manifest, reference string) error {
	r, err := p.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + reference, header: headers("Content-Type", m.MediaType), body: bytesBody(m.content), size: m.Size,
	})
	if err != nil {
		return fmt.Errorf("writing manifest: %w", err)
	}
	if r.status/100 != 2 {
		return fmt.Errorf("writing manifest: uploading manifest %s to %s/%s: %s", reference, hostOf(p.BaseURL), p.Repository, skopeoError(r))
	}
	p.note(&p.result.Manifests, reference)
	return nil
}

// skopeoError is registryHTTPResponseToError: the first registry error, else the status.
func skopeoError(r *reply) string {
	if all := r.errors(); len(all) > 0 {
		return strings.ToLower(strings.ReplaceAll(all[0].Code, "_", " ")) + ": " + all[0].Message
	}
	return fmt.Sprintf("StatusCode: %d, %q", r.status, string(r.body[:min(len(r.body), 200)]))
}
