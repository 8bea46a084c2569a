package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	godigest "github.com/opencontainers/go-digest"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/internal/objects"
	"sluice/proxy/quarantine"
	"sluice/proxy/session"
	"sluice/proxy/upstream"
)

// heldInMemory is how large a held blob may be to be hashed in memory and written in one atomic
// call. Nearly every statement is smaller; SBOMs may not be, and are written in parts.
const heldInMemory = 256 << 10

// holdWhole keeps a blob that came in one request: the common case, since BuildKit sends every
// blob as one PUT.
func (ex *exchange) holdWhole(st *session.State, digest string, c *chunk) error {
	if err := ex.mayHold(0, c.length); err != nil {
		return err
	}
	body := c.all()
	small, err := readUpTo(body, c.length, believed+1)
	if err == nil && len(small) > believed {
		if err := ex.enterCrowd(int64(len(small))); err != nil {
			return err
		}
		small, err = fill(body, small, heldInMemory+1)
	}
	if err != nil {
		return bodyError(ex, err)
	}
	if len(small) > heldInMemory {
		rest := *st
		rest.Offset = 0 // what earlier requests brought is part of body
		return ex.holdParts(&rest, digest, io.MultiReader(bytes.NewReader(small), body), c.length)
	}
	if objects.CheckBytes(small, digest) != nil {
		return wrongDigest(ex.repo, digest, godigest.Digest(digest).Algorithm().FromBytes(small).String())
	}
	switch err := ex.holdBlob(digest, small); {
	case errors.Is(err, errNoRoom) && ex.bundle:
		return ex.sendInstead(digest, small)
	case errors.Is(err, errNoRoom):
		return ex.noRoom()
	case err != nil:
		return ex.cannotHold(digest, small, err)
	}
	ex.p.progress.done(st.ID)
	return ex.answerHeld(digest)
}

// holdBlob puts a blob into quarantine, unless its pusher holds too much: errNoRoom. All of it is here, so a client that
// hangs up leaves no doubt whether it is held, and costs.
func (ex *exchange) holdBlob(digest string, content []byte) error {
	room := ex.p.heldQuota.room(ex.id.Key)
	defer room.drop()
	if !room.grow(int64(len(content))) {
		return errNoRoom
	}
	if err := ex.p.quarantine.PutBlob(context.WithoutCancel(ex.ctx()), ex.repo, digest, content); err != nil {
		return err
	}
	room.hold(heldBlobOf(ex.repo, digest), ex.p.quarantine.Generation(), int64(len(content)))
	ex.p.foretold.held(ex.repo, digest, content)
	ex.p.observe.Held(int64(len(content)))
	return nil
}

// answerHeld tells that the blob is there, which upstream need not have.
func (ex *exchange) answerHeld(digest string) error {
	ex.p.sent.forget(ex.repo, digest)
	return ex.answerBlob(digest)
}

// holdEmpty keeps `{}` if it can. It is known without that, and what has nothing to do with attestations refers to it too:
// neither a storage that is down nor what its pusher holds already stops it.
func (ex *exchange) holdEmpty(st *session.State) error {
	if err := ex.passthroughMayWrite(); err != nil {
		return err
	}
	if err := ex.holdBlob(filters.EmptyDigest, []byte(emptyBlob)); err != nil && !errors.Is(err, errNoRoom) {
		ex.p.storageTrouble(ex.log, "keep the empty blob", err)
	}
	ex.p.progress.done(st.ID)
	return ex.answerHeld(filters.EmptyDigest)
}

// mayHold refuses what would fill the storage, and who may not push here.
func (ex *exchange) mayHold(offset, length int64) error {
	if limit := int64(ex.p.cfg.MaxHeldBlob); offset+max(length, 0) > limit {
		return ex.tooLarge()
	}
	if err := ex.passthroughMayWrite(); err != nil { // the session may have come from another replica, or long ago
		return err
	}
	return ex.roomFor(length)
}

// mayHoldMore is the same in the middle of an upload. What is refused for good ends it, unless it is to be sent on; who
// must sign in again, or finds upstream in trouble, goes on with it afterwards.
func (ex *exchange) mayHoldMore(st *session.State, length int64) (sendOn bool, err error) {
	if limit := int64(ex.p.cfg.MaxHeldBlob); st.Offset+max(length, 0) > limit {
		err = ex.tooLarge()
	} else {
		if err := ex.passthroughMayWrite(); err != nil {
			return false, err
		}
		err = ex.roomFor(length)
	}
	if err == nil || length != 0 && ex.isBundle(st) {
		return err != nil, nil
	}
	ex.giveUp(st)
	return false, err
}

