package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sluice/filters"
	"sluice/proxy/access"
	"sluice/proxy/config"
	"sluice/proxy/quarantine"
	"sluice/proxy/session"
	"sluice/proxy/upstream"
)

// postUpload starts an upload: a mount, a whole blob in one request, or a session.
//
// The session that the client gets exists only in its URL. Upstream's is opened when bytes arrive
// that go there, so that an attestation costs upstream nothing (distribution-spec, "Pushing blobs").
func (ex *exchange) postUpload() error {
	defer ex.leaveCrowd()
	var q url.Values
	if ex.r.URL.RawQuery != "" {
		q = ex.r.URL.Query()
	}
	if digest := q.Get("mount"); digest != "" {
		return ex.mount(digest, q)
	}
	if err := ex.mayUpload(); err != nil {
		return err
	}
	st := ex.newSession()
	if digest := q.Get("digest"); digest != "" {
		return ex.complete(&st, digest)
	}
	return ex.answerSession(http.StatusAccepted, &st)
}

func (ex *exchange) newSession() session.State {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return session.State{
		Repository: ex.repo, Identity: ex.id.Key, ID: hex.EncodeToString(id[:]),
		Mode: session.Undecided, Generation: ex.p.quarantine.Generation(), Started: ex.p.now(),
	}
}

// mount asks upstream to take a blob over from another repository. Clients of the containerd
// family give up on any answer but 201 and 202, so a refused mount becomes
// a session.
func (ex *exchange) mount(digest string, q url.Values) error {
	from := q.Get("from")
	if f := checkDigest(ex.repo, digest); f != nil {
		return f
	}
	if ex.p.wanted.has(inRepo{ex.repo, digest}) {
		return ex.plainSession()
	}
	query := url.Values{"mount": {digest}}
	if from == "" && ex.p.access.Limited(ex.id) && !ex.up.Passthrough() {
		// With Sluice's own rights upstream might take it from a repository that this client may not read.
		return ex.plainSession()
	}
	var source string
	if from != "" {
		b, name := ex.p.owner(from)
		if b == nil || b.registry != ex.up || !validRepository(from) || !ex.p.access.Allowed(ex.id, from, access.Pull) {
			return ex.plainSession()
		}
		source = name
		query.Set("from", name)
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodPost, Path: "blobs/uploads/", Query: query, Push: true, Mount: source})
	if err != nil {
		return err
	}
	switch {
	case resp.StatusCode == http.StatusCreated:
		discard(resp)
		ex.p.authority.prove(ex.proofKey(true))
		return ex.answerBlob(digest)
	case resp.StatusCode == http.StatusAccepted:
		defer discard(resp)
		st := ex.newSession()
		if location, err := ex.up.Location(resp); err == nil {
			// For this blob only: olareg binds the session to the digest of the mount.
			ex.p.authority.prove(ex.proofKey(true))
			st.Location = location
		}
		return ex.answerSession(http.StatusAccepted, &st)
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode >= 500:
		return &passed{resp}
	}
	discard(resp)
	return ex.plainSession()
}

func (ex *exchange) plainSession() error {
	if err := ex.mayUpload(); err != nil {
		return err
	}
	st := ex.newSession()
	return ex.answerSession(http.StatusAccepted, &st)
}

// openState opens the sealed upload URL.
func (ex *exchange) openState() (session.State, error) {
	st, err := ex.p.openToken(ex.ctx(), ex.ref, ex.repo, ex.id.Key)
	switch {
	case err == nil:
		var cancelled bool
		if st, ex.stale, cancelled = ex.p.progress.newest(st); cancelled {
			return st, refuse(http.StatusNotFound, codeBlobUploadUnknown, "upload to repository %s was cancelled: start again with POST", ex.repo)
		}
		return st, nil
	case errors.Is(err, session.ErrExpired):
		return st, refuse(http.StatusNotFound, codeBlobUploadUnknown, "upload to repository %s has expired: start again with POST", ex.repo)
	}
	return st, refuse(http.StatusNotFound, codeBlobUploadUnknown, "upload URL is not one that sluice gave to this client for repository %s: start again with POST", ex.repo).because(err)
}

// answerSession tells the client where to go on, and how much has arrived.
func (ex *exchange) answerSession(status int, st *session.State) error {
	token, err := ex.p.sealer.Seal(*st)
	if err != nil {
		return transient(err, "sluice could not seal the upload to repository %s: see its log", ex.repo)
	}
	ex.say("Location", ex.here("/blobs/uploads/", token))
	ex.say("Range", uploadRange(st.Offset))
	ex.say("Docker-Upload-Uuid", st.ID)
	if v := ex.p.authority.minChunk(ex.repo); v != "" && ex.r.Method == http.MethodPost {
		ex.w.Header().Set(chunkMinLength, v)
	}
	ex.say("Content-Length", "0")
	ex.answers = true
	ex.w.WriteHeader(status)
	return nil
}

// uploadRange is "0-<last byte>"; the spec has no form for none, and distribution says 0-0.
func uploadRange(offset int64) string {
	if offset <= 1 {
		return "0-0"
	}
	return "0-" + strconv.FormatInt(offset-1, 10)
}

// answerBlob tells that the blob is there. Docker-Content-Digest is the digest that was asked for:
// BuildKit and containerd compare it.
func (ex *exchange) answerBlob(digest string) error {
	ex.say("Location", ex.here("/blobs/", digest))
	ex.say("Docker-Content-Digest", digest)
	ex.say("Content-Length", "0")
	ex.answers = true
	ex.w.WriteHeader(http.StatusCreated)
	return nil
}

