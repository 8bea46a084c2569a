package proxytest

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// Crane is crane copy and crane push (go-containerregistry pkg/v1/remote pusher.go, write.go): GET /v2/; HEAD of the tag
// and of each child, which are skipped when there; blobs HEAD, POST with Content-Type application/json, PATCH with a
// length, empty PUT; children concurrently; the tag. It believes any digest, but wants Content-Length, Content-Type and
// digest on a HEAD that answers 200. For a subject it asks referrers/ and keeps the fallback tag itself.
func Crane(ctx context.Context, o Options) (Result, error) {
	c := connect(o, "crane/0.22.1 go-containerregistry/0.22.1")
	// transport/error.go: 408, 429, 500, 502, 503, 504, unless the body names a code that is not temporary.
	c.retryable = func(r *reply) bool {
		if all := r.errors(); len(all) > 0 {
			for _, e := range all {
				switch e.Code {
				case "BLOB_UPLOAD_INVALID", "TOOMANYREQUESTS", "UNKNOWN", "UNAVAILABLE":
				default:
					return false
				}
			}
			return r.status >= 400
		}
		return r.status == 429 || r.status == 408 || r.status >= 500 && r.status <= 504 && r.status != 501
	}
	c.retriesLost = true
	p := &cranePush{connection: c}
	return c.finish(p.push(ctx))
}

type cranePush struct {
	*connection
	pushed onces
}

const craneManifestTypes = "application/vnd.docker.distribution.manifest.v1+json,application/vnd.docker.distribution.manifest.v1+prettyjws," +
	"application/vnd.docker.distribution.manifest.v2+json,application/vnd.oci.image.manifest.v1+json," +
	"application/vnd.docker.distribution.manifest.list.v2+json,application/vnd.oci.image.index.v1+json"

func (p *cranePush) push(ctx context.Context) error {
	r, err := p.do(ctx, request{method: http.MethodGet, path: "/"})
	if err != nil {
		return err
	}
	if r.status != http.StatusOK {
		return craneError(r)
	}
	references := p.Tags
	if p.ByDigest {
		references = append(references[:len(references):len(references)], p.Tree.Digest())
	}
	for _, reference := range references {
		there, err := p.exists(ctx, reference, p.Tree.Root)
		if err != nil {
			return err
		}
		if there {
			p.note(&p.result.Skipped, reference)
			continue
		}
		if err := p.dependencies(ctx, p.Tree.Root); err != nil {
			return err
		}
		if err := p.put(ctx, p.Tree.Root, reference); err != nil {
			return err
		}
	}
	return nil
}

func (p *cranePush) dependencies(ctx context.Context, m *Manifest) error {
	// writeLayers: the layers, then the configuration.
	blobs := m.Layers
	if m.Config != nil {
		blobs = append(blobs[:len(blobs):len(blobs)], m.Config)
	}
	err := each(ctx, p.concurrency(4), blobs, func(ctx context.Context, b *Blob) error {
		return p.pushed.do(ctx, b.Digest, func(ctx context.Context) error { return p.blob(ctx, b) })
	})
	if err != nil {
		return err
	}
	return each(ctx, p.concurrency(4), m.Children, func(ctx context.Context, c *Manifest) error {
		return p.pushed.do(ctx, c.Digest, func(ctx context.Context) error { return p.child(ctx, c) })
	})
}

func (p *cranePush) child(ctx context.Context, m *Manifest) error {
	there, err := p.exists(ctx, m.Digest, m)
	if err != nil {
		return err
	}
	if there {
		p.note(&p.result.Skipped, m.Digest)
		return nil
	}
	if err := p.dependencies(ctx, m); err != nil {
		return err
	}
	return p.put(ctx, m, m.Digest)
}

func (p *cranePush) exists(ctx context.Context, reference string, m *Manifest) (bool, error) {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "manifests/" + reference, header: headers("Accept", craneManifestTypes)})
	if err != nil {
		return false, err
	}
	switch {
	case r.status == http.StatusNotFound, r.status == http.StatusForbidden:
		return false, nil
	case r.status != http.StatusOK:
		return false, craneError(r)
	case r.header.Get("Content-Type") == "":
		return false, fmt.Errorf("HEAD %s: response did not include Content-Type header", r.url)
	case r.length == -1:
		return false, fmt.Errorf("GET %s: response did not include Content-Length header", r.url)
	case r.digest() == "":
		return false, fmt.Errorf("HEAD %s: response did not include Docker-Content-Digest header", r.url)
	case strings.HasPrefix(reference, "sha256:") && r.digest() != reference:
		return false, fmt.Errorf("manifest digest: %q does not match requested digest: %q for %q", r.digest(), reference, r.url)
	}
	return r.digest() == m.Digest, nil
}

