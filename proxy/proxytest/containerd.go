package proxytest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// BuildKit pushes as buildkitd does with containerd's docker pusher (containerd core/remotes/docker/pusher.go, buildkit
// util/push/push.go): per blob HEAD, POST, one PUT; then the manifests one at a time, HEAD and PUT, last pushed onto the
// stack first; the root last. The whole sequence for every tag. Nothing is read back.
func BuildKit(ctx context.Context, o Options) (Result, error) {
	return pushContainerd(ctx, o, flavour{agent: "buildkit/v0.30-dev", blobs: 5, manifests: 1})
}

// Docker29 is Docker Engine with the containerd image store: as BuildKit, the children concurrently.
func Docker29(ctx context.Context, o Options) (Result, error) {
	return pushContainerd(ctx, o, flavour{agent: "docker/29.0.0 go/go1.25", blobs: 5, manifests: 5})
}

// Containerd16 is ctr 1.6 push: as BuildKit, and it insists on Docker-Content-Digest for manifests and blobs, and does not
// retry a 503.
func Containerd16(ctx context.Context, o Options) (Result, error) {
	return pushContainerd(ctx, o, flavour{agent: "containerd/1.6.20", blobs: 5, manifests: 1, needsDigest: true})
}

type flavour struct {
	agent            string
	blobs, manifests int // at a time
	needsDigest      bool
}

func pushContainerd(ctx context.Context, o Options, f flavour) (Result, error) {
	c := connect(o, f.agent)
	// resolver.go retryRequest: 408 and 429 always, 500, 503, 504 once each.
	c.retryable = func(r *reply) bool {
		return r.status == http.StatusTooManyRequests || r.status == http.StatusRequestTimeout ||
			!f.needsDigest && (r.status == http.StatusServiceUnavailable || r.status == http.StatusInternalServerError || r.status == http.StatusGatewayTimeout)
	}
	c.retriesLost = !f.needsDigest
	references := slices.Clone(o.Tags)
	if o.ByDigest {
		references = append(references, "")
	}
	p := containerdPush{connection: c, flavour: f}
	for _, tag := range references {
		if err := p.tree(ctx, tag); err != nil {
			at := ":" + tag
			if tag == "" {
				at = ""
			}
			return c.finish(fmt.Errorf("failed to push %s/%s%s: %w", hostOf(o.BaseURL), o.Repository, at, err))
		}
	}
	return c.finish(nil)
}

type containerdPush struct {
	*connection
	flavour flavour
}

func (p containerdPush) tree(ctx context.Context, tag string) error {
	if err := each(ctx, p.concurrency(p.flavour.blobs), p.Tree.Blobs(), p.blob); err != nil {
		return err
	}
	manifests := p.Tree.Manifests() // the root is last
	root := manifests[len(manifests)-1]
	// A stack filled from the root down and emptied from the top: children of one index in reverse order, and an
	// inner index after its children.
	children := manifests[:len(manifests)-1]
	if !p.ImagesFirst {
		children = reverseLevels(p.Tree.Root)
	}
	put := func(ctx context.Context, m *Manifest) error { return p.manifest(ctx, m, m.Digest) }
	limit := p.concurrency(p.flavour.manifests)
	if slices.ContainsFunc(children, (*Manifest).IsIndex) {
		limit = 1 // never an inner index beside its own children
	}
	if err := each(ctx, limit, children, put); err != nil {
		return err
	}
	if tag == "" {
		tag = root.Digest
	}
	return p.manifest(ctx, root, tag)
}

// reverseLevels lists the manifests below root, each digest once, last child first, children before their parent.
func reverseLevels(root *Manifest) []*Manifest {
	var all []*Manifest
	seen := map[string]bool{}
	var walk func(m *Manifest)
	walk = func(m *Manifest) {
		for _, c := range slices.Backward(m.Children) {
			if !seen[c.Digest] {
				seen[c.Digest] = true
				walk(c)
				all = append(all, c)
			}
		}
	}
	walk(root)
	return all
}

