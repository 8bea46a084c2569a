package proxytest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Regctl is regctl image copy (regclient image.go, scheme/reg/blob.go and manifest.go): HEAD of the tag, which ends it when
// it is the same; HEAD and PUT of the children; blobs HEAD, POST with ?mount= but no from, one PUT. It wants 201 and, when
// there is a digest, its own; blobs may be answered 204. OCI-Subject spares it the fallback tag.
func Regctl(ctx context.Context, o Options) (Result, error) {
	c := connect(o, "regclient/regctl (v0.11.7)")
	c.retryable = func(r *reply) bool {
		return r.status == http.StatusTooManyRequests || r.status == http.StatusRequestTimeout
	}
	p := &regctlPush{connection: c}
	return c.finish(p.push(ctx))
}

type regctlPush struct {
	*connection
	once onces
}

// regctl sends each type as an Accept line of its own.
func (p *regctlPush) accept() http.Header {
	return headers("Accept", MediaTypeOCIIndex, "Accept", MediaTypeDockerList, "Accept", MediaTypeOCIManifest, "Accept", MediaTypeDockerManifest)
}

func (p *regctlPush) push(ctx context.Context) error {
	r, err := p.do(ctx, request{method: http.MethodGet, path: "/"})
	if err != nil {
		return err
	}
	if r.status != http.StatusOK {
		return p.error("ping registry", p.BaseURL, r)
	}
	references := p.Tags
	if p.ByDigest {
		references = append(references[:len(references):len(references)], p.Tree.Digest())
	}
	for _, reference := range references {
		r, err := p.do(ctx, request{method: http.MethodHead, path: "manifests/" + reference, header: p.accept()})
		if err != nil {
			return err
		}
		if r.status == http.StatusOK && r.digest() == p.Tree.Digest() {
			p.note(&p.result.Skipped, reference)
			continue
		}
		if err := p.below(ctx, p.Tree.Root); err != nil {
			return err
		}
		if err := p.put(ctx, p.Tree.Root, reference); err != nil {
			return err
		}
	}
	return nil
}

func (p *regctlPush) below(ctx context.Context, m *Manifest) error {
	err := each(ctx, p.concurrency(3), m.Children, func(ctx context.Context, c *Manifest) error {
		return p.once.do(ctx, c.Digest, func(ctx context.Context) error {
			r, err := p.do(ctx, request{method: http.MethodHead, path: "manifests/" + c.Digest, header: p.accept()})
			if err != nil {
				return err
			}
			if r.status == http.StatusOK {
				p.note(&p.result.Skipped, c.Digest)
				return nil
			}
			if err := p.below(ctx, c); err != nil {
				return err
			}
			return p.put(ctx, c, c.Digest)
		})
	})
	if err != nil {
		return err
	}
	return each(ctx, p.concurrency(3), m.Blobs(), func(ctx context.Context, b *Blob) error {
		return p.once.do(ctx, b.Digest, func(ctx context.Context) error { return p.blob(ctx, b) })
	})
}

func (p *regctlPush) blob(ctx context.Context, b *Blob) error {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "blobs/" + b.Digest})
	if err != nil {
		return err
	}
	if r.status == http.StatusOK {
		p.note(&p.result.Existing, b.Name)
		return nil
	}
	mount := url.Values{"mount": {b.Digest}}
	if p.MountFrom != "" {
		mount.Set("from", p.MountFrom)
	}
	r, err = p.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/?" + mount.Encode()})
	if err != nil {
		return err
	}
	if r.status == http.StatusCreated {
		p.note(&p.result.Mounted, b.Name)
		return nil
	}
	if r.status != http.StatusAccepted || r.header.Get("Location") == "" { // ignored: a plain POST follows
		if r, err = p.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/"}); err != nil {
			return err
		}
		if r.status != http.StatusAccepted {
			return p.error("send blob post", b.Digest, r)
		}
	}
	location, err := r.resolve("digest", b.Digest)
	if err != nil {
		return err
	}
	r, err = p.do(ctx, request{
		method: http.MethodPut, location: location, header: headers("Content-Type", "application/octet-stream"), body: b.Open, size: b.Size,
	})
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated && r.status != http.StatusNoContent {
		return p.error("send blob (put), digest "+b.Digest, b.Digest, r)
	}
	p.note(&p.result.Uploaded, b.Name)
	return nil
}

func (p *regctlPush) put(ctx context.Context, m *Manifest, reference string) error {
	r, err := p.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + reference, header: headers("Content-Type", m.MediaType), body: bytesBody(m.content), size: m.Size,
	})
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return p.error("put manifest", reference, r)
	}
	if got := r.digest(); got != "" && got != m.Digest {
		return fmt.Errorf("failed to put manifest, unexpected digest returned, expected %s, received %s", m.Digest, got)
	}
	p.note(&p.result.Manifests, reference)
	if m.Subject == nil || r.header.Get("OCI-Subject") == m.Subject.Digest.String() {
		return nil
	}
	if r, err = p.putFallback(ctx, m); err != nil {
		return err
	}
	if r.status/100 != 2 {
		return p.error("put the fallback tag of", m.Subject.Digest.String(), r)
	}
	return nil
}

func (p *regctlPush) error(what, reference string, r *reply) error {
	said := ""
	if len(r.body) > 0 {
		said = ": " + strings.TrimSpace(string(r.body[:min(len(r.body), 500)]))
	}
	return fmt.Errorf("failed to %s, ref %s/%s@%s: request failed: http status: %s%s", what, hostOf(p.BaseURL), p.Repository, reference, r.statusText, said)
}
