package proxytest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
)

// Oras is oras cp (oras-go registry/remote/repository.go): HEAD of each node, root first, and nothing below one that is
// there; blobs POST and one PUT; after every manifest PUT a GET of it by digest, after the tag too. It wants 201, and
// the digest, when there is one, to be its own. Without OCI-Subject it keeps the fallback tag.
func Oras(ctx context.Context, o Options) (Result, error) {
	c := connect(o, "oras/1.2.3")
	// oras-go retry/policy.go: 408, 429 and 5xx except 501.
	c.retryable = func(r *reply) bool { return r.status == 408 || r.status == 429 || r.status >= 500 && r.status != 501 }
	p := &orasPush{connection: c}
	return c.finish(p.push(ctx))
}

type orasPush struct {
	*connection
	once onces
}

func (p *orasPush) push(ctx context.Context) error {
	references := p.Tags
	if p.ByDigest {
		references = append(references[:len(references):len(references)], p.Tree.Digest())
	}
	for _, reference := range references {
		r, err := p.head(ctx, "manifests/"+p.Tree.Digest(), p.Tree.Root.MediaType)
		if err != nil {
			return err
		}
		if r.status == http.StatusNotFound {
			if err := p.below(ctx, p.Tree.Root); err != nil {
				return err
			}
		}
		if r.status == http.StatusOK && reference == p.Tree.Digest() {
			p.note(&p.result.Skipped, reference)
			continue
		}
		if err := p.put(ctx, p.Tree.Root, reference); err != nil {
			return err
		}
	}
	return nil
}

func (p *orasPush) head(ctx context.Context, path, accept string) (*reply, error) {
	h := http.Header{}
	if accept != "" {
		h = headers("Accept", accept)
	}
	r, err := p.do(ctx, request{method: http.MethodHead, path: path, header: h})
	if err != nil {
		return nil, err
	}
	if r.status == http.StatusMethodNotAllowed { // tolerated: as if it were not there
		r.status = http.StatusNotFound
	}
	if r.status != http.StatusOK && r.status != http.StatusNotFound {
		return nil, orasError(r)
	}
	if r.status == http.StatusOK { // generateDescriptor: the size comes from the header
		if r.length == -1 {
			return nil, fmt.Errorf("HEAD %q: unknown response Content-Length", r.url)
		}
	}
	return r, nil
}

func (p *orasPush) below(ctx context.Context, m *Manifest) error {
	err := each(ctx, p.concurrency(3), m.Children, func(ctx context.Context, c *Manifest) error {
		return p.once.do(ctx, c.Digest, func(ctx context.Context) error {
			r, err := p.head(ctx, "manifests/"+c.Digest, c.MediaType)
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

func (p *orasPush) blob(ctx context.Context, b *Blob) error {
	r, err := p.head(ctx, "blobs/"+b.Digest, "")
	if err != nil {
		return err
	}
	if r.status == http.StatusOK {
		p.note(&p.result.Existing, b.Name)
		return nil
	}
	if r, err = p.do(ctx, request{method: http.MethodPost, path: "blobs/uploads/"}); err != nil {
		return err
	}
	if r.status != http.StatusAccepted {
		return orasError(r)
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
	if r.status != http.StatusCreated {
		return orasError(r)
	}
	p.note(&p.result.Uploaded, b.Name)
	return nil
}

func (p *orasPush) put(ctx context.Context, m *Manifest, reference string) error {
	r, err := p.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + reference, header: headers("Content-Type", m.MediaType), body: bytesBody(m.content), size: m.Size,
	})
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return orasError(r)
	}
	if err := orasDigest(r, m.Digest); err != nil {
		return err
	}
	p.note(&p.result.Manifests, reference)
	if m.Subject != nil && r.header.Get("OCI-Subject") == "" {
		if err := p.referrer(ctx, m); err != nil {
			return err
		}
	}
	r, err = p.do(ctx, request{method: http.MethodGet, path: "manifests/" + m.Digest, header: headers("Accept", m.MediaType)})
	if err != nil {
		return err
	}
	if r.status != http.StatusOK {
		return orasError(r)
	}
	if err := orasDigest(r, m.Digest); err != nil {
		return err
	}
	if got := digestOf(r.body); got != m.Digest {
		return fmt.Errorf("%s: mismatch digest: content is %s", m.Digest, got)
	}
	return nil
}

// referrer is pushWithIndexing: the API is asked for, then the fallback tag written.
func (p *orasPush) referrer(ctx context.Context, m *Manifest) error {
	r, err := p.do(ctx, request{method: http.MethodGet, path: "referrers/" + m.Subject.Digest.String(), header: headers("Accept", MediaTypeOCIIndex)})
	if err != nil {
		return err
	}
	if r.status == http.StatusOK {
		return nil
	}
	if r.status != http.StatusNotFound {
		return orasError(r)
	}
	if r, err = p.putFallback(ctx, m); err != nil {
		return err
	}
	if r.status/100 != 2 {
		return orasError(r)
	}
	return nil
}

func orasDigest(r *reply, want string) error {
	got := r.digest()
	if got == "" || got == want {
		return nil
	}
	if !strings.HasPrefix(got, "sha256:") {
		return fmt.Errorf("%s %q: invalid response header: `Docker-Content-Digest: %s`", r.method, r.url, got)
	}
	return fmt.Errorf("%s %q: invalid response; digest mismatch in Docker-Content-Digest: received %q when expecting %q", r.method, r.url, got, want)
}

// orasError is errcode.ErrorResponse.
func orasError(r *reply) error {
	var said []string
	for _, e := range r.errors() {
		said = append(said, strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))+": "+e.Message)
	}
	if len(said) == 0 {
		said = []string{http.StatusText(r.status)}
	}
	return fmt.Errorf("%s %q: response status code %d: %s", r.method, r.url, r.status, strings.Join(said, ": "))
}
