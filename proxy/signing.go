package proxy

import (
	"errors"
	"fmt"
	"net/http"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
)

// checkSigned stops a signature or referrer for a digest that nobody who pulls from upstream will
// ever see: it would protect nothing, and verification by tag would fail (signed_originals).
func (ex *exchange) checkSigned(ref string, doc *ocidoc.Document) error {
	if ex.rule.SignedOriginals == config.SignedForward || !ex.peeks() {
		return nil
	}
	if digestRef(ref) && filters.IsAttestation(doc) {
		return nil // a build's own, about an image that was converted: it is taken out anyway
	}
	signed, ok := filters.SignatureTag(ref)
	if !ok && doc.Subject != nil {
		signed = doc.Subject.Digest
	}
	if signed == "" {
		return nil
	}
	aliases, err := ex.p.quarantine.Aliases(ex.ctx(), ex.repo, signed)
	if err != nil {
		ex.p.storageTrouble(ex.log, "look up alias of "+signed, err)
		return nil
	}
	if len(aliases) == 0 || aliases[0].Forwarded == signed {
		return nil
	}
	if err := ex.passthroughMayWrite(); err != nil {
		return err // who may not push here is not told what a digest became (I9)
	}
	// Upstream may have it too, and then whoever pulls that is protected: it was there before Sluice, or before a rule.
	if there, err := ex.isUpstream(signed); there || err != nil {
		return err
	}
	forwarded := aliases[0].Forwarded
	if ex.rule.SignedOriginals == config.SignedWarn {
		ex.log.Warn("an original was signed", "original", signed, "forwarded", forwarded)
		ex.w.Header().Add("Warning", fmt.Sprintf(`299 - "%s was forwarded as %s: sign that"`, signed, forwarded))
		return nil
	}
	return refuse(http.StatusForbidden, codeDenied, "%s was forwarded as %s: sign that (%s@%s); see signed_originals", signed, forwarded, ex.repo, forwarded).
		with(forwardedHeader, forwarded)
}

// isUpstream asks for a manifest by its digest. For who may push and not read it is not there.
func (ex *exchange) isUpstream(digest string) (bool, error) {
	there, err := ex.exists(manifestPath(digest))
	if p, is := errors.AsType[*passed](err); is && p.resp.StatusCode == http.StatusForbidden {
		discard(p.resp)
		err = nil
	}
	return there, err
}
