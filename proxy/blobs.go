package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/filters"
	"sluice/proxy/upstream"
)

// The empty JSON document of OCI artifacts (image-spec, "Guidance for an Empty Descriptor"). It
// waits in quarantine like a statement, since most of them are the config of an attestation, and
// can be sent upstream whether a copy waits or not.
const emptyBlob = "{}"

// headBlob answers whether a blob is there: upstream first, then what Sluice holds.
func (ex *exchange) headBlob() error {
	digest := ex.ref
	if f := checkDigest(ex.repo, digest); f != nil {
		return f
	}
	if ex.action() != filters.Forward && (asksForStatement(ex.r) || ex.p.wanted.has(inRepo{ex.repo, digest})) {
		return ex.headStatement(digest)
	}
	return ex.blob(digest, http.MethodHead)
}

// getBlob streams a blob from upstream, or from what Sluice holds.
func (ex *exchange) getBlob() error {
	digest := ex.ref
	if f := checkDigest(ex.repo, digest); f != nil {
		return f
	}
	return ex.blob(digest, http.MethodGet)
}

func (ex *exchange) blob(digest, method string) error {
	ahead := ex.lookAhead(digest, method)
	defer ex.leave(ahead)
	behind, _ := ex.p.owner(ex.repo)
	resp, err := ex.do(upstream.Request{
		Method: method, Path: blobPath(digest), Follow: behind.follow,
		Header: pick(ex.r.Header, "Accept", "Range", "If-Range", "If-None-Match", "If-Modified-Since"),
	})
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusNotFound && !ex.notGivenBack(resp) {
		if resp.StatusCode == http.StatusOK {
			ex.p.sent.put(ex.repo, digest)
		}
		ex.passResponse(resp)
		return nil
	}
	if method == http.MethodHead && asksForLayer(ex.r) {
		ex.passResponse(resp)
		return nil
	}
	if held, err := ex.heldBlob(digest, ahead); err != nil {
		discard(resp)
		return err
	} else if held != nil {
		defer held.Close()
		discard(resp)
		return ex.serveHeld(digest, held)
	}
	ex.passResponse(resp)
	return nil
}

// asksForStatement recognises BuildKit and containerd, which name a blob's media type when they
// look whether it is there (containerd core/remotes/docker/pusher.go): the only hint in the whole
// upload that its bytes are an attestation.
func asksForStatement(r *http.Request) bool {
	for _, v := range r.Header.Values("Accept") {
		if strings.Contains(v, "application/vnd.in-toto") {
			return true
		}
	}
	return false
}

// asksForLayer recognises the same clients at a layer. Layers are not held: one whose bytes were taken for a
// statement's is sent once more when it is said to be missing.
func asksForLayer(r *http.Request) bool {
	accept := r.Header["Accept"]
	return len(accept) == 1 && isLayer(accept[0])
}

// headStatement looks only here. A statement that upstream has does not help: a 404 makes the
// client send it, so that it can be kept. Under passthrough upstream is asked all the same when
// these credentials have not been seen lately, since this may be the request that asks for a challenge.
func (ex *exchange) headStatement(digest string) error {
	if ex.up.Passthrough() && !ex.p.authority.proven(ex.proofKey(false)) && !ex.p.authority.proven(ex.proofKey(true)) {
		resp, err := ex.do(upstream.Request{Method: http.MethodHead, Path: blobPath(digest)})
		if err != nil {
			return err
		}
		if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden || resp.StatusCode >= 500 {
			return &passed{resp}
		}
		discard(resp)
	}
	held, err := ex.heldBlob(digest, nil)
	if err != nil {
		return err
	}
	if held == nil {
		return refuse(http.StatusNotFound, codeBlobUnknown, "statement %s of repository %s is not held here yet", digest, ex.repo)
	}
	defer held.Close()
	return ex.serveHeld(digest, held)
}

// A held is a blob that Sluice has and upstream lacks. It can be closed while it is read: an upstream that answers in the
// middle of a body leaves its Transport reading for a moment.
type held struct {
	size int64
	open func(ctx context.Context, offset int64) (io.ReadCloser, error)
	rc   io.ReadCloser // of the Read that runs, if one does
	at   int64         // where rc is
	ctx  context.Context
	pos  int64 // what is read next

	mu      sync.Mutex
	reading bool
	closed  bool
}

