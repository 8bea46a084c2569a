package proxytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
)

// Contents are what a registry's storage holds.
type Contents struct {
	Repositories map[string]*RepositoryContents
	Stray        map[string]Stored // by digest: blobs that no repository links
	Uploads      []Upload          // not finished, with what has arrived
}

// RepositoryContents are one repository's, by digest.
type RepositoryContents struct {
	Manifests map[string]Stored
	Tags      map[string]string // to digests
	Blobs     map[string]Stored // without manifests
}

// Stored is content in storage. Of more than 8 MiB only the beginning is in Bytes.
type Stored struct {
	MediaType string // a manifest's; "" when the storage does not say
	Size      int64
	Bytes     []byte
	Seeded    bool // put there by Seed: the bytes do not hash to the digest
}

// Upload is a session that was opened and neither finished nor cancelled.
type Upload struct {
	Repository string
	Bytes      []byte
}

const inspected = 8 << 20

func (c *Contents) repository(name string) *RepositoryContents {
	r := c.Repositories[name]
	if r == nil {
		r = &RepositoryContents{Manifests: map[string]Stored{}, Tags: map[string]string{}, Blobs: map[string]Stored{}}
		c.Repositories[name] = r
	}
	return r
}

// Repository is what one repository holds, empty if it does not exist.
func (c *Contents) Repository(name string) *RepositoryContents {
	if r := c.Repositories[name]; r != nil {
		return r
	}
	return (&Contents{Repositories: map[string]*RepositoryContents{}}).repository(name)
}

func newContents() *Contents {
	return &Contents{Repositories: map[string]*RepositoryContents{}, Stray: map[string]Stored{}}
}

func stored(b []byte) Stored {
	s := Stored{Size: int64(len(b)), Bytes: b, Seeded: isSeeded(b)}
	if len(b) > inspected {
		s.Bytes = bytes.Clone(b[:inspected])
	}
	return s
}

// readDistribution walks registry/storage/paths.go's layout: repositories/<name>/_layers|_manifests|_uploads, and blobs.
func readDistribution(u *Upstream) (*Contents, error) {
	ctx := context.Background()
	d, err := u.driver()
	if err != nil {
		return nil, err
	}
	const root = "/docker/registry/v2"
	c, blobs, linked := newContents(), map[string]Stored{}, map[string]bool{}
	var files []string
	err = d.Walk(ctx, root, func(f storagedriver.FileInfo) error {
		if !f.IsDir() {
			files = append(files, f.Path())
		}
		return nil
	})
	var none storagedriver.PathNotFoundError
	if errors.As(err, &none) {
		return c, nil
	} else if err != nil {
		return nil, err
	}
	for _, f := range files {
		if rest, ok := strings.CutPrefix(f, root+"/blobs/sha256/"); ok && path.Base(f) == "data" {
			b, err := d.GetContent(ctx, f)
			if err != nil {
				return nil, err
			}
			blobs["sha256:"+path.Base(path.Dir(rest))] = stored(b)
		}
	}
	for _, f := range files {
		rest, ok := strings.CutPrefix(f, root+"/repositories/")
		if !ok {
			continue
		}
		name, below, _ := strings.Cut(rest, "/_")
		content, err := d.GetContent(ctx, f)
		if err != nil {
			return nil, err
		}
		part := strings.Split(below, "/")
		digest := string(content)
		switch {
		case part[0] == "uploads" && path.Base(f) == "data":
			c.Uploads = append(c.Uploads, Upload{Repository: name, Bytes: content})
		case part[0] == "layers" && path.Base(f) == "link":
			linked[digest] = true
			c.repository(name).Blobs[digest] = blobs[digest]
		case part[0] == "manifests" && part[1] == "revisions" && path.Base(f) == "link":
			linked[digest] = true
			s := blobs[digest]
			s.MediaType = bodyMediaType(s.Bytes)
			c.repository(name).Manifests[digest] = s
		case part[0] == "manifests" && part[1] == "tags" && strings.HasSuffix(f, "/current/link"):
			c.repository(name).Tags[part[2]] = digest
		}
	}
	for digest, b := range blobs {
		if !linked[digest] {
			c.Stray[digest] = b
		}
	}
	return c, nil
}

