package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
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
	ended   atomic.Bool  // rest is at its end
	begin   [filters.PeekLen]byte
}

func (c *chunk) Read(b []byte) (int, error) {
	n, err := c.rest.Read(b)
	c.read.Add(int64(n))
	if errors.Is(err, io.EOF) {
		c.ended.Store(true)
	}
	return n, err
}

// total is how many bytes have been taken over.
func (c *chunk) total() int64 { return c.carried + c.read.Load() }

// size is how many bytes it brings; -1 while that is not known.
func (c *chunk) size() int64 {
	switch {
	case c.length >= 0:
		return c.length
	case c.ended.Load():
		return c.total()
	}
	return -1
}

// all is the whole body, once.
func (c *chunk) all() io.Reader {
	switch {
	case c.length == 0:
		return http.NoBody
	case c.ended.Load():
		return bytes.NewReader(c.head)
	case len(c.head) == 0:
		return c
	}
	return &behindHead{c: c, head: c.head}
}

// behindHead is an io.MultiReader of the two.
type behindHead struct {
	c    *chunk
	head []byte
}

func (b *behindHead) Read(p []byte) (int, error) {
	if len(b.head) == 0 {
		return b.c.Read(p)
	}
	n := copy(p, b.head)
	b.head = b.head[n:]
	return n, nil
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
	c.ended.Store(ex.r.ContentLength == 0)
	return c
}

// peek reads no further than it must to guess what the blob is. A guess decides only when the blob
// travels, never whether (I8).
func (ex *exchange) peek(c *chunk, last bool) (filters.Guess, error) {
	if !ex.peeks() {
		return filters.Pass, nil
	}
	if c.head = c.head[:len(c.head):len(c.head)]; len(c.head) == 0 { // what there is may be remembered elsewhere
		c.head = c.begin[:0]
	}
	for {
		g := filters.Peek(c.head, last && c.ended.Load())
		if g != filters.Undecided || c.ended.Load() {
			return g, nil
		}
		at := len(c.head)
		if most := max(1, filters.PeekLen-at); cap(c.head) < at+most {
			c.head = append(make([]byte, 0, at+most), c.head...)
		}
		n, err := c.Read(c.head[at:min(cap(c.head), max(at+1, filters.PeekLen))])
		c.head = c.head[:at+n]
		if err != nil && !errors.Is(err, io.EOF) {
			return g, bodyError(ex, err)
		}
	}
}

// bodyError is a body that could not be read to its end: nearly always a client that went away.
func bodyError(ex *exchange, err error) error {
	if ctxErr := ex.ctx().Err(); ctxErr != nil && !tooSlow(err) {
		return ctxErr
	}
	return refuse(http.StatusBadRequest, codeBlobUploadInvalid, "request body for repository %s ended early: %v", ex.repo, err).because(err)
}

