package proxy

import (
	"errors"
	"net/http"

	"github.com/gorilla/mux"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/upstream"
)

// deleteManifest deletes upstream, except for what only Sluice has: an original loses its alias and
// its own bytes here (many originals share one forwarded document, which stays), a stored
// attestation is removed (sluice attestations delete).
func (ex *exchange) deleteManifest() error {
	ref := mux.Vars(ex.r)["reference"]
	if digestRef(ref) {
		if f := checkDigest(ex.repo, ref); f != nil {
			return f
		}
		if ex.rule.Attestations != filters.Forward {
			if done, err := ex.deleteLocal(ref); done || err != nil {
				return err
			}
		}
	}
	subject := ex.subjectUpstream(ref)
	resp, err := ex.do(upstream.Request{Method: http.MethodDelete, Path: manifestPath(ref), Push: true})
	if err != nil {
		return err
	}
	if subject != "" && resp.StatusCode < 300 {
		if err := ex.dropReferrer(subject, ref); err != nil {
			discard(resp)
			return err
		}
	}
	if resp.StatusCode < 300 {
		ex.deletedEvent(ref)
	}
	ex.passResponse(resp)
	return nil
}

// subjectUpstream is what a manifest that is about to be deleted refers to, so that it can be taken
// out of a referrers tag that Sluice keeps.
func (ex *exchange) subjectUpstream(ref string) string {
	if !digestRef(ref) || !ex.peeks() {
		return ""
	}
	doc, err := ex.fetchManifest(ref)
	if err != nil || doc.Subject == nil {
		return "" // not there, or nobody's referrer: the delete itself will say
	}
	return doc.Subject.Digest
}

func (ex *exchange) deleteLocal(digest string) (done bool, err error) {
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, digest)
	if err != nil {
		return true, ex.cannotDelete(digest, err)
	}
	m, err := ex.findManifest(digest)
	if err != nil {
		return true, ex.cannotDelete(digest, err)
	}
	if len(aliases) == 0 && (m == nil || !filters.IsAttestation(m)) {
		return false, nil
	}
	if ex.up.Passthrough() {
		if err := ex.mayWrite(); err != nil {
			return true, err
		}
	}
	if len(aliases) > 0 {
		err = errors.Join(
			ex.p.quarantine.DeleteAliases(ex.ctx(), ex.repo, digest),
			ex.p.quarantine.DeleteOriginal(ex.ctx(), ex.repo, digest),
			ex.p.attest.DeleteDocument(ex.ctx(), ex.repo, digest))
	} else {
		err = ex.deleteAttestation(digest, m)
	}
	if err != nil {
		return true, ex.cannotDelete(digest, err)
	}
	ex.log.Info("deleted here, upstream is untouched", "digest", digest)
	ex.w.Header().Set("Content-Length", "0")
	ex.answers = true
	ex.w.WriteHeader(http.StatusAccepted)
	return true, nil
}

func (ex *exchange) cannotDelete(digest string, err error) error {
	return ex.storageTransient(err, "%s of repository %s could not be deleted: the storage of sluice failed, see its log; try again", digest, ex.repo)
}

// deleteAttestation removes an attestation from wherever it is kept: what is left in quarantine
// would be taken for one that no index named when its generation is swept, and kept.
func (ex *exchange) deleteAttestation(digest string, m *ocidoc.Document) error {
	attestation := ex.attestationOf(digest, m)
	if err := ex.p.attest.Delete(ex.ctx(), ex.repo, attestation); err != nil && !errors.Is(err, attest.ErrNotFound) {
		return err
	}
	q := ex.p.quarantine
	for _, d := range m.Layers {
		if err := q.DeleteBlob(ex.ctx(), ex.repo, d.Digest); err != nil {
			return err
		}
	}
	return q.DeleteManifest(ex.ctx(), ex.repo, attestation)
}

// attestationOf is the attestation behind a derived referrer: the two are one thing to a client.
func (ex *exchange) attestationOf(digest string, m *ocidoc.Document) string {
	if m.Subject == nil {
		return digest
	}
	records, err := ex.p.attest.BySubject(ex.ctx(), ex.repo, m.Subject.Digest)
	if err != nil {
		return digest
	}
	for _, r := range records {
		if r.Derived == digest {
			return r.Attestation
		}
	}
	return digest
}