// getUpload tells how much of an upload has arrived.
func (ex *exchange) getUpload() error {
	st, err := ex.openState()
	if err != nil {
		return err
	}
	if err := ex.stillHeld(&st); err != nil {
		return err
	}
	if st.Mode != session.Upstream || ex.onECR() {
		// ECR's Range stays at the end of the first part (roadmap#2831), and chunks may wait here: the own count is what counts.
		return ex.answerSession(http.StatusNoContent, &st)
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodGet, Location: st.Location, Push: true})
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &passed{resp}
	}
	defer discard(resp)
	// Upstream's word counts: the answer to the last PATCH may have been lost on its way.
	if _, last, ok := strings.Cut(resp.Header.Get("Range"), "-"); ok {
		if n, err := strconv.ParseInt(last, 10, 64); err == nil && n >= 0 && n < math.MaxInt64 && (n > 0 || st.Offset > 0) {
			st.Offset = n + 1
		}
	}
	ex.moveOn(&st, resp)
	return ex.answerSession(http.StatusNoContent, &st)
}

// stillHeld refuses to tell how far an upload has come whose parts have gone, by whichever replica: its URL says what there
// was. Under on_storage_error: strip they may never have been there.
func (ex *exchange) stillHeld(st *session.State) error {
	if st.Parts == 0 || ex.p.cfg.OnStorageError == config.StorageErrorStrip {
		return nil
	}
	there, err := ex.p.quarantine.HasPart(ex.ctx(), st.Generation, ex.repo, st.ID, st.Parts-1)
	if err != nil {
		ex.p.storageTrouble(ex.log, "look how far an upload has come", err)
		return nil
	}
	if !there {
		return ex.hasEnded(quarantine.ErrNotFound)
	}
	return nil
}

// moveOn takes over the session URL that upstream gave with its answer.
func (ex *exchange) moveOn(st *session.State, resp *http.Response) {
	if resp.Header.Get("Location") == "" {
		return
	}
	if l, err := ex.up.Location(resp); err == nil {
		st.Location = l
	} else {
		ex.log.Warn("upstream named a session URL that is not used", "reason", err)
	}
}

// deleteUpload cancels an upload.
func (ex *exchange) deleteUpload() error {
	st, err := ex.openState()
	if err != nil {
		return err
	}
	switch {
	case st.Mode == session.Upstream && ex.onECR():
		// Whether ECR takes a DELETE is not known; a session that is left alone costs nothing there.
		if st.Parts > 0 {
			ex.dropParts(&st)
		}
	case st.Mode == session.Upstream:
		resp, err := ex.do(upstream.Request{Method: http.MethodDelete, Location: st.Location, Push: true})
		if err != nil {
			return err
		}
		if resp.StatusCode < 300 {
			ex.p.progress.cancel(st)
		}
		ex.passResponse(resp)
		return nil
	case st.Mode == session.Undecided:
		ex.abandon(&st)
	case st.Mode == session.Held:
		if err := ex.forgetParts(&st); err != nil {
			return ex.storageTransient(err, "upload to repository %s could not be cancelled: the storage of sluice failed, see its log; try again", ex.repo)
		}
	}
	ex.p.progress.cancel(st)
	ex.w.Header().Set("Content-Length", "0")
	ex.w.WriteHeader(http.StatusNoContent)
	return nil
}

// contentRange checks the Content-Range of a chunk against what has arrived ("Pushing a blob in
// chunks": a chunk out of order is 416). ok is false when the client sent none.
func (ex *exchange) contentRange(st *session.State) (ok bool, err error) {
	v := ex.r.Header.Get("Content-Range")
	if v == "" {
		if ex.stale && ex.r.Method == http.MethodPatch {
			f := refuse(http.StatusRequestedRangeNotSatisfiable, codeBlobUploadInvalid, "upload URL for repository %s is not that of the last answer: %d bytes have arrived since", ex.repo, st.Offset)
			return false, f.with("Range", uploadRange(st.Offset))
		}
		return false, nil
	}
	start, end, ok := parseContentRange(v)
	if !ok {
		return true, refuse(http.StatusBadRequest, codeBlobUploadInvalid, "Content-Range %q of an upload to repository %s is not <first byte>-<last byte>", clip(v), ex.repo)
	}
	if start != st.Offset {
		f := refuse(http.StatusRequestedRangeNotSatisfiable, codeBlobUploadInvalid, "chunk for repository %s starts at byte %d, but %d bytes have arrived: send the next one", ex.repo, start, st.Offset)
		return true, f.with("Range", uploadRange(st.Offset))
	}
	if n := ex.r.ContentLength; n >= 0 && n != end-start+1 {
		return true, refuse(http.StatusBadRequest, codeSizeInvalid, "chunk for repository %s has %d bytes, and Content-Range says %d", ex.repo, n, end-start+1)
	}
	return true, nil
}

// parseContentRange reads "0-99" (distribution-spec) and "bytes 0-99/100" (RFC 9110). Nothing is -1 past its start.
func parseContentRange(v string) (start, end int64, ok bool) {
	v, _, _ = strings.Cut(strings.TrimPrefix(v, "bytes "), "/")
	first, last, found := strings.Cut(v, "-")
	start, startErr := strconv.ParseInt(first, 10, 64)
	end, endErr := strconv.ParseInt(last, 10, 64)
	return start, end, found && startErr == nil && endErr == nil && start >= 0 && end >= start-1 && end < math.MaxInt64
}

// peeks is true where what a blob is decides when it travels.
func (ex *exchange) peeks() bool { return ex.action() != filters.Forward }
