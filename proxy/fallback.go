package proxy

import (
	"encoding/json"
	"net/http"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/upstream"
)

// takeOverReferrer does what clients leave to a registry as soon as anything says "supported": where
// upstream has no referrers API, the fallback tag of the subject lists the new referrer before its
// push is answered (distribution-spec, "Pushing Manifests with Subject").
func (ex *exchange) takeOverReferrer(doc *ocidoc.Document, resp *http.Response) error {
	if doc.Subject == nil || resp.Header.Get("OCI-Subject") != "" || ex.action() == filters.Forward {
		return nil
	}
	if has, err := ex.upstreamHasReferrers(doc.Subject.Digest); has || err != nil {
		return err
	}
	return ex.changeFallback(doc.Subject.Digest, func(list []ocispec.Descriptor) []ocispec.Descriptor {
		return mergeDescriptors(list, []ocispec.Descriptor{referrerDescriptor(doc, doc.Digest(), mediaTypeOf(doc))})
	})
}

// dropReferrer is the same for a referrer that was deleted ("Deleting Manifests").
func (ex *exchange) dropReferrer(subject, digest string) error {
	if has, err := ex.upstreamHasReferrers(subject); has || err != nil {
		return err
	}
	return ex.unlist(subject, digest)
}

// changeFallback changes upstream's referrers tag of a subject, one change at a time.
func (ex *exchange) changeFallback(subject string, change func([]ocispec.Descriptor) []ocispec.Descriptor) error {
	tag := filters.FallbackTag(subject)
	unlock := ex.p.fallbackTags.lock(ex.repo + ":" + tag)
	defer unlock()
	index, old, err := ex.readFallbackTag(subject)
	if err != nil {
		return err
	}
	before := len(index.Manifests)
	if index.Manifests = change(index.Manifests); len(index.Manifests) == before {
		return nil
	}
	if len(index.Manifests) == 0 && ex.deleted(old) {
		return nil // nothing is listed by nothing
	}
	if index.Manifests == nil {
		index.Manifests = []ocispec.Descriptor{}
	}
	index.SchemaVersion, index.MediaType = 2, ocispec.MediaTypeImageIndex
	body, err := json.Marshal(index)
	if err != nil {
		return err
	}
	put, err := ex.sendManifest(tag, body, ocispec.MediaTypeImageIndex)
	if err != nil {
		return err
	}
	if put.StatusCode >= 300 {
		return &passed{put}
	}
	discard(put)
	if old != "" && old != ocidoc.DigestOf(body) {
		ex.deleted(old)
	}
	return nil
}

// deleted tries to delete the list that a tag held before: it would stay as an untagged index, and Amazon ECR deletes
// nothing that an index lists. oras-go does the same. A registry that does not delete keeps it.
func (ex *exchange) deleted(digest string) bool {
	if digest == "" {
		return false
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodDelete, Path: manifestPath(digest), Push: true})
	if err != nil {
		return false
	}
	discard(resp)
	return resp.StatusCode < 300
}

// upstreamHasReferrers asks; an upstream that answers the API but not OCI-Subject needs no tag.
func (ex *exchange) upstreamHasReferrers(digest string) (bool, error) {
	resp, err := ex.do(upstream.Request{Method: http.MethodGet, Path: "referrers/" + digest})
	if err != nil {
		return false, err
	}
	switch {
	case noReferrersAPI(resp.StatusCode):
		discard(resp)
		return false, nil
	case resp.StatusCode != http.StatusOK: // a right that is missing, or trouble, says nothing about the API
		return false, &passed{resp}
	}
	index, err := readIndex(resp)
	return err == nil && (index.Manifests != nil || index.MediaType != ""), nil
}

// A keyedMutex lets one goroutine at a time change one fallback tag: the registry API has no
// compare-and-swap.
type keyedMutex struct {
	mu    sync.Mutex
	locks map[string]*countedLock
}

type countedLock struct {
	sync.Mutex
	users int
}

func (k *keyedMutex) lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.locks == nil {
		k.locks = map[string]*countedLock{}
	}
	l := k.locks[key]
	if l == nil {
		l = &countedLock{}
		k.locks[key] = l
	}
	l.users++
	k.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		k.mu.Lock()
		defer k.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(k.locks, key)
		}
	}
}