// patchUpload takes one chunk.
func (ex *exchange) patchUpload() error {
	defer ex.leaveCrowd()
	st, err := ex.openState()
	if err != nil {
		return err
	}
	ranged, err := ex.contentRange(&st)
	if err != nil {
		var f *Failure
		if errors.As(err, &f) && f.Status == http.StatusRequestedRangeNotSatisfiable {
			if token, err := ex.p.sealer.Seal(st); err == nil {
				f.Header.Set("Location", ex.here("/blobs/uploads/", token))
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
			st.Peeked = bytes.Clone(c.head) // the rest of the chunk goes
			st.Offset = int64(len(c.head))
			ex.p.progress.put(st)
			return ex.answerSession(http.StatusAccepted, &st)
		default:
			st.Mode = session.Upstream
			waits, err := ex.waits(guess, c)
			if err != nil {
				return err
			}
			if waits {
				st.Mode = session.Held
				ex.abandon(&st)
			}
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

// octetStream is shared by all requests; nothing changes a header's values in place.
var octetStream = []string{"application/octet-stream"}

// chunkHeader says of a chunk that is sent on where it begins.
func chunkHeader(st *session.State, length int64, ranged bool) http.Header {
	header := http.Header{"Content-Type": octetStream}
	if from := st.Offset - st.Pending; ranged && length > 0 {
		header.Set("Content-Range", fmt.Sprintf("%d-%d", from, from+length-1))
	}
	return header
}

// putUpload takes the last chunk, or the whole blob, or nothing more, and closes the upload.
func (ex *exchange) putUpload() error {
	defer ex.leaveCrowd()
	st, err := ex.openState()
	if err != nil {
		return err
	}
	return ex.complete(&st, queriedDigest(ex.r.URL))
}

// queriedDigest is the digest that a URL names. Nearly all are written as clients write them, and then nothing has to be
// taken apart.
func queriedDigest(u *url.URL) string {
	if v, only := strings.CutPrefix(u.RawQuery, "digest="); only {
		if hex, ok := strings.CutPrefix(v, "sha256%3A"); ok {
			v = "sha256:" + hex
		}
		if ocidoc.ValidDigest(v) {
			return v
		}
	}
	return u.Query().Get("digest")
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
		waits, err := ex.waits(guess, c)
		if err != nil {
			return err
		}
		if guess == filters.Empty || waits {
			ex.abandon(st)
			if guess == filters.Empty && digest == filters.EmptyDigest {
				return ex.holdEmpty(st)
			}
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
	size := c.size()
	if size >= 0 {
		size += st.Offset
	}
	if err := ex.closed(resp, err, digest, size); err != nil {
		return err
	}
	ex.p.progress.done(st.ID)
	ex.p.authority.uploaded(ex, digest)
	ex.p.sent.put(ex.repo, digest)
	ex.p.observe.Streamed(st.Pending + c.total())
	if st.Parts > 0 {
		ex.dropParts(st)
	}
	return ex.answerBlob(digest)
}

// closed says whether the end of an upload brought the blob, of its answer or of the lack of one: a blob that is in this
// repository is what the client wants to hear of, whoever closed the session. A size below 0 is not known: not all of it
// was sent, so it cannot have come to its end by this request.
func (ex *exchange) closed(resp *http.Response, err error, digest string, size int64) error {
	switch {
	case err != nil && (!upstream.Lost(err) || size < 0 || ex.ctx().Err() != nil || !ex.arrived(digest, size)):
		return err
	case err != nil:
		ex.log.Info("the answer to the end of an upload was lost, and the blob is there", "blob", digest, "reason", err)
		return nil
	case resp.StatusCode == http.StatusNotFound && ex.arrived(digest, size):
		resp.StatusCode = http.StatusCreated // the answer to the first of two tries was lost
	}
	return ex.taken(resp, digest)
}

// taken says of the answer to the end of an upload whether the blob is there, and is done with it: 201 (distribution-spec,
// "Pushing blobs"), or another success that names the digest. A page of some portal is a 200 as well, and a 201 of ours
// would promise what is not there.
func (ex *exchange) taken(resp *http.Response, digest string) error {
	if resp.StatusCode >= 300 {
		return &passed{resp}
	}
	discard(resp)
	if resp.StatusCode == http.StatusCreated || resp.Header.Get("Docker-Content-Digest") == digest {
		return nil
	}
	return refuse(http.StatusBadGateway, codeUnavailable,
		"upstream answered %s to the push of blob %s for repository %s, and not that it has it: is something else than a registry in between?", resp.Status, digest, ex.repo)
}

// arrivedTimeout is what a client waits longer for an error, where upstream does not answer this either.
const arrivedTimeout = 10 * time.Second

// arrived tells whether upstream has a blob although it does not know its upload any more, or did not say. One of another
// size is not the blob, whatever the registry says: what cached an answer about something else, or half of an upload.
func (ex *exchange) arrived(digest string, size int64) bool {
	ctx, cancel := context.WithTimeout(ex.ctx(), arrivedTimeout)
	defer cancel()
	resp, err := ex.doContext(ctx, upstream.Request{Method: http.MethodHead, Path: blobPath(digest)})
	if err != nil {
		return false
	}
	discard(resp)
	return resp.StatusCode == http.StatusOK && (size < 0 || resp.ContentLength < 0 || resp.ContentLength == size)
}

func wrongDigest(repo, want, got string) *Failure {
	return refuse(http.StatusBadRequest, codeDigestInvalid, "blob for repository %s has digest %s, not %s: nothing was kept", repo, got, want)
}
