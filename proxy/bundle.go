package proxy

import (
	"slices"

	"sluice/filters"
	"sluice/proxy/session"
)

// waits says whether a blob is held until a manifest refers to it, by what it looks like.
//
// A sigstore bundle is, since it may be the signature of an attestation that was taken out, see keepAbout, and upstream may
// not give it back before any manifest refers to it: Amazon ECR does not. But most sign images, and pushes of these depend
// neither on the storage nor on what their pusher has there. So a bundle is held only while it is small, as nearly all
// are, and what cannot be held is sent on.
func (ex *exchange) waits(guess filters.Guess, c *chunk) (bool, error) {
	if guess != filters.Bundle {
		return guess == filters.Hold, nil
	}
	most := min(heldInMemory, int64(ex.p.cfg.MaxHeldBlob))
	for _, n := range []int64{min(most, believed), most} {
		if n > believed && c.length < 0 && !ex.triesCrowd() {
			break
		}
		if err := c.readAhead(int(n) + 1); err != nil {
			return false, bodyError(ex, err)
		}
	}
	ex.bundle = c.length >= 0 && c.length <= most && ex.p.heldQuota.hasRoom(ex.id.Key, c.length) &&
		(c.length <= believed || ex.triesCrowd())
	return ex.bundle, nil
}

// readAhead reads a body that does not say its length until there are so many bytes, or it ends and its length is known.
// cosign says none of its blobs (go-containerregistry, pkg/v1/remote/write.go, streamBlob).
func (c *chunk) readAhead(most int) (err error) {
	if c.length < 0 {
		c.head, err = fill(c, slices.Clip(c.head), most)
	}
	if c.length < 0 && c.ended.Load() {
		c.length = int64(len(c.head))
	}
	return err
}

// sendInstead sends upstream what was not held, and is here whole.
func (ex *exchange) sendInstead(digest string, content []byte) error {
	if err := ex.sendBlob(digest, content); err != nil {
		return err
	}
	return ex.answerBlob(digest)
}

// isBundle is true for an upload of a bundle. What earlier requests brought says so: this one may go to another replica.
func (ex *exchange) isBundle(st *session.State) bool {
	if ex.bundle || st.Parts == 0 {
		return ex.bundle
	}
	parts, err := ex.p.quarantine.Parts(ex.ctx(), st.Generation, ex.repo, st.ID, st.Parts)
	if err != nil {
		return false
	}
	defer parts.Close()
	head, err := fill(parts, nil, filters.PeekLen)
	return err == nil && filters.Peek(head, false) == filters.Bundle
}

// sendOn makes a held upload one that goes upstream, with what is held of it in front: see withWaiting.
func sendOn(st *session.State) {
	st.Mode, st.Pending = session.Upstream, st.Offset
}
