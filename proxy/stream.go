package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync/atomic"

	"sluice/filters"
	"sluice/proxy/session"
	"sluice/proxy/upstream"
)

// chunk is the body of one PATCH or PUT: what was held back of earlier ones, and what arrives now.
type chunk struct {
	head    []byte // peeked bytes, of earlier requests too
	rest    io.Reader
	length  int64        // of head and rest; -1 unknown
	carried int64        // bytes of head that earlier requests brought
	read    atomic.Int64 // bytes of rest that were read, by whoever streams it
	ended   bool         // rest is at its end
}

func (c *chunk) Read(b []byte) (int, error) {
	n, err := c.rest.Read(b)
	c.read.Add(int64(n))
	if errors.Is(err, io.EOF) {
		c.ended = true
	}
	return n, err
}

// total is how many bytes have been taken over.
func (c *chunk) total() int64 { return c.carried + c.read.Load() }

// all is the whole body, once.
func (c *chunk) all() io.Reader {
	switch {
	case c.length == 0:
		return http.NoBody
	case c.ended:
		return bytes.NewReader(c.head)
	case len(c.head) == 0:
		return c
	}
	return io.MultiReader(bytes.NewReader(c.head), c)
}

// newChunk takes the request's body behind the bytes that an earlier PATCH left.
func (ex *exchange) newChunk(st *session.State) *chunk {
	c := &chunk{head: st.Peeked, rest: ex.r.Body, length: -1, carried: int64(len(st.Peeked))}
	if c.rest == nil {
		c.rest = http.NoBody
	}
	if ex.r.ContentLength >= 0 {
		c.length = int64(len(st.Peeked)) + ex.r.ContentLength
	}
	c.ended = ex.r.ContentLength == 0
	return c
}

// peek reads no further than it must to guess what the blob is. A guess decides only when the blob
// travels, never whether (I8).
func (ex *exchange) peek(c *chunk, last bool) (filters.Guess, error) {
	if !ex.peeks() {
		return filters.Pass, nil
	}
	buf := make([]byte, filters.PeekLen)
	for {
		g := filters.Peek(c.head, last && c.ended)
		if g != filters.Undecided || c.ended {
			return g, nil
		}
		n, err := c.Read(buf[:max(1, filters.PeekLen-len(c.head))])
		c.head = append(c.head[:len(c.head):len(c.head)], buf[:n]...)
		if err != nil && !errors.Is(err, io.EOF) {
			return g, bodyError(ex, err)
		}
	}
}

// bodyError is a body that could not be read to its end: nearly always a client that went away.
func bodyError(ex *exchange, err error) error {
	if ctxErr := ex.ctx().Err(); ctxErr != nil {
		return ctxErr
	}
	return refuse(http.StatusBadRequest, codeBlobUploadInvalid, "request body for repository %s ended early: %v", ex.repo, err).because(err)
}

// patchUpload takes one chunk.
func (ex *exchange) patchUpload() error {
	st, err := ex.openState()
	if err != nil {
		return err
	}
	ranged, err := ex.contentRange(&st)
	if err != nil {
		var f *Failure
		if errors.As(err, &f) && f.Status == http.StatusRequestedRangeNotSatisfiable {
			if token, err := ex.p.sealer.Seal(st); err == nil {
				f.Header.Set("Location", ex.here("blobs", "uploads", token))
			}
		}
		return err
	}
	c := ex.newChunk(&st)
	if st.Mode == session.Undecided {
		guess, err := ex.peek(c, false)
		if err != nil {
			return err
		}
		switch guess {
		case filters.Undecided, filters.Empty:
			st.Peeked = c.head
			st.Offset = int64(len(c.head))
			ex.p.progress.put(st)
			return ex.answerSession(http.StatusAccepted, &st)
		case filters.Hold:
			st.Mode = session.Held
			ex.abandon(&st)
		default:
			st.Mode = session.Upstream
		}
		st.Peeked, st.Offset = nil, 0
	}
	if st.Mode == session.Held {
		return ex.holdChunk(&st, c)
	}
	return ex.streamChunk(&st, c, ranged)
}

