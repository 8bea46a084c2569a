package proxytest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// PullOptions of reading an image back.
type PullOptions struct {
	BaseURL, Repository, Reference string
	Client                         *http.Client
	Authorization                  string
	Missing                        []*Blob // of a tree whose layers were seeded: looked for, not read
}

// PullAll reads all that a tag or digest leads to, as a reader of every platform would: the index, each child, each
// configuration, statement and layer; every digest, size and media type is verified, and HEAD must agree with GET.
func PullAll(ctx context.Context, base, repository, reference string) (*Tree, error) {
	return Pull(ctx, PullOptions{BaseURL: base, Repository: repository, Reference: reference})
}

// Pull is PullAll with options.
func Pull(ctx context.Context, o PullOptions) (*Tree, error) {
	p := puller{connect(Options{BaseURL: o.BaseURL, Repository: o.Repository, Client: o.Client, Authorization: o.Authorization}, "proxytest/pull")}
	defer p.close()
	tree, err := p.pull(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("pull %s/%s:%s: %w", hostOf(o.BaseURL), o.Repository, o.Reference, err)
	}
	return tree, nil
}

type puller struct{ *connection }

func allTypes() http.Header {
	return headers("Accept", strings.Join([]string{MediaTypeDockerManifest, MediaTypeDockerList, MediaTypeOCIManifest, MediaTypeOCIIndex, "*/*"}, ", "))
}

func (p puller) pull(ctx context.Context, o PullOptions) (*Tree, error) {
	head, err := p.do(ctx, request{method: http.MethodHead, path: "manifests/" + o.Reference, header: allTypes()})
	if err != nil {
		return nil, err
	}
	if head.status != http.StatusOK {
		return nil, unexpectedStatus(head)
	}
	root, err := p.document(ctx, o.Reference, allTypes())
	if err != nil {
		return nil, err
	}
	for _, h := range []string{"Docker-Content-Digest", "Content-Type", "Content-Length"} {
		if got, want := head.header.Get(h), root.header.Get(h); got != want {
			return nil, fmt.Errorf("HEAD says %s: %s, GET says %s", h, got, want)
		}
	}
	tree, err := parseTree("pulled", o.Reference, root.body, root.header.Get("Content-Type"), func(d v1.Descriptor, manifest bool) ([]byte, bool, error) {
		if !manifest {
			return nil, false, nil // below, once each
		}
		r, err := p.document(ctx, d.Digest.String(), headers("Accept", d.MediaType+", */*"))
		if err != nil {
			return nil, false, err
		}
		if got := r.header.Get("Content-Type"); got != d.MediaType {
			return nil, false, fmt.Errorf("%s has Content-Type %s, the index says %s", d.Digest, got, d.MediaType)
		}
		if int64(len(r.body)) != d.Size {
			return nil, false, fmt.Errorf("%s has %d bytes, the index says %d", d.Digest, len(r.body), d.Size)
		}
		return r.body, true, nil
	})
	if err != nil {
		return nil, err
	}
	seeded := map[string]bool{}
	for _, b := range o.Missing {
		seeded[b.Digest] = true
	}
	var errs []error
	for _, b := range tree.Blobs() {
		if seeded[b.Digest] {
			errs = append(errs, p.present(ctx, b))
		} else if err := p.blob(ctx, b); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", b.Name, err))
		}
	}
	return tree, errors.Join(errs...)
}

// document reads a manifest and holds it against its digest.
func (p puller) document(ctx context.Context, reference string, accept http.Header) (*reply, error) {
	r, err := p.do(ctx, request{method: http.MethodGet, path: "manifests/" + reference, header: accept})
	if err != nil {
		return nil, err
	}
	if r.status != http.StatusOK {
		return nil, unexpectedStatus(r)
	}
	digest := digestOf(r.body)
	if strings.HasPrefix(reference, "sha256:") && reference != digest {
		return nil, fmt.Errorf("the content of %s has the digest %s", reference, digest)
	}
	if got := r.digest(); got != "" && got != digest {
		return nil, fmt.Errorf("the content of %s has the digest %s, Docker-Content-Digest says %s", reference, digest, got)
	}
	return r, nil
}

// blob streams and verifies; what is small stays in memory.
func (p puller) blob(ctx context.Context, b *Blob) error {
	body, err := p.stream(ctx, b.Digest)
	if err != nil {
		return err
	}
	defer body.Close()
	hash, held := sha256.New(), &bytes.Buffer{}
	var w io.Writer = hash
	if b.Size < heldLayer {
		w = io.MultiWriter(hash, held)
	}
	n, err := io.Copy(w, body)
	if err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != b.Digest {
		return fmt.Errorf("the content of %s has the digest %s", b.Digest, got)
	}
	if n != b.Size {
		return fmt.Errorf("%s has %d bytes, its manifest says %d", b.Digest, n, b.Size)
	}
	if b.Size < heldLayer {
		b.content = held.Bytes()
		if b.content == nil {
			b.content = []byte{}
		}
	} else {
		b.open = func() io.ReadCloser {
			return &lazyBody{open: func() (io.ReadCloser, error) { return p.stream(ctx, b.Digest) }}
		}
	}
	return nil
}

func (p puller) stream(ctx context.Context, digest string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(p.BaseURL, "/")+"/v2/"+p.Repository+"/blobs/"+digest, nil)
	if err != nil {
		return nil, err
	}
	if p.Authorization != "" {
		req.Header.Set("Authorization", p.Authorization)
	}
	p.requests.Add(1)
	resp, err := p.Client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("unexpected status from GET request to %s: %s", req.URL, resp.Status)
	}
	return resp.Body, nil
}

func (p puller) present(ctx context.Context, b *Blob) error {
	r, err := p.do(ctx, request{method: http.MethodHead, path: "blobs/" + b.Digest})
	switch {
	case err != nil:
		return err
	case r.status != http.StatusOK:
		return fmt.Errorf("%s: %w", b.Name, unexpectedStatus(r))
	case r.length != b.Size:
		return fmt.Errorf("%s has %d bytes, its manifest says %d", b.Digest, r.length, b.Size)
	}
	return nil
}

// lazyBody opens at the first Read; Close may come from another goroutine, as net/http's does.
type lazyBody struct {
	open func() (io.ReadCloser, error)

	mu     sync.Mutex
	body   io.ReadCloser
	closed bool
}

func (l *lazyBody) Read(p []byte) (int, error) {
	l.mu.Lock()
	body, closed := l.body, l.closed
	l.mu.Unlock()
	if closed {
		return 0, net.ErrClosed
	}
	if body == nil {
		opened, err := l.open()
		if err != nil {
			return 0, err
		}
		l.mu.Lock()
		if l.closed {
			l.mu.Unlock()
			opened.Close()
			return 0, net.ErrClosed
		}
		l.body = opened
		l.mu.Unlock()
		body = opened
	}
	return body.Read(p)
}

func (l *lazyBody) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.body == nil {
		return nil
	}
	return l.body.Close()
}
