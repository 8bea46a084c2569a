package proxytest

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// putFallback adds a manifest with a subject to the index under the tag sha256-<hex of the subject>, the client's duty
// where the registry has no referrers API (distribution-spec 1.1, "Pushing Manifests with Subject").
func (c *connection) putFallback(ctx context.Context, m *Manifest) (*reply, error) {
	tag := strings.Replace(m.Subject.Digest.String(), ":", "-", 1)
	r, err := c.do(ctx, request{method: http.MethodGet, path: "manifests/" + tag, header: headers("Accept", MediaTypeOCIIndex)})
	if err != nil {
		return nil, err
	}
	index := v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: MediaTypeOCIIndex}
	if r.status == http.StatusOK {
		if err := json.Unmarshal(r.body, &index); err != nil {
			return nil, err
		}
	} else if r.status != http.StatusNotFound {
		return r, nil
	}
	for _, d := range index.Manifests {
		if d.Digest.String() == m.Digest {
			return r, nil
		}
	}
	d := descriptor(&m.Blob)
	if d.ArtifactType = m.ArtifactType; d.ArtifactType == "" && m.Config != nil {
		d.ArtifactType = m.Config.MediaType
	}
	d.Annotations = m.Annotations
	index.Manifests = append(index.Manifests, d)
	b, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	r, err = c.do(ctx, request{
		method: http.MethodPut, path: "manifests/" + tag, header: headers("Content-Type", MediaTypeOCIIndex), body: bytesBody(b), size: int64(len(b)),
	})
	if err == nil && r.status == http.StatusCreated {
		c.note(&c.result.Manifests, tag)
	}
	return r, err
}
