package proxytest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// ImagetoolsCreate is docker buildx imagetools create (buildx util/imagetools/create.go). From each source it reads HEAD of
// the reference, GET by digest, every child with attestation manifests, and referrers/ of each child, then the fallback
// tag; several sources become one index of their leaf manifests, one source keeps its bytes. At the destination it pushes
// as containerd does, everything at once, each blob's bytes coming from a throttled GET at the source: a registry that
// takes uploads one after another stops it. Without Sources it pushes Tree.
func ImagetoolsCreate(ctx context.Context, o Options) (Result, error) {
	f := flavour{agent: "buildx/v0.33.0", blobs: 64, manifests: 8}
	o.MountFrom = "" // "no mount"
	if len(o.Sources) == 0 {
		return pushContainerd(ctx, o, f)
	}
	tree, requests, err := o.readSources(ctx, f.agent)
	if err != nil {
		return Result{Requests: requests}, err
	}
	o.Tree = tree
	r, err := pushContainerd(ctx, o, f)
	r.Requests += requests
	return r, err
}

func (o Options) readSources(ctx context.Context, agent string) (*Tree, int, error) {
	var trees []*Tree
	requests := 0
	slots := make(chan struct{}, 4) // buildkit util/resolver/limited: four connections a host
	for _, s := range o.Sources {
		from := o
		from.BaseURL, from.Repository = s.BaseURL, s.Repository
		if from.BaseURL == "" {
			from.BaseURL = o.BaseURL
		}
		p := puller{connect(from, agent)}
		tree, err := p.source(ctx, s.Reference, slots)
		requests += int(p.requests.Load())
		if err != nil {
			return nil, requests, fmt.Errorf("%s/%s: %w", from.Repository, s.Reference, err)
		}
		trees = append(trees, tree)
	}
	if len(trees) == 1 {
		return trees[0], requests, nil
	}
	tree, err := combine(trees)
	return tree, requests, err
}

func (p puller) source(ctx context.Context, reference string, slots chan struct{}) (*Tree, error) {
	head, err := p.do(ctx, request{method: http.MethodHead, path: "manifests/" + reference, header: allTypes()})
	if err != nil {
		return nil, err
	}
	if head.status == http.StatusNotFound {
		return nil, fmt.Errorf("not found")
	}
	if head.status != http.StatusOK {
		return nil, unexpectedStatus(head)
	}
	digest := head.digest()
	if digest == "" {
		digest = reference
	}
	root, err := p.document(ctx, digest, headers("Accept", head.header.Get("Content-Type")+", */*"))
	if err != nil {
		return nil, err
	}
	tree, err := parseTree("imagetools", reference, root.body, head.header.Get("Content-Type"), func(d v1.Descriptor, manifest bool) ([]byte, bool, error) {
		if !manifest {
			return nil, false, nil
		}
		r, err := p.document(ctx, d.Digest.String(), headers("Accept", d.MediaType+", */*"))
		if err != nil {
			return nil, false, err
		}
		return r.body, true, p.referrers(ctx, d.Digest.String())
	})
	if err != nil {
		return nil, err
	}
	if !tree.Root.IsIndex() { // what the image is for stands in its configuration
		if err := p.platform(ctx, tree.Root); err != nil {
			return nil, err
		}
	}
	for _, b := range tree.Blobs() {
		b.open = func() io.ReadCloser { return p.throttled(ctx, b.Digest, slots) }
	}
	return tree, nil
}

func (p puller) platform(ctx context.Context, m *Manifest) error {
	body, err := p.stream(ctx, m.Config.Digest)
	if err != nil {
		return err
	}
	defer body.Close()
	var config v1.Image
	if err := json.NewDecoder(body).Decode(&config); err != nil {
		return fmt.Errorf("read the configuration %s: %w", m.Config.Digest, err)
	}
	m.Platform = config.OS + "/" + config.Architecture
	return nil
}

// referrers are asked for and not found, or found and not followed: what they list is not copied.
func (p puller) referrers(ctx context.Context, digest string) error {
	r, err := p.do(ctx, request{method: http.MethodGet, path: "referrers/" + digest, header: headers("Accept", MediaTypeOCIIndex+", */*")})
	if err != nil || r.status == http.StatusOK {
		return err
	}
	_, err = p.do(ctx, request{method: http.MethodGet, path: "manifests/" + strings.Replace(digest, ":", "-", 1), header: headers("Accept", MediaTypeOCIIndex+", */*")})
	return err
}

// throttled reads a blob once one of the source's connections is free, and frees it at the end.
func (p puller) throttled(ctx context.Context, digest string, slots chan struct{}) io.ReadCloser {
	l := &lazyBody{}
	l.open = func() (io.ReadCloser, error) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		free := sync.OnceFunc(func() { <-slots })
		body, err := p.stream(ctx, digest)
		if err != nil {
			free()
			return nil, err
		}
		return &freeing{ReadCloser: body, free: free}, nil
	}
	return l
}

type freeing struct {
	io.ReadCloser
	free func()
}

func (f *freeing) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil {
		f.free()
	}
	return n, err
}

func (f *freeing) Close() error {
	defer f.free()
	return f.ReadCloser.Close()
}

// combine is one index of the leaf manifests of several, in order, each digest once, with the entries they had.
func combine(trees []*Tree) (*Tree, error) {
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: MediaTypeOCIIndex}
	root := &Manifest{Blob: Blob{Name: "index", MediaType: MediaTypeOCIIndex}}
	seen := map[string]bool{}
	for _, t := range trees {
		children, doc := []*Manifest{t.Root}, document{Manifests: []v1.Descriptor{descriptor(&t.Root.Blob)}}
		if t.Root.IsIndex() {
			children = t.Root.Children
			var ok bool
			if doc, ok = parseDocument(t.Root.content); !ok {
				return nil, fmt.Errorf("the source %s is not an index", t.Root.Digest)
			}
		} else if len(t.Root.Platform) > 0 {
			os, architecture, _ := strings.Cut(t.Root.Platform, "/")
			doc.Manifests[0].Platform = &v1.Platform{OS: os, Architecture: architecture}
		}
		for i, c := range children {
			if !seen[c.Digest] {
				seen[c.Digest] = true
				index.Manifests = append(index.Manifests, doc.Manifests[i])
				root.Children = append(root.Children, c)
			}
		}
	}
	root.content = shape{}.marshal(index)
	root.Digest, root.Size = digestOf(root.content), int64(len(root.content))
	return &Tree{Scenario: "imagetools", Root: root}, nil
}