// streamChunk sends one chunk to the upstream session.
func (ex *exchange) streamChunk(st *session.State, c *chunk, ranged bool) error {
	if c.length == 0 && (!ranged || ex.onECR()) { // nothing to say to upstream
		return ex.answerSession(http.StatusAccepted, st)
	}
	c, err := ex.gather(st, c, ranged)
	if err != nil {
		return err
	}
	if c == nil {
		ex.p.progress.put(*st)
		return ex.answerSession(http.StatusAccepted, st)
	}
	if err := ex.openFor(st); err != nil {
		return err
	}
	body, length, done, err := ex.withWaiting(ex.ctx(), st, c)
	if err != nil {
		return err
	}
	defer done()
	resp, err := ex.do(upstream.Request{
		Method: http.MethodPatch, Location: st.Location, Push: true, Header: chunkHeader(st, length, ranged),
		Body: body, ContentLength: length,
	})
	if err != nil {
		return err
	}
	// ECR answers 201, olareg and distribution 202, others 204.
	if resp.StatusCode >= 300 {
		return &passed{resp}
	}
	defer discard(resp)
	// Counted here: the Range that ECR answers stays at the first chunk's end (roadmap#2831).
	st.Offset += c.total()
	ex.p.observe.Streamed(st.Pending + c.total())
	if st.Parts > 0 { // nothing may wait again before the upload ends
		ex.dropParts(st)
	}
	st.Pending, st.Parts = 0, 0
	ex.moveOn(st, resp)
	ex.p.progress.put(*st)
	return ex.answerSession(http.StatusAccepted, st)
}

// chunkHeader says of a chunk that is sent on where it begins.
func chunkHeader(st *session.State, length int64, ranged bool) http.Header {
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if from := st.Offset - st.Pending; ranged && length > 0 {
		header.Set("Content-Range", fmt.Sprintf("%d-%d", from, from+length-1))
	}
	return header
}

// putUpload takes the last chunk, or the whole blob, or nothing more, and closes the upload.
func (ex *exchange) putUpload() error {
	st, err := ex.openState()
	if err != nil {
		return err
	}
	return ex.complete(&st, ex.r.URL.Query().Get("digest"))
}

// complete ends an upload with the digest that its bytes must have. Upstream checks what streams
// there; Sluice checks only what it holds.
func (ex *exchange) complete(st *session.State, digest string) error {
	if f := checkDigest(ex.repo, digest); f != nil {
		return f
	}
	ranged, err := ex.contentRange(st)
	if err != nil {
		return err
	}
	c := ex.newChunk(st)
	if st.Mode == session.Undecided {
		guess, err := ex.peek(c, true)
		if err != nil {
			return err
		}
		if guess == filters.Hold || guess == filters.Empty {
			ex.abandon(st)
			return ex.holdWhole(st, digest, c)
		}
		st.Mode, st.Offset = session.Upstream, 0
	}
	if st.Mode == session.Held {
		return ex.holdLast(st, digest, c)
	}
	return ex.streamLast(st, digest, c, ranged)
}

// streamLast sends the rest of a blob to the upstream session and closes it.
func (ex *exchange) streamLast(st *session.State, digest string, c *chunk, ranged bool) error {
	if sent := st.Offset - st.Pending; ex.onECR() && sent > 0 && sent < leastPart {
		switch more, err := c.anything(); {
		case err != nil:
			return bodyError(ex, err)
		case more:
			return ex.tooSmall(sent)
		}
	}
	if err := ex.openFor(st); err != nil {
		return err
	}
	body, length, done, err := ex.withWaiting(ex.ctx(), st, c)
	if err != nil {
		return err
	}
	defer done()
	resp, err := ex.do(upstream.Request{
		Method: http.MethodPut, Location: st.Location, Query: url.Values{"digest": {digest}}, Push: true,
		Header: chunkHeader(st, length, ranged), Body: body, ContentLength: length,
	})
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusNotFound && ex.arrived(digest) {
		resp.StatusCode = http.StatusCreated // the answer to the first of two tries was lost
	}
	if resp.StatusCode >= 300 {
		return &passed{resp}
	}
	discard(resp)
	ex.p.progress.done(st.ID)
	ex.p.authority.uploaded(ex, digest)
	ex.p.sent.put(ex.repo, digest)
	ex.p.observe.Streamed(st.Pending + c.total())
	if st.Parts > 0 {
		ex.dropParts(st)
	}
	return ex.answerBlob(digest)
}

// arrived tells whether upstream has a blob although it does not know its upload any more.
func (ex *exchange) arrived(digest string) bool {
	resp, err := ex.do(upstream.Request{Method: http.MethodHead, Path: blobPath(digest)})
	if err != nil {
		return false
	}
	discard(resp)
	return resp.StatusCode == http.StatusOK
}

func wrongDigest(repo, want, got string) *Failure {
	return refuse(http.StatusBadRequest, codeDigestInvalid, "blob for repository %s has digest %s, not %s: nothing was kept", repo, got, want)
}