func seedDistribution(u *Upstream, repository string, blobs []*Blob) error {
	ctx := context.Background()
	d, err := u.driver()
	if err != nil {
		return err
	}
	for _, b := range blobs {
		hex := strings.TrimPrefix(b.Digest, "sha256:")
		data := fmt.Sprintf("/docker/registry/v2/blobs/sha256/%s/%s/data", hex[:2], hex)
		link := fmt.Sprintf("/docker/registry/v2/repositories/%s/_layers/sha256/%s/link", repository, hex)
		if err := d.PutContent(ctx, data, make([]byte, b.Size)); err != nil {
			return err
		}
		if err := d.PutContent(ctx, link, []byte(b.Digest)); err != nil {
			return err
		}
	}
	return nil
}

// readOlareg walks OCI layouts: <repository>/index.json, blobs/sha256, _uploads. Tags are entries with a ref name; other
// manifests are known by what they look like, since an index's children are not listed.
func readOlareg(u *Upstream) (*Contents, error) {
	c := newContents()
	err := filepath.WalkDir(u.root, func(file string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(u.root, file)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if name, ok := strings.CutSuffix(rel, "/index.json"); ok {
			var index wireIndex
			if err := json.Unmarshal(b, &index); err != nil {
				return fmt.Errorf("%s: %w", rel, err)
			}
			for _, d := range index.Manifests {
				if tag := d.Annotations["org.opencontainers.image.ref.name"]; tag != "" {
					c.repository(name).Tags[tag] = d.Digest.String()
				}
			}
		} else if name, hex, ok := strings.Cut(rel, "/blobs/sha256/"); ok {
			s := stored(b)
			if s.MediaType = bodyMediaType(b); s.MediaType != "" {
				c.repository(name).Manifests["sha256:"+hex] = s
			} else {
				c.repository(name).Blobs["sha256:"+hex] = s
			}
		} else if name, _, ok := strings.Cut(rel, "/_uploads/"); ok {
			c.Uploads = append(c.Uploads, Upload{Repository: name, Bytes: b})
		}
		return nil
	})
	return c, err
}

func seedOlareg(u *Upstream, repository string, blobs []*Blob) error {
	repo := filepath.Join(u.root, filepath.FromSlash(repository))
	folder := filepath.Join(repo, "blobs", "sha256")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	files := map[string][]byte{
		filepath.Join(repo, "oci-layout"): []byte(`{"imageLayoutVersion":"1.0.0"}`),
		filepath.Join(repo, "index.json"): []byte(`{"schemaVersion":2,"mediaType":"` + MediaTypeOCIIndex + `","manifests":[],"annotations":{"org.opencontainers.referrers.convert":"true"}}`),
	}
	for _, b := range blobs {
		files[filepath.Join(folder, strings.TrimPrefix(b.Digest, "sha256:"))] = make([]byte, b.Size)
	}
	for name, content := range files {
		if _, err := os.Stat(name); err == nil {
			continue // what is there stays
		}
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bodyMediaType is what a document is by its looks, "" for anything else.
func bodyMediaType(b []byte) string {
	var doc struct {
		SchemaVersion int              `json:"schemaVersion"`
		MediaType     string           `json:"mediaType"`
		Manifests     *json.RawMessage `json:"manifests"`
		Layers        *json.RawMessage `json:"layers"`
		Config        *json.RawMessage `json:"config"`
	}
	if len(b) == 0 || b[0] != '{' || json.Unmarshal(b, &doc) != nil || doc.SchemaVersion == 0 {
		return ""
	}
	switch {
	case doc.MediaType != "":
		return doc.MediaType
	case doc.Manifests != nil:
		return MediaTypeOCIIndex
	case doc.Layers != nil && doc.Config != nil:
		return MediaTypeOCIManifest
	}
	return ""
}