func (ex *exchange) tooLarge() error {
	return refuse(http.StatusRequestEntityTooLarge, codeSizeInvalid,
		"attestation blob for repository %s is larger than max_held_blob (%d bytes): raise max_held_blob in the configuration of sluice",
		ex.repo, int64(ex.p.cfg.MaxHeldBlob))
}

// holdParts keeps a large blob as one numbered part and checks its digest from there.
func (ex *exchange) holdParts(st *session.State, digest string, body io.Reader, length int64) error {
	if err := ex.enterCrowd(length); err != nil {
		return err
	}
	err := ex.writePart(st, body)
	var u *unkept
	if errors.As(err, &u) {
		return ex.streamLast(st, digest, ex.instead(st, u, length), false)
	}
	if err != nil {
		return err
	}
	return ex.assemble(st, digest)
}

// writePart keeps one more part of a held upload.
func (ex *exchange) writePart(st *session.State, body io.Reader) error {
	left := int64(ex.p.cfg.MaxHeldBlob) - st.Offset
	counted := &countingReader{r: body}
	n, err := ex.keepPart(st, counted, left)
	switch {
	case err == nil:
	case errors.Is(err, errNoRoom), errors.Is(err, quarantine.ErrTooLarge):
		if again := counted.again(); again != nil && ex.isBundle(st) {
			return &unkept{body: again, cause: err}
		}
		ex.giveUp(st)
		if errors.Is(err, errNoRoom) {
			return ex.noRoom()
		}
		return ex.tooLarge()
	case !errors.Is(err, quarantine.ErrStorage):
		return err
	case ex.bundle && counted.again() != nil:
		return &unkept{body: counted.again(), cause: err}
	case ex.p.cfg.OnStorageError == config.StorageErrorStrip:
		ex.p.storageTrouble(ex.log, "keep a part of an attestation blob", err)
		if _, err := io.Copy(io.Discard, io.LimitReader(counted, left-counted.n+1)); err != nil {
			return bodyError(ex, err)
		}
		if n = counted.n; n > left {
			return ex.tooLarge()
		}
	case ex.p.cfg.OnStorageError == config.StorageErrorForward && st.Parts == 0 && counted.again() != nil:
		return &unkept{body: counted.again(), cause: err}
	default:
		return ex.storageTransient(err, "attestation blob for repository %s could not be kept: the storage of sluice failed, see its log", ex.repo)
	}
	st.Offset += n
	st.Parts++
	return nil
}

// countingReader counts what was read before the storage failed, and remembers the beginning.
type countingReader struct {
	r    io.Reader
	n    int64
	head []byte
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	if len(c.head) < heldInMemory {
		c.head = append(c.head, b[:min(n, heldInMemory-len(c.head))]...)
	}
	return n, err
}

// again is the whole body once more, nil when more of it was read than is remembered.
func (c *countingReader) again() io.Reader {
	if c.n > int64(len(c.head)) {
		return nil
	}
	return io.MultiReader(bytes.NewReader(c.head), c.r)
}

// unkept is a body that the storage did not take and that can still be sent upstream.
type unkept struct {
	body  io.Reader
	cause error
}

func (u *unkept) Error() string { return u.cause.Error() }

// instead streams upstream what the storage did not take (on_storage_error: forward).
func (ex *exchange) instead(st *session.State, u *unkept, length int64) *chunk {
	if !errors.Is(u.cause, errNoRoom) && !errors.Is(u.cause, quarantine.ErrTooLarge) {
		ex.p.storageTrouble(ex.log, "keep an attestation blob", u.cause)
	}
	sendOn(st)
	return &chunk{rest: u.body, length: length}
}

// giveUp ends a held upload that was refused, so that what has come of it costs nobody anything.
func (ex *exchange) giveUp(st *session.State) {
	if st.Parts > 0 {
		ex.dropParts(st)
	}
	ex.p.progress.cancel(*st)
}