// heldBlob finds a blob in quarantine or among what is stored, for whoever may read it. nil is
// "not here", also for who may not know. The storage may have been asked ahead; nil: it has not.
func (ex *exchange) heldBlob(digest string, ahead *lookUp) (*held, error) {
	if !ex.holdsBlobs() {
		return nil, nil
	}
	var w whereabouts
	if ahead != nil {
		w = ahead.wait()
	} else {
		w = ex.whereabouts(digest)
	}
	h, err := ex.found(digest, w)
	if err != nil {
		// Pushes without attestations go on when storage is down: "not here" makes the client send it.
		ex.p.storageTrouble(ex.log, "look up blob "+digest, err)
		return nil, nil
	}
	if h == nil && ex.knownWithoutACopy(digest) && ex.r.Method == http.MethodGet {
		h = emptyHeld() // who only asks whether it is there sends it, and it may be needed upstream
	}
	if h == nil {
		return nil, nil
	}
	if may, err := ex.mayRead(); !may {
		return nil, err
	}
	return h, nil
}

// knownWithoutACopy is true for `{}` on Amazon ECR: ECR says that it has it, so that no client sends it, and does not give
// it back. Other registries give what they say they have, and `{}` is there once it was pushed.
func (ex *exchange) knownWithoutACopy(digest string) bool {
	return digest == filters.EmptyDigest && ex.onECR()
}

// holdsBlobs is false where nothing but upstream can have a blob.
func (ex *exchange) holdsBlobs() bool {
	return ex.action() != filters.Forward || ex.rule.Attestations != filters.Forward
}

// serveHeld answers with bytes of our own, or one range of them. Of several the whole is the answer (RFC 9110, section
// 14.2): no client of a registry asks for them, and each would be read by itself, from the storage or from another
// registry.
func (ex *exchange) serveHeld(digest string, h *held) error {
	ex.p.sent.forget(ex.repo, digest)
	if strings.Contains(ex.r.Header.Get("Range"), ",") {
		ex.r.Header.Del("Range")
	}
	if ex.r.Method == http.MethodGet {
		// What cannot be opened is an error then, and no answer that breaks off at once.
		if err := h.prepare(firstByte(ex.r.Header.Get("Range"), h.size)); err != nil {
			return ex.unreadHeld(digest, err)
		}
	}
	hd := ex.w.Header()
	hd.Set("Content-Type", "application/octet-stream")
	hd.Set("Docker-Content-Digest", digest)
	hd.Set("Etag", strconv.Quote(digest))
	ex.answers = true
	http.ServeContent(ex.w, ex.r, "", time.Time{}, h)
	return nil
}

// unreadHeld is the answer when a held blob cannot be read from the storage, or from the registry that has it.
func (ex *exchange) unreadHeld(digest string, err error) error {
	if f, ours := errors.AsType[*Failure](err); ours {
		return f
	}
	return ex.storageTransient(err, "blob %s of repository %s could not be read from the storage of sluice, see its log; try again", digest, ex.repo)
}

// firstByte is where the bytes that a Range asks for begin. What it cannot read is for http.ServeContent to refuse.
func firstByte(asked string, size int64) int64 {
	asked, _ = strings.CutPrefix(asked, "bytes=")
	asked, _, _ = strings.Cut(asked, ",")
	from, to, _ := strings.Cut(strings.TrimSpace(asked), "-")
	at, err := strconv.ParseInt(from, 10, 64)
	if last, lastErr := strconv.ParseInt(to, 10, 64); from == "" && lastErr == nil {
		at, err = size-last, nil
	}
	if err != nil || at < 0 || at >= size {
		return 0
	}
	return at
}

// Read and Seek make a held blob what http.ServeContent wants, opened only where it is read.
func (h *held) Read(b []byte) (int, error) {
	if !h.begin() {
		return 0, io.ErrClosedPipe
	}
	defer h.end()
	if h.pos >= h.size {
		return 0, io.EOF
	}
	if err := h.reach(); err != nil {
		return 0, err
	}
	n, err := h.rc.Read(b)
	h.pos += int64(n)
	h.at = h.pos
	return n, err
}

