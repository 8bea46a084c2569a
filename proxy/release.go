package proxy

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/internal/contain"
	"sluice/proxy/internal/objects"
	"sluice/proxy/upstream"
)

const (
	// likelySize is up to which size a layer is looked up before its manifest goes upstream: a
	// statement may have any media type in somebody's manifest, but a layer as large as this that
	// begins like one is so rare that upstream's refusal may find it.
	likelySize = 64 << 10
	// lookups is how many look-ups or uploads run at once for one document.
	lookups = 8
)

func queryDigest(digest string) url.Values { return url.Values{"digest": {digest}} }

// blobsOf lists what a manifest needs to be there before it: its config and layers.
func blobsOf(doc *ocidoc.Document) []ocidoc.Descriptor {
	if doc.Kind != ocidoc.KindManifest {
		return nil
	}
	blobs := make([]ocidoc.Descriptor, 0, len(doc.Layers)+1)
	if doc.Config != nil {
		blobs = append(blobs, *doc.Config)
	}
	return append(blobs, doc.Layers...)
}

// likelyHeld is what a peek may have held although something that goes upstream refers to it.
func likelyHeld(doc *ocidoc.Document) []ocidoc.Descriptor {
	var likely []ocidoc.Descriptor
	for i, d := range blobsOf(doc) {
		config := i == 0 && doc.Config != nil
		if config || d.Size <= likelySize || !isLayer(d.MediaType) {
			likely = append(likely, d)
		}
	}
	return likely
}

func isLayer(mediaType string) bool {
	return strings.HasPrefix(mediaType, "application/vnd.oci.image.layer.") ||
		strings.HasPrefix(mediaType, "application/vnd.docker.image.rootfs.")
}

// releaseLikely sends what is held of the blobs that doc refers to, before doc (I1).
func (ex *exchange) releaseLikely(doc *ocidoc.Document) error {
	likely := slices.DeleteFunc(likelyHeld(doc), func(d ocidoc.Descriptor) bool { return ex.p.sent.has(ex.repo, d.Digest) })
	if len(likely) == 0 {
		return nil
	}
	_, err := ex.releaseBlobs(likely)
	return err
}

// releaseAll sends everything held that doc refers to: blobs of any size, and for an index the
// manifests of its children, each after its own blobs. It tells whether there was anything.
func (ex *exchange) releaseAll(doc *ocidoc.Document) (bool, error) {
	if doc.Kind == ocidoc.KindManifest {
		return ex.releaseBlobs(blobsOf(doc))
	}
	sent := false
	seen := map[string]bool{}
	for _, e := range doc.Manifests {
		if seen[e.Digest] {
			continue // an index may list one child any number of times
		}
		seen[e.Digest] = true
		child, err := ex.findReleasable(e.Digest)
		if err != nil {
			ex.p.storageTrouble(ex.log, "look up manifest "+e.Digest, err)
			continue
		}
		if child == nil {
			continue
		}
		if err := ex.releaseManifest(e.Digest, child); err != nil {
			return sent, err
		}
		sent = true
	}
	return sent, nil
}

// releaseHeldBefore sends the attestations of an index that goes upstream as it is, but were held when they came: the
// configuration has changed since, or is changing from replica to replica. Not every upstream looks whether an index lists
// what is there. What this process has forwarded itself is not looked for, which is every attestation of nearly every push.
func (ex *exchange) releaseHeldBefore(doc *ocidoc.Document) error {
	if doc.Kind != ocidoc.KindIndex {
		return nil
	}
	asked := map[string]bool{}
	g, going := contain.WithContext(ex.ctx())
	g.SetLimit(lookups)
	for _, e := range doc.Manifests {
		if !saysAttestation(e) || asked[e.Digest] || len(asked) == maxFetched || ex.p.sent.has(ex.repo, wentAlong(e.Digest)) {
			continue
		}
		asked[e.Digest] = true
		g.Go(func() error {
			if err := going.Err(); err != nil {
				return err // another one failed
			}
			child, err := ex.findReleasable(e.Digest)
			if err != nil {
				ex.p.storageTrouble(ex.log, "look up manifest "+e.Digest, err)
			}
			if child == nil {
				return nil
			}
			there, err := ex.exists(manifestPath(e.Digest))
			if err == nil && !there {
				err = ex.releaseManifest(e.Digest, child)
			}
			if err != nil {
				return err
			}
			return ex.releaseAbout(e.Digest, objects.MaxAbout)
		})
	}
	return g.Wait()
}

// wentAlong is by what a manifest is remembered that went upstream whatever it is.
func wentAlong(digest string) string { return "forwarded " + digest }