func (p *cranePush) blob(ctx context.Context, b *Blob) error {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "blobs/" + b.Digest})
	if err != nil {
		return err
	}
	switch r.status {
	case http.StatusOK:
		p.note(&p.result.Existing, b.Name)
		return nil
	case http.StatusNotFound:
	default:
		return craneError(r)
	}
	path := "blobs/uploads/"
	if p.MountFrom != "" {
		path += "?" + url.Values{"mount": {b.Digest}, "from": {p.MountFrom}, "origin": {hostOf(p.BaseURL)}}.Encode()
	}
	start := request{method: http.MethodPost, path: path, header: headers("Content-Type", "application/json")}
	r, err = p.do(ctx, start)
	if p.MountFrom != "" && (err != nil || r.status != http.StatusCreated && r.status != http.StatusAccepted) {
		start.path = "blobs/uploads/" // "retrying without mount"
		r, err = p.do(ctx, start)
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
		return craneError(r)
	}
	location, err := r.resolve()
	if err != nil {
		return err
	}
	r, err = p.do(ctx, request{
		method: http.MethodPatch, location: location, header: headers("Content-Type", "application/octet-stream"), body: b.Open, size: b.Size,
	})
	if err != nil {
		return err
	}
	if r.status != http.StatusNoContent && r.status != http.StatusAccepted && r.status != http.StatusCreated {
		return craneError(r)
	}
	if location, err = r.resolve("digest", b.Digest); err != nil {
		return err
	}
	r, err = p.do(ctx, request{method: http.MethodPut, location: location, header: headers("Content-Type", "application/octet-stream"), body: bytesBody(nil)})
	if err != nil {
		return err
	}
	if r.status != http.StatusCreated {
		return craneError(r)
	}
	p.note(&p.result.Uploaded, b.Name)
	return nil
}

func (p *cranePush) put(ctx context.Context, m *Manifest, reference string) error {
	r, err := p.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + reference, header: headers("Content-Type", m.MediaType), body: bytesBody(m.content), size: m.Size,
	})
	if err != nil {
		return err
	}
	if r.status != http.StatusOK && r.status != http.StatusCreated && r.status != http.StatusAccepted {
		return craneError(r)
	}
	p.note(&p.result.Manifests, reference)
	if m.Subject == nil {
		return nil
	}
	// commitSubjectReferrers looks at referrers/ itself, whatever OCI-Subject said.
	r, err = p.do(ctx, request{method: http.MethodGet, path: "referrers/" + m.Subject.Digest.String(), header: headers("Accept", MediaTypeOCIIndex)})
	if err != nil {
		return err
	}
	switch r.status {
	case http.StatusOK:
		return nil
	case http.StatusNotFound, http.StatusBadRequest:
	default:
		return craneError(r)
	}
	if r, err = p.putFallback(ctx, m); err != nil {
		return err
	}
	if r.status/100 != 2 {
		return craneError(r)
	}
	return nil
}

// craneError is transport.Error's text.
func craneError(r *reply) error {
	said := fmt.Sprintf("%s %s: ", r.method, r.url)
	all := r.errors()
	switch {
	case len(all) == 0 && len(r.body) == 0 && r.method == http.MethodHead:
		return fmt.Errorf("%sunexpected status code %d %s (HEAD responses have no body, use GET for details)", said, r.status, http.StatusText(r.status))
	case len(all) == 0 && len(r.body) == 0:
		return fmt.Errorf("%sunexpected status code %d %s", said, r.status, http.StatusText(r.status))
	case len(all) == 0:
		return fmt.Errorf("%sunexpected status code %d %s: %s", said, r.status, http.StatusText(r.status), r.body[:min(len(r.body), 500)])
	case len(all) > 1:
		said += "multiple errors returned: "
	}
	var each []string
	for _, e := range all {
		s := e.Code + ": " + e.Message
		if e.Detail != nil {
			s += fmt.Sprintf("; %v", e.Detail)
		}
		each = append(each, s)
	}
	return fmt.Errorf("%s%s", said, strings.Join(each, "; "))
}