// prepare opens what a Read from an offset on needs.
func (h *held) prepare(offset int64) error {
	if !h.begin() {
		return io.ErrClosedPipe
	}
	defer h.end()
	h.pos = offset
	return h.reach()
}

// reach opens the blob where it is read next. It is called between begin and end.
func (h *held) reach() error {
	if h.rc != nil && h.at != h.pos {
		_ = h.drop()
	}
	if h.rc == nil {
		rc, err := h.open(h.ctx, h.pos)
		if err != nil {
			return err
		}
		h.rc, h.at = rc, h.pos
	}
	return nil
}

func (h *held) begin() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reading = !h.closed
	return h.reading
}

// end closes what was opened when nobody wanted it any more.
func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reading = false; h.closed {
		_ = h.drop()
	}
}

func (h *held) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += h.pos
	case io.SeekEnd:
		offset += h.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start of a blob")
	}
	h.pos = offset
	return offset, nil
}

// Close waits for no Read: it may be one from a storage that hangs, and ends with the request.
func (h *held) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.reading {
		return nil
	}
	return h.drop()
}

func (h *held) drop() error {
	if h.rc == nil {
		return nil
	}
	err := h.rc.Close()
	h.rc = nil
	return err
}

// largeBlobs are in memory at the same time: of over 64 KiB each, and up to 4 MiB.
const largeBlobs = 8

// roomForBlob waits until a blob may be read whole. One that waits has the places of others to wait for that are only
// reading, and what they read from does not take for ever: so a client that hangs up ends nothing half-way.
func (ex *exchange) roomForBlob(size int64) (release func()) {
	if size <= believed {
		return func() {}
	}
	_ = ex.p.largeBlobs.Acquire(context.WithoutCancel(ex.ctx()), 1) // it ends with a context only
	return func() { ex.p.largeBlobs.Release(1) }
}

// bytes reads a small held blob whole.
func (h *held) bytes(limit int64) ([]byte, error) {
	defer h.Close()
	if h.size > limit {
		return nil, errors.New("blob is larger than " + strconv.FormatInt(limit, 10) + " bytes")
	}
	return io.ReadAll(io.LimitReader(h, limit))
}

// deleteBlob deletes upstream's blob, and what is held under the same digest: after a delete
// nothing may answer any more ("Deleting Blobs"). What `store` keeps goes with its manifest.
func (ex *exchange) deleteBlob() error {
	digest := ex.ref
	if f := checkDigest(ex.repo, digest); f != nil {
		return f
	}
	ex.p.sent.forget(ex.repo, digest)
	resp, err := ex.do(upstream.Request{Method: http.MethodDelete, Path: blobPath(digest), Push: true})
	if err != nil {
		return err
	}
	if !ex.peeks() || (resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotFound) {
		ex.passResponse(resp)
		return nil
	}
	if _, err := ex.p.quarantine.StatBlob(ex.ctx(), ex.repo, digest); err != nil {
		ex.p.storageTrouble(ex.log, "look up blob "+digest, err)
		ex.passResponse(resp) // nothing held, or storage that cannot tell
		return nil
	}
	if resp.StatusCode == http.StatusNotFound && ex.up.Passthrough() {
		if err := ex.mayWrite(); err != nil {
			discard(resp)
			return err
		}
	}
	discard(resp)
	if err := ex.p.quarantine.DeleteBlob(ex.ctx(), ex.repo, digest); err != nil {
		return ex.storageTransient(err, "blob %s of repository %s could not be deleted: the storage of sluice failed, see its log; try again", digest, ex.repo)
	}
	ex.p.heldQuota.release(heldBlobOf(ex.repo, digest))
	ex.w.Header().Set("Content-Length", "0")
	ex.answers = true
	ex.w.WriteHeader(http.StatusAccepted)
	return nil
}

// pass sends a request upstream and its answer back.
func (ex *exchange) pass(q upstream.Request) error {
	resp, err := ex.do(q)
	if err != nil {
		return err
	}
	ex.passResponse(resp)
	return nil
}

// pick copies the named headers with all their lines: Docker 20.10, skopeo, podman and regctl send
// several Accept lines.
func pick(from http.Header, names ...string) http.Header {
	h := http.Header{}
	for _, n := range names {
		if v := from.Values(n); len(v) > 0 {
			h[http.CanonicalHeaderKey(n)] = v
		}
	}
	return h
}
