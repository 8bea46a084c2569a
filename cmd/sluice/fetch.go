package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"sluice/filters/ocidoc"
)

// acceptManifests asks for documents as they are; registries convert what is not named.
var acceptManifests = []string{
	ocidoc.MediaTypeOCIIndex, ocidoc.MediaTypeOCIManifest, ocidoc.MediaTypeDockerList, ocidoc.MediaTypeDockerManifest, "*/*",
}

// do sends a request without a body. target is a path below /v2/<name>/, or an absolute URL
// on the same host. Whatever the status, the caller closes the body.
func (r *repository) do(ctx context.Context, method, target string, accept ...string) (*http.Response, error) {
	if !strings.Contains(target, "://") {
		// The transport turns https into what the registry has answered to.
		target = fmt.Sprintf("https://%s/v2/%s/%s", r.name.RegistryStr(), r.name.RepositoryStr(), target)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, err
	}
	if len(accept) > 0 {
		req.Header.Set("Accept", strings.Join(accept, ", "))
	}
	return r.client.Do(req)
}

// notFound is true for the error of a document or blob that is not there.
func notFound(err error) bool {
	var e *transport.Error
	return errors.As(err, &e) && e.StatusCode == http.StatusNotFound
}

// manifest reads a document by tag or digest. One by digest is checked against it.
func (r *repository) manifest(ctx context.Context, reference string) (*ocidoc.Document, error) {
	doc, _, err := r.document(ctx, reference)
	return doc, err
}

// document is manifest with the digest that the registry has in the document's place, if Sluice
// says so. It may also say so of one that it no longer has.
func (r *repository) document(ctx context.Context, reference string) (doc *ocidoc.Document, forwarded string, err error) {
	fail := func(err error) (*ocidoc.Document, string, error) {
		return nil, forwarded, fmt.Errorf("manifest %s of %s: %w", reference, r.name, err)
	}
	resp, err := r.do(ctx, http.MethodGet, "manifests/"+reference, acceptManifests...)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	forwarded = resp.Header.Get(forwardedHeader)
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return fail(err)
	}
	b, err := readAll(resp.Body, ocidoc.MaxBytes)
	if err != nil {
		return fail(err)
	}
	if ocidoc.ValidDigest(reference) {
		if err := check(reference, bytes.NewReader(b)); err != nil {
			return fail(err)
		}
	}
	doc, err = ocidoc.Parse(b, resp.Header.Get("Content-Type"))
	if err != nil {
		return fail(err)
	}
	return doc, forwarded, nil
}

// blob copies a blob to w and checks its size and digest; w has seen the bytes when
// they turn out to be wrong.
func (r *repository) blob(ctx context.Context, d ocidoc.Descriptor, w io.Writer) error {
	err := r.copyBlob(ctx, d, w)
	if err != nil {
		return fmt.Errorf("blob %s of %s: %w", d.Digest, r.name, err)
	}
	return nil
}

func (r *repository) copyBlob(ctx context.Context, d ocidoc.Descriptor, w io.Writer) error {
	// Sluice looks for statements at itself first, when they are asked for as what they are.
	resp, err := r.do(ctx, http.MethodGet, "blobs/"+d.Digest, d.MediaType, "*/*")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := checkStatus(resp, http.StatusOK); err != nil {
		return err
	}
	n := &counter{}
	if err := check(d.Digest, io.TeeReader(io.LimitReader(resp.Body, d.Size+1), io.MultiWriter(n, w))); err != nil {
		if n.bytes > d.Size {
			return fmt.Errorf("is larger than the %d bytes its manifest says", d.Size)
		}
		return err
	}
	return nil
}

type counter struct{ bytes int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}

// check reads everything and compares its digest.
func check(digest string, content io.Reader) error {
	algorithm, want, _ := strings.Cut(digest, ":")
	var h hash.Hash
	switch algorithm {
	case "sha256":
		h = sha256.New()
	case "sha512":
		h = sha512.New()
	default:
		return fmt.Errorf("digest %q: not one of sha256 and sha512", digest)
	}
	if _, err := io.Copy(h, content); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("what the registry sent has the digest %s:%s", algorithm, got)
	}
	return nil
}

func readAll(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("larger than %d bytes", most)
	}
	return b, err
}

// nextPage is the target of a Link header (RFC 8288) with rel=next, absolute; "" for none.
// It stays on the registry's host, whatever the header says.
func nextPage(resp *http.Response) (string, error) {
	for _, link := range resp.Header.Values("Link") {
		target, parameters, ok := strings.Cut(link, ">")
		if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
			continue
		}
		u, err := url.Parse(target[1:])
		if err != nil {
			return "", fmt.Errorf("next page: %w", err)
		}
		u = resp.Request.URL.ResolveReference(u)
		if u.Host != resp.Request.URL.Host || u.Scheme != resp.Request.URL.Scheme {
			return "", fmt.Errorf("next page is on another host, %s", u.Host)
		}
		return u.String(), nil
	}
	return "", nil
}