// hasEnded is for an upload whose parts are not there any more: it was cancelled or ended, or these parts were sent on, by
// whichever replica. Its URL does not say so, and to try it again would not help.
func (ex *exchange) hasEnded(err error) error {
	return refuse(http.StatusNotFound, codeBlobUploadUnknown, "upload to repository %s has ended meanwhile: start again with POST", ex.repo).because(err)
}

func (ex *exchange) dropParts(st *session.State) {
	if err := ex.forgetParts(st); err != nil {
		ex.log.Warn("parts of an upload stay until they are swept", "reason", err)
	}
}

// forgetParts deletes the parts of an upload, which then cost nothing any more.
func (ex *exchange) forgetParts(st *session.State) error {
	err := ex.p.quarantine.DropParts(ex.ctx(), st.Generation, ex.repo, st.ID)
	if err == nil {
		ex.p.heldQuota.releaseParts(ex.repo, st.ID, st.Parts)
	}
	return err
}

func (ex *exchange) assemble(st *session.State, digest string) error {
	// The client's bytes are all here: when it hangs up now there is no doubt what is held, and costs.
	ctx := context.WithoutCancel(ex.ctx())
	size, err := ex.p.quarantine.Assemble(ctx, st.Generation, ex.repo, st.ID, st.Parts, digest)
	switch {
	case err == nil:
		ex.p.heldQuota.releaseParts(ex.repo, st.ID, st.Parts)
		ex.p.heldQuota.room(ex.id.Key).hold(heldBlobOf(ex.repo, digest), ex.p.quarantine.Generation(), size)
	case errors.Is(err, quarantine.ErrDigest):
		ex.dropParts(st)
		return refuse(http.StatusBadRequest, codeDigestInvalid, "%v", err)
	case ex.p.cfg.OnStorageError == config.StorageErrorStrip && ex.ctx().Err() == nil:
		ex.p.storageTrouble(ex.log, "keep attestation blob "+digest, err)
		return ex.answerBlob(digest)
	case errors.Is(err, quarantine.ErrNotFound):
		return ex.hasEnded(err)
	default:
		return ex.storageTransient(err, "attestation blob %s for repository %s could not be kept: the storage of sluice failed, see its log", digest, ex.repo)
	}
	ex.p.progress.done(st.ID)
	ex.p.observe.Held(size)
	return ex.answerHeld(digest)
}

// holdChunk keeps one PATCH of a held upload.
func (ex *exchange) holdChunk(st *session.State, c *chunk) error {
	instead, err := ex.mayHoldMore(st, c.length)
	if err != nil {
		return err
	}
	if instead {
		sendOn(st)
		return ex.streamChunk(st, c, false)
	}
	if c.length != 0 {
		if err := ex.enterCrowd(c.length); err != nil {
			return err
		}
		err := ex.writePart(st, c.all())
		var u *unkept
		if errors.As(err, &u) {
			return ex.streamChunk(st, ex.instead(st, u, c.length), false)
		}
		if err != nil {
			return err
		}
	}
	ex.p.progress.put(*st)
	return ex.answerSession(http.StatusAccepted, st)
}

// holdLast ends a held upload, with or without a last chunk on the PUT.
func (ex *exchange) holdLast(st *session.State, digest string, c *chunk) error {
	instead, err := ex.mayHoldMore(st, c.length)
	if err != nil {
		return err
	}
	if instead {
		sendOn(st)
		return ex.streamLast(st, digest, c, false)
	}
	if c.length != 0 {
		return ex.holdParts(st, digest, c.all(), c.length)
	}
	return ex.assemble(st, digest)
}

// cannotHold does what the operator chose for storage that is full or down (on_storage_error).
func (ex *exchange) cannotHold(digest string, content []byte, cause error) error {
	ex.p.storageTrouble(ex.log, "keep blob "+digest, cause)
	switch {
	case ex.bundle, ex.p.cfg.OnStorageError == config.StorageErrorForward:
		return ex.sendInstead(digest, content)
	case ex.p.cfg.OnStorageError == config.StorageErrorStrip:
		return ex.answerBlob(digest)
	}
	return transient(cause, "attestation blob %s for repository %s could not be kept: the storage of sluice failed, see its log (on_storage_error: reject)", digest, ex.repo)
}

// sendBlob uploads bytes that are at hand.
func (ex *exchange) sendBlob(digest string, content []byte) error {
	return ex.sendWhole(digest, int64(len(content)), func(q *upstream.Request, _ bool) { q.Replay = content })
}