// findReleasable finds a child that only Sluice has: a held manifest, or an image that went upstream
// in other media types, which was the last time but is not what the rule says now.
func (ex *exchange) findReleasable(digest string) (*ocidoc.Document, error) {
	child, err := ex.findManifest(digest)
	if err != nil || child != nil {
		return child, err
	}
	child, err = ex.findRewritten(digest)
	if err != nil || !filters.IsImage(child) {
		return nil, err
	}
	return child, nil
}

// releaseManifest sends a held manifest by digest, after everything that it refers to.
func (ex *exchange) releaseManifest(digest string, doc *ocidoc.Document) error {
	if _, err := ex.releaseAll(doc); err != nil {
		return err
	}
	resp, err := ex.sendManifest(digest, doc.Bytes, doc.ContentType)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &passed{resp}
	}
	discard(resp)
	ex.p.heldQuota.release(heldManifestOf(ex.repo, digest))
	ex.log.Info("held manifest released", "digest", digest)
	return nil
}

func (ex *exchange) releaseBlobs(blobs []ocidoc.Descriptor) (bool, error) {
	var sent atomic.Bool
	g, going := contain.WithContext(ex.ctx())
	g.SetLimit(lookups)
	seen := map[string]bool{}
	for _, d := range blobs {
		if seen[d.Digest] {
			continue
		}
		seen[d.Digest] = true
		g.Go(func() error {
			if err := going.Err(); err != nil {
				return err // another one failed
			}
			if d.Digest == filters.EmptyDigest { // whatever the storage says
				sent.Store(true)
				return ex.releaseBlob(d.Digest, emptyHeld())
			}
			h, err := ex.findBlob(d.Digest)
			if err != nil {
				// If it is needed, upstream will say so, and the client sees that.
				ex.p.storageTrouble(ex.log, "look up blob "+d.Digest, err)
				return nil
			}
			if h == nil {
				return nil
			}
			defer h.Close()
			sent.Store(true)
			return ex.releaseBlob(d.Digest, h)
		})
	}
	err := g.Wait()
	return sent.Load(), err
}

// releaseBlob sends one held blob, unless upstream has it.
func (ex *exchange) releaseBlob(digest string, h *held) error {
	resp, err := ex.do(upstream.Request{Method: http.MethodHead, Path: blobPath(digest)})
	if err != nil {
		return err
	}
	discard(resp)
	if resp.StatusCode == http.StatusOK {
		ex.p.sent.put(ex.repo, digest)
		ex.p.heldQuota.release(heldBlobOf(ex.repo, digest))
		return nil
	}
	return ex.sendHeld(digest, h)
}

// sendHeld sends one held blob, which upstream does not have.
func (ex *exchange) sendHeld(digest string, h *held) error {
	if h.size <= heldInMemory {
		b, err := h.bytes(heldInMemory)
		if err != nil {
			return ex.unreadHeld(digest, err)
		}
		if err := ex.sendBlob(digest, b); err != nil {
			return err
		}
		ex.p.heldQuota.release(heldBlobOf(ex.repo, digest))
		return nil
	}
	err := ex.sendWhole(digest, h.size, func(q *upstream.Request, again bool) {
		if again { // the first try may be reading still
			h = &held{size: h.size, open: h.open, ctx: h.ctx}
		}
		q.Body = h
	})
	_ = h.Close()
	if err != nil {
		return err
	}
	ex.p.heldQuota.release(heldBlobOf(ex.repo, digest))
	ex.log.Info("held blob released", "digest", digest, "bytes", h.size)
	return nil
}

// sendWhole sends a blob that can be read again in one request. Upstream may have forgotten a spare session since it
// opened it, by a restart for one: then the blob is sent once more, into another. body gives the request its body,
// again for the second one.
func (ex *exchange) sendWhole(digest string, size int64, body func(q *upstream.Request, again bool)) error {
	location, spare, err := ex.openSession()
	for again := false; err == nil; location, err = ex.openAnother() {
		q := upstream.Request{
			Method: http.MethodPut, Location: location, Query: queryDigest(digest), Push: true,
			Header: http.Header{"Content-Type": octetStream}, ContentLength: size,
		}
		body(&q, again)
		resp, err := ex.do(q)
		if again || !spare || err != nil || resp.StatusCode != http.StatusNotFound || ex.arrived(digest, size) {
			return ex.closed(resp, err, digest, size)
		}
		discard(resp)
		again = true
		ex.log.Info("upstream has forgotten an upload session that it opened, the blob is sent once more", "blob", digest)
	}
	return err
}

// emptyHeld is `{}`, which needs no copy that a client sent.
func emptyHeld() *held {
	return &held{size: int64(len(emptyBlob)), open: func(_ context.Context, off int64) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(emptyBlob[off:])), nil
	}}
}

func digestsOf(list []ocidoc.Descriptor) []string {
	digests := make([]string, 0, len(list))
	for _, d := range list {
		digests = append(digests, d.Digest)
	}
	return digests
}
