package proxy

import (
	"errors"
	"net/http"
	"time"

	"sluice/filters/ocidoc"
)

// wantedFor is how long Proxy.wanted has statements that must be sent although upstream says that it has them. Amazon ECR
// shows a layer that no manifest refers to in HEAD and refuses to give it back (LayerInaccessibleException), so
// that a client which found it there never sends it, and nobody could keep it. Once that was seen, the blob
// is "not here" for a while, and the next push brings it.
const wantedFor = time.Hour

// errNotGivenBack is a statement that upstream has and does not give back.
var errNotGivenBack = errors.New("upstream does not give back a blob that no image refers to")

// notGivenBack is true for an answer by which ECR may refuse a blob that no image refers to: which status it has
// is not known, and what is held here is the same blob.
func (ex *exchange) notGivenBack(resp *http.Response) bool {
	return ex.onECR() && (resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusForbidden)
}

// wantAll wants the blobs of all attestations of an index, so that one more push is enough.
func (ex *exchange) wantAll(rw *rewriting) {
	for _, t := range rw.plan.Taken {
		ex.want(t.Manifest)
	}
}

// want wants every blob of an attestation that is not here.
func (ex *exchange) want(m *ocidoc.Document) {
	for _, b := range blobsOf(m) {
		if h, err := ex.findBlob(b.Digest); err == nil && h == nil {
			ex.p.wanted.put(inRepo{ex.repo, b.Digest})
		}
	}
}