func (p containerdPush) blob(ctx context.Context, b *Blob) error {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "blobs/" + b.Digest, header: headers("Accept", b.MediaType+", */*")})
	if err != nil {
		return fmt.Errorf("failed to do request: %w", err)
	}
	switch r.status {
	case http.StatusOK:
		p.note(&p.result.Existing, b.Name)
		return nil
	case http.StatusNotFound:
	default:
		return unexpectedStatus(r)
	}
	path := "blobs/uploads/"
	if p.MountFrom != "" {
		path += "?mount=" + b.Digest + "&from=" + p.MountFrom // as containerd writes it: not escaped
	}
	r, err = p.do(ctx, request{method: http.MethodPost, path: path})
	if err == nil && p.MountFrom != "" && r.status == http.StatusUnauthorized { // "should remove mount-from query and send the request again"
		r, err = p.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/"})
	}
	if err != nil {
		return fmt.Errorf("failed to do request: %w", err)
	}
	switch r.status {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
	case http.StatusCreated:
		p.note(&p.result.Mounted, b.Name)
		return nil
	default:
		return unexpectedStatus(r)
	}
	location, err := r.resolve("digest", b.Digest)
	if err != nil {
		return err
	}
	r, err = p.do(ctx, request{
		method: http.MethodPut, location: location, header: headers("Content-Type", "application/octet-stream"),
		body: b.Open, size: b.Size,
	})
	if err := p.committed(r, err, b); err != nil {
		return err
	}
	p.note(&p.result.Uploaded, b.Name)
	return nil
}

func (p containerdPush) manifest(ctx context.Context, m *Manifest, reference string) error {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "manifests/" + reference, header: headers("Accept", m.MediaType+", */*")})
	if err == nil && r.status == http.StatusMethodNotAllowed { // resolver.go: HEAD becomes GET
		r, err = p.do(ctx, request{method: http.MethodGet, path: "manifests/" + reference, header: headers("Accept", m.MediaType+", */*")})
	}
	if err != nil {
		return fmt.Errorf("failed to do request: %w", err)
	}
	switch {
	case r.status == http.StatusOK && (reference == m.Digest || r.digest() == m.Digest):
		p.note(&p.result.Skipped, reference)
		return nil
	case r.status == http.StatusOK, r.status == http.StatusNotFound:
	default:
		return unexpectedStatus(r)
	}
	r, err = p.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + reference, header: headers("Content-Type", m.MediaType), body: bytesBody(m.content), size: m.Size,
	})
	if err := p.committed(r, err, &m.Blob); err != nil {
		return err
	}
	p.note(&p.result.Manifests, reference)
	return nil
}

// committed is pushWriter.Commit: 202 is refused before it, a digest that is not the pushed one after it.
func (p containerdPush) committed(r *reply, err error, b *Blob) error {
	ref := refKey(b)
	if err != nil {
		return fmt.Errorf("failed to copy: failed to do request: %w", err)
	}
	switch r.status {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
	default:
		return fmt.Errorf("failed commit on ref %q: %w", ref, unexpectedStatus(r))
	}
	switch got := r.digest(); {
	case got == "" && !p.flavour.needsDigest:
		return nil
	case len(got) != len(b.Digest) || !strings.HasPrefix(got, "sha256:"):
		return fmt.Errorf("failed commit on ref %q: invalid content digest in response: invalid checksum digest format", ref)
	case got != b.Digest:
		return fmt.Errorf("failed commit on ref %q: got digest %s, expected %s", ref, got, b.Digest)
	}
	return nil
}

// refKey is containerd core/remotes/handlers.go MakeRefKey.
func refKey(b *Blob) string {
	switch {
	case b.MediaType == MediaTypeOCIManifest, b.MediaType == MediaTypeDockerManifest:
		return "manifest-" + b.Digest
	case b.MediaType == MediaTypeOCIIndex, b.MediaType == MediaTypeDockerList:
		return "index-" + b.Digest
	case strings.Contains(b.MediaType, ".layer.") || strings.Contains(b.MediaType, ".rootfs."):
		return "layer-" + b.Digest
	case strings.HasPrefix(b.MediaType, "application/vnd.in-toto"):
		return "attestation-" + b.Digest
	case strings.HasSuffix(b.MediaType, "config.v1+json") || strings.Contains(b.MediaType, "container.image") || strings.Contains(b.MediaType, "cacheconfig"):
		return "config-" + b.Digest
	}
	return "unknown-" + b.Digest
}

// unexpectedStatus is containerd's ErrUnexpectedStatus joined with the registry's own errors.
func unexpectedStatus(r *reply) error {
	err := fmt.Errorf("unexpected status from %s request to %s: %s", r.method, r.url, r.statusText)
	errs := []error{err}
	for _, e := range r.errors() {
		errs = append(errs, fmt.Errorf("%s: %s", strings.ToLower(strings.ReplaceAll(e.Code, "_", " ")), e.Message))
	}
	return errors.Join(errs...)
}

func hostOf(base string) string {
	_, host, _ := strings.Cut(base, "://")
	return strings.TrimSuffix(host, "/")
}
