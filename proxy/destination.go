package proxy

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"strings"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/attest"
	"sluice/proxy/upstream"
)

// A destination is where the statements go that `store` takes out of a push (store.to). The documents around them, and
// the records by which all is found, are in the storage with every destination.
type destination interface {
	// keep makes an attestation permanent and notes in its record where it is. referrer is the same as an OCI 1.1
	// manifest with the image as its subject, nil if it is not known whose it is. What is there already is not sent
	// again, and what is missing of it is, so keep may be repeated after any error.
	//
	// A *storageFailed says that the destination failed, so that on_storage_error decides. Other errors are the answer.
	keep(rec *attest.Record, att, referrer *ocidoc.Document) error
}

// destination is that of the exchange's repository.
func (ex *exchange) destination() (destination, error) {
	repo := ex.p.cfg.StoreIn(ex.repo)
	if repo == "" {
		return storageDestination{ex}, nil
	}
	at, err := ex.at(repo)
	if err != nil {
		return nil, err
	}
	return &registryDestination{from: ex, at: at}, nil
}

// storageDestination keeps statements beside everything else.
type storageDestination struct{ *exchange }

func (s storageDestination) keep(rec *attest.Record, att, _ *ocidoc.Document) error {
	for _, l := range att.Layers {
		if err := s.storeBlob(l); err != nil {
			return err
		}
	}
	rec.Repository, rec.Placed = "", ""
	return nil
}

// registryDestination keeps statements in a registry: in the image's own repository (referrers) or in another one
// (repository). They go there before the tag is written, since 201 means that they are kept.
type registryDestination struct {
	from *exchange // about the image's repository
	at   *exchange // about the destination
}

func (d *registryDestination) keep(rec *attest.Record, att, referrer *ocidoc.Document) error {
	if referrer == nil { // nobody could find it there
		return storageDestination{d.from}.keep(rec, att, nil)
	}
	for _, l := range att.Layers {
		if err := d.statement(l); err != nil {
			return err
		}
	}
	placed, err := d.attach(att, referrer)
	if err != nil {
		return err
	}
	for _, l := range att.Layers {
		e := attest.Elsewhere{Repository: d.at.repo, Size: l.Size}
		if err := d.from.p.attest.PutElsewhere(d.from.ctx(), d.from.repo, l.Digest, e); err != nil {
			return &storageFailed{cause: err}
		}
	}
	rec.Repository, rec.Placed = d.at.repo, placed
	return nil
}

// statement sends one statement, from wherever it is. That the destination has it already is not enough: it may be there
// for another repository, and who knows no more than its digest must not get it as one of their own (I9).
func (d *registryDestination) statement(l ocidoc.Descriptor) error {
	there, err := d.at.exists(blobPath(l.Digest))
	if err != nil || there && d.at.repo == d.from.repo {
		return d.failed(err)
	}
	h, err := d.from.findBlob(l.Digest)
	if err != nil {
		return &storageFailed{cause: err}
	}
	if h == nil {
		if h, err = d.from.statementUpstream(l); err != nil {
			return err
		}
	}
	defer h.Close()
	if there {
		return nil
	}
	return d.failed(d.at.sendHeld(l.Digest, h))
}

// failed turns what went wrong at the destination into what on_storage_error decides about. What the client's own
// credentials may not do is its answer instead: the operator's word is about failures, and a 401 is how a client learns
// for which repository it needs a token.
func (d *registryDestination) failed(err error) error {
	if err == nil || d.from.ctx().Err() != nil {
		return err
	}
	var p *passed
	var f *Failure
	switch {
	case errors.As(err, &p) && p.resp.StatusCode == http.StatusUnauthorized && d.at.up.Passthrough():
		return err
	case errors.As(err, &p):
		answer := d.refused(p.resp)
		if p.resp.StatusCode == http.StatusForbidden && d.at.up.Passthrough() {
			return answer
		}
		return &storageFailed{cause: answer, answer: answer}
	case errors.As(err, &f) && f.Status < 500:
		return &storageFailed{cause: err, answer: f}
	}
	why := "its registry did not answer"
	if f != nil {
		why = f.Message
	}
	return &storageFailed{cause: err, answer: transient(err, "attestations of repository %s could not be stored in repository %s: %s; push again", d.from.repo, d.at.repo, why)}
}

