package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/upstream"
)

// attach puts an attestation manifest into the destination, after its blobs, and makes sure that it is listed among the
// referrers of its image. It returns the digest of the form that the registry took.
//
// The first form is an OCI 1.1 artifact with the image as its subject. A registry must take one whose subject it lacks
// (distribution-spec, "Pushing Manifests with Subject"), and yet GitLab wants the image to be in the same repository,
// and Amazon ECR has answered 405 UNSUPPORTED to subjects and to the empty config (BuildKit issues 5747 and 6171). Then
// the attestation goes there in BuildKit's legacy form, an image manifest, and the image's referrers tag lists it.
func (d *registryDestination) attach(att, referrer *ocidoc.Document) (digest string, err error) {
	forms := &d.from.p.legacyForms
	refuses := forms.has(d.at.up)
	if !refuses {
		done, refusal, err := d.attachArtifact(referrer)
		if done || err != nil {
			return referrer.Digest(), err
		}
		d.at.log.Info("registry refuses artifacts with a subject, attestations go there in the legacy form", "digest", referrer.Digest(), "reason", refusal.Message)
	}
	legacy, err := d.attachLegacy(att, referrer.Subject.Digest)
	if err != nil {
		return "", err
	}
	if !refuses { // only now: a registry that takes neither has another trouble
		forms.put(d.at.up)
	}
	return legacy, nil
}

// attachArtifact puts the OCI 1.1 form. A refusal that says that the registry does not take the form is no error.
func (d *registryDestination) attachArtifact(doc *ocidoc.Document) (done bool, refusal *Failure, err error) {
	config, err := d.configOf(doc)
	if err == nil && config != nil {
		err = d.blob(doc.Config.Digest, config)
	}
	if err != nil {
		return false, nil, err
	}
	resp, err := d.manifest(doc)
	if err != nil {
		return false, nil, err
	}
	if resp != nil && resp.StatusCode >= 300 {
		if refusesForm(resp.StatusCode) {
			return false, d.refused(resp), nil
		}
		return false, nil, d.failed(&passed{resp})
	}
	if resp != nil {
		discard(resp)
	}
	if listed, err := d.at.listsItself(resp, doc.Subject.Digest); listed || err != nil {
		return listed, nil, d.failed(err)
	}
	return true, nil, d.listed(doc, doc.Subject.Digest, resp != nil)
}

// refusesForm is true for statuses that registries answer to a manifest that they do not take: 405 and 400 (ECR), 404
// (GitLab, about the subject), 415, 422 or 501. It is not for what says nothing about the form.
func refusesForm(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return status >= 400 && status < 500 || status == http.StatusNotImplemented
}

// attachLegacy puts the legacy form and lists it under the referrers tag, whatever API there is: without a subject no
// registry lists it.
func (d *registryDestination) attachLegacy(att *ocidoc.Document, subject string) (string, error) {
	doc, config, err := legacyOf(att)
	if err != nil {
		return "", err
	}
	h := heldBytes(config)
	if config == nil {
		if h, err = d.configOf(doc); err != nil {
			return "", err
		}
	}
	if h != nil {
		if err := d.blob(doc.Config.Digest, h); err != nil {
			return "", err
		}
	}
	resp, err := d.manifest(doc)
	if err != nil {
		return "", err
	}
	if resp != nil && resp.StatusCode >= 300 {
		return "", d.failed(&passed{resp})
	}
	sent := resp != nil
	discard(resp)
	return doc.Digest(), d.listed(doc, subject, sent)
}

// manifest puts a document that is not there yet; nil says that it is.
func (d *registryDestination) manifest(doc *ocidoc.Document) (*http.Response, error) {
	there, err := d.at.exists(manifestPath(doc.Digest()))
	if there || err != nil {
		return nil, d.failed(err)
	}
	resp, err := d.at.sendManifest(doc.Digest(), doc.Bytes, ocidoc.MediaTypeOCIManifest)
	if err == nil && resp.StatusCode < 300 {
		d.at.log.Info("attestation stored in the registry", "digest", doc.Digest())
	}
	return resp, d.failed(err)
}

// listed lists an attestation. One that was there already may have been taken out of the list, and deleted, since it was
// found: then it is sent again, and the list names nothing that is not there.
func (d *registryDestination) listed(doc *ocidoc.Document, subject string, sent bool) error {
	if err := d.list(doc, subject); err != nil || sent {
		return err
	}
	resp, err := d.manifest(doc)
	if err != nil || resp == nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return d.failed(&passed{resp})
	}
	discard(resp)
	return nil
}

// list adds an attestation to the referrers tag of its image, for registries that do not list it by themselves. Its
// artifact type is that of every attestation, so that whoever filters finds the legacy form too. That does not say what
// it is about, so its entry does, as in BuildKit's indexes. It also keeps apart the lists of two images that have the same
// attestation (one that was converted later): an old list is deleted by its digest, with every tag that holds it.
func (d *registryDestination) list(doc *ocidoc.Document, subject string) error {
	entry := referrerDescriptor(doc, doc.Digest(), ocidoc.MediaTypeOCIManifest)
	entry.ArtifactType = filters.ArtifactTypeAttestation
	if doc.Subject == nil {
		entry.Annotations = maps.Clone(entry.Annotations)
		if entry.Annotations == nil {
			entry.Annotations = map[string]string{}
		}
		entry.Annotations[filters.AnnotationReferenceDigest] = subject
	}
	return d.failed(d.at.changeFallback(referrerChange{subject: subject, entry: entry}))
}

// blob sends a config.
func (d *registryDestination) blob(digest string, h *held) error {
	defer h.Close()
	return d.failed(d.at.releaseBlob(digest, h))
}

// configOf finds the config of an attestation manifest, as it was pushed. nil says that there is none.
func (d *registryDestination) configOf(doc *ocidoc.Document) (*held, error) {
	if doc.Config == nil {
		return nil, nil
	}
	if doc.Config.Digest == filters.EmptyDigest {
		return emptyHeld(), nil
	}
	h, err := d.from.findBlob(doc.Config.Digest)
	if err != nil {
		return nil, &storageFailed{cause: err}
	}
	if h == nil {
		return d.from.statementUpstream(*doc.Config)
	}
	return h, nil
}

// heldBytes is a blob that is at hand.
func heldBytes(b []byte) *held {
	return &held{size: int64(len(b)), open: func(_ context.Context, off int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b[off:])), nil
	}}
}

// openBlob reads a blob of a registry from an offset on.
func (ex *exchange) openBlob(digest string) func(ctx context.Context, offset int64) (io.ReadCloser, error) {
	return func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		q := upstream.Request{Method: http.MethodGet, Path: blobPath(digest), Follow: true}
		if offset > 0 {
			q.Header = http.Header{"Range": {fmt.Sprintf("bytes=%d-", offset)}}
		}
		resp, err := ex.doContext(ctx, q)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusOK && offset > 0 { // it does not serve ranges
			if _, err := io.CopyN(io.Discard, resp.Body, offset); err != nil {
				discard(resp)
				return nil, err
			}
			return resp.Body, nil
		}
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
			text := (&passed{resp}).Error()
			discard(resp)
			// As text: the answer is ours, and upstream's has no body any more.
			return nil, transient(errors.New(text), "blob %s of repository %s could not be read, its registry answered %s: try again", digest, ex.repo, resp.Status)
		}
		return resp.Body, nil
	}
}

// formTTL is how long a registry is remembered that does not take artifacts with a subject: registries learn.
const formTTL = 6 * time.Hour
