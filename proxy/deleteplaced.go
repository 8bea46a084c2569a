package proxy

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/attest"
	"sluice/proxy/upstream"
)

// deletePlaced removes an attestation from the registries that it was stored in, unless it is there for another repository
// too (store.repository may be one for all, and a build may be pushed to several). It is taken from the referrers tags
// first: registries do that by themselves only for what their API lists, and Amazon ECR deletes nothing that an index
// lists. One manifest may be listed for two images, the one that was pushed and what it was converted to.
//
// Nothing keeps another repository from being pushed to at this very moment, and whoever pushes finds the manifest there
// and does not send it again. So who else has it is asked once more in the end, and what was taken from them is put back.
//
// What is refused changes nothing: then it is listed again. It returns the digests that were there for this repository in
// itself.
func (ex *exchange) deletePlaced(attestation string) (here []string, err error) {
	records, err := ex.p.attest.ByAttestation(ex.ctx(), ex.repo, attestation)
	if err != nil {
		return nil, err
	}
	type place struct{ repo, digest, subject string }
	var unlisted, deleted []place // or not to be deleted
	var gone []attest.Record
	listed := map[place][]relisting{}
	defer func() {
		for _, l := range slices.Concat(slices.Collect(maps.Values(listed))...) {
			if err == nil {
				return
			}
			if failed := l.at.changeFallback(l.entry); failed != nil {
				ex.log.Warn("an attestation that is not deleted is no longer listed", "digest", attestation, "in", l.at.repo, "reason", failed)
			}
		}
	}()
	for _, r := range records {
		p := place{r.Repository, r.Placed, r.Subject}
		if r.Repository == ex.repo {
			here = append(here, r.Placed)
		}
		if r.Repository == "" || slices.Contains(unlisted, p) {
			continue
		}
		other, alike, err := ex.p.attest.AlsoPlaced(ex.ctx(), ex.repo, r, ex.p.cfg.StoreIn)
		if err != nil {
			return nil, err
		}
		if other != "" {
			ex.log.Info("attestation stays where it was stored, it is there for another repository too", "digest", attestation, "in", r.Repository, "other", other)
			deleted = append(deleted, place{p.repo, p.digest, ""})
		}
		if alike {
			continue
		}
		unlisted, gone = append(unlisted, p), append(gone, r)
		at, err := ex.at(r.Repository)
		if err != nil {
			return nil, err
		}
		entries, err := at.listedAs(r.Subject, r.Placed)
		if err != nil {
			return nil, err
		}
		p.subject = ""
		listed[p] = append(listed[p], entries...)
		if err := at.unlist(r.Subject, r.Placed); err != nil {
			return nil, err
		}
	}
	for _, p := range unlisted {
		if p.subject = ""; slices.Contains(deleted, p) {
			continue
		}
		deleted = append(deleted, p)
		at, err := ex.at(p.repo)
		if err != nil {
			return nil, err
		}
		if err := at.deleteReferrer(p.digest, ex.repo); err != nil {
			if err = ex.listedMeanwhile(at, p.digest, gone, err); err != nil {
				return nil, err
			}
		}
		delete(listed, p)
	}
	// A push of the same in this repository may have listed it again before it was gone. What ends last is one of the two,
	// and not a list that names what is not there.
	for _, p := range unlisted {
		if !slices.Contains(deleted, place{p.repo, p.digest, ""}) {
			continue
		}
		at, err := ex.at(p.repo)
		if err == nil {
			err = at.unlistGone(p.subject, p.digest)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, r := range gone {
		if err := ex.placeAgain(r); err != nil {
			return nil, err
		}
	}
	return here, nil
}

// listedMeanwhile is about a delete that was refused. It may have been listed again by a push, and Amazon ECR deletes nothing
// that an index lists: one to another repository needs it there, and nothing is amiss. After one to this repository, or one
// that has not come to its end, the delete has to be tried again.
func (ex *exchange) listedMeanwhile(at *exchange, digest string, gone []attest.Record, refused error) error {
	if _, is := errors.AsType[*passed](refused); is {
		return refused // of who it is that asks
	}
	for _, r := range gone {
		if r.Repository != at.repo || r.Placed != digest {
			continue
		}
		if other, _, err := ex.p.attest.AlsoPlaced(ex.ctx(), ex.repo, r, ex.p.cfg.StoreIn); err != nil {
			return err
		} else if other != "" {
			ex.log.Info("attestation stays where it was stored, it was pushed to another repository meanwhile", "digest", digest, "in", at.repo, "other", other)
			return nil
		}
		if entries, err := at.listedAs(r.Subject, digest); err == nil && len(entries) > 0 {
			return transient(refused, "attestation %s of repository %s could not be deleted in repository %s: it was pushed again meanwhile; try again", digest, ex.repo, at.repo)
		}
	}
	return refused
}

// placeAgain puts back what was just removed, if it is by now there for another repository.
func (ex *exchange) placeAgain(r attest.Record) error {
	other, alike, err := ex.p.attest.AlsoPlaced(ex.ctx(), ex.repo, r, ex.p.cfg.StoreIn)
	if err != nil || other == "" {
		return err
	}
	at, err := ex.at(r.Repository)
	if err != nil {
		return err
	}
	if !alike { // it is listed for another image, and need only be there
		if there, err := at.exists(manifestPath(r.Placed)); there || err != nil {
			return err
		}
	}
	ex.log.Info("attestation is put back where it was stored, it was pushed to another repository meanwhile", "digest", r.Attestation, "in", r.Repository, "other", other)
	// The other one has it too, where somebody deletes the same in this one at the same time.
	for _, repo := range []string{ex.repo, other} {
		if err = ex.attachAgain(repo, at, r); err == nil {
			break
		}
	}
	if errors.Is(err, attest.ErrNotFound) {
		return nil // the other has come to lack it as well
	}
	if err == nil && !alike {
		err = at.unlist(r.Subject, r.Placed)
	}
	if err != nil {
		return fmt.Errorf("put attestation %s of repository %s back into repository %s, where repository %s needs it, push that again: %w", r.Attestation, ex.repo, r.Repository, other, err)
	}
	return nil
}

// attachAgain sends what one repository has of an attestation to where it was stored.
func (ex *exchange) attachAgain(repo string, at *exchange, r attest.Record) error {
	of, err := ex.at(repo)
	if err != nil {
		return err
	}
	att, err := of.storedDocument(r.Attestation)
	referrer := att
	if err == nil && r.Derived != "" {
		referrer, err = of.storedDocument(r.Derived)
	}
	if err == nil {
		_, err = (&registryDestination{from: of, at: at}).attach(att, referrer)
	}
	return err
}

// deleteReferrer deletes a manifest that no referrers tag lists any more.
func (ex *exchange) deleteReferrer(digest, of string) error {
	resp, err := ex.do(upstream.Request{Method: http.MethodDelete, Path: manifestPath(digest), Push: true})
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusUnauthorized && ex.up.Passthrough() {
		return &passed{resp}
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotFound {
		status := resp.StatusCode
		text := (&passed{resp}).Error()
		discard(resp)
		if status == http.StatusTooManyRequests || status >= 500 {
			return transient(errors.New(text), "attestation %s of repository %s could not be deleted in repository %s: its registry answered %s; try again", digest, of, ex.repo, resp.Status)
		}
		if status == http.StatusUnauthorized {
			status = http.StatusForbidden
		}
		return refuse(status, codeUnsupported, "attestation %s of repository %s could not be deleted in repository %s: its registry answered %s; "+
			"allow deletes there, or delete it there by hand first", digest, of, ex.repo, resp.Status)
	}
	discard(resp)
	return nil
}

// A relisting puts back what was taken out of a referrers tag.
type relisting struct {
	at    *exchange
	entry referrerChange
}

// listedAs are the entries that a manifest has in the referrers tag of its image.
func (ex *exchange) listedAs(subject, digest string) (entries []relisting, err error) {
	index, err := ex.readFallback(subject)
	for _, e := range index.Manifests {
		if e.Digest.String() == digest {
			entries = append(entries, relisting{ex, referrerChange{subject: subject, entry: e}})
		}
	}
	return entries, err
}

// unlistGone is unlist for a manifest that was just deleted, and that nobody has pushed again.
func (ex *exchange) unlistGone(subject, digest string) error {
	if entries, err := ex.listedAs(subject, digest); err != nil || len(entries) == 0 {
		return err
	}
	if there, err := ex.exists(manifestPath(digest)); err != nil || there {
		return err
	}
	return ex.unlist(subject, digest)
}

// unlist takes a manifest out of the referrers tag of its image, if there is one.
func (ex *exchange) unlist(subject, digest string) error {
	return ex.changeFallback(referrerChange{subject: subject, entry: ocispec.Descriptor{Digest: asDigest(digest)}, removed: true})
}