// refused says what the destination's registry said, and what to do about it.
func (d *registryDestination) refused(resp *http.Response) *Failure {
	defer discard(resp)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	said := clip(strings.TrimSpace(string(body)))
	status, code, advice := resp.StatusCode, codeUnsupported, "see store.to"
	text := strings.ToLower(said)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		status, code = http.StatusForbidden, codeDenied
		advice = "allow the credentials that sluice uses there to push to it (upstreams[].credentials)"
		if d.at.up.Passthrough() {
			advice = "these credentials must be allowed to push to it"
		}
	case status == http.StatusNotFound:
		code, advice = codeNameUnknown, "create the repository, or set create_repositories of its upstream"
	case strings.Contains(text, "immutable") || strings.Contains(text, "tag_invalid"):
		advice = "its registry lists referrers under tags sha256-*, which must be mutable: exclude them from tag immutability"
	case status == http.StatusTooManyRequests || status >= 500:
		// As text: the answer is ours, and not what upstream said.
		return transient(errors.New((&passed{resp}).Error()), "attestations of repository %s could not be stored in repository %s, whose registry answered %s: %s; push again",
			d.from.repo, d.at.repo, resp.Status, said)
	}
	return refuse(status, code, "attestations of repository %s could not be stored in repository %s, whose registry answered %s: %s; %s",
		d.from.repo, d.at.repo, resp.Status, said, advice)
}

// at is this client's exchange about another repository.
func (ex *exchange) at(repo string) (*exchange, error) {
	if !validRepository(repo) {
		return nil, refuse(http.StatusBadRequest, codeNameInvalid, "attestations of repository %s go to repository %s, which is no valid name: see store.repository", ex.repo, clip(repo))
	}
	b, upRepo := ex.p.owner(repo)
	if b == nil {
		return nil, refuse(http.StatusNotFound, codeNameUnknown, "attestations of repository %s go to repository %s, for which no upstream is configured: see store.repository", ex.repo, repo)
	}
	other := *ex
	other.repo, other.up, other.upRepo, other.tags, other.auth = repo, b.registry, upRepo, nil, ""
	if other.up.Passthrough() {
		other.auth = ex.r.Header.Get("Authorization")
	}
	other.log = ex.log.With("destination", repo)
	return &other, nil
}

// exists asks for a blob or a manifest.
func (ex *exchange) exists(path string) (bool, error) {
	resp, err := ex.do(upstream.Request{Method: http.MethodHead, Path: path, Header: http.Header{"Accept": manifestTypes}, Follow: true})
	if err != nil {
		return false, err
	}
	switch {
	case resp.StatusCode == http.StatusOK:
		discard(resp)
		return true, nil
	case resp.StatusCode == http.StatusNotFound:
		discard(resp)
		return false, nil
	}
	return false, &passed{resp}
}

// elsewhere finds a statement that is in a registry, as its record says. nil is "not there", also where the client's own
// credentials may not read it. Where it was put before store.to or store.repository changed is asked after that.
func (ex *exchange) elsewhere(digest string, e attest.Elsewhere) (h *held, err error) {
	for _, repo := range append([]string{e.Repository}, e.Also...) {
		found, failed := ex.elsewhereIn(repo, digest, e.Size)
		if found != nil {
			return found, nil
		}
		err = cmp.Or(err, failed)
	}
	return nil, err
}

func (ex *exchange) elsewhereIn(repo, digest string, size int64) (*held, error) {
	at, err := ex.at(repo)
	if err != nil {
		return nil, err
	}
	there, err := at.exists(blobPath(digest))
	if refusedReader(err, at) {
		return nil, nil
	}
	if err != nil || !there {
		return nil, err
	}
	return &held{ctx: ex.ctx(), size: size, open: at.openBlob(digest)}, nil
}

// refusedReader is true when the registry does not let the client's own credentials read.
func refusedReader(err error, at *exchange) bool {
	var p *passed
	if !at.up.Passthrough() || !errors.As(err, &p) {
		return false
	}
	if p.resp.StatusCode != http.StatusUnauthorized && p.resp.StatusCode != http.StatusForbidden {
		return false
	}
	discard(p.resp)
	return true
}

var (
	_ destination = storageDestination{}
	_ destination = (*registryDestination)(nil)
)

// legacyOf is an attestation without subject and empty config, and its config.
func legacyOf(att *ocidoc.Document) (doc *ocidoc.Document, config []byte, err error) {
	b, config := filters.Legacy(att)
	doc, err = ocidoc.Parse(b, ocidoc.MediaTypeOCIManifest)
	return doc, config, err
}
