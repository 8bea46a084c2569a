package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"sluice/proxy/internal/objects"
	"sluice/proxy/quarantine"
	"sluice/proxy/session"
)

// leastPart is the size that Amazon ECR wants of every part but the last: a smaller one is
// accepted, and then the upload cannot be completed (LayerPartTooSmallException "All layer parts except
// the last part should be at least 5MB").
const leastPart = 5 << 20

// onECR is true where upstream has Amazon ECR's ways.
func (ex *exchange) onECR() bool {
	_, ecr := ex.up.ECR()
	return ecr
}

// gather keeps a chunk until there is enough to make a part of. What is to be sent on now is returned: the
// chunk itself, or what is left of it, or nil when it waits.
//
// Whether a small chunk is the last is not known when it comes. What tells is Content-Range, which
// the distribution spec asks for in every chunk: such a chunk waits, in numbered parts of the storage, so
// that any replica can go on. Without it the client streams the whole blob in one PATCH (Docker 20.10,
// skopeo, crane send none): it goes upstream at once, without storage and without being held in
// memory, since one part that turns out to be the last may have any size. Should such a client
// come back with a second chunk, the first is all but lost: tooSmall.
func (ex *exchange) gather(st *session.State, c *chunk, ranged bool) (*chunk, error) {
	sent := st.Offset - st.Pending
	switch {
	case !ex.onECR():
		return c, nil
	case sent > 0 && sent < leastPart:
		return nil, ex.tooSmall(sent)
	case st.Offset == 0 && !ranged, c.length >= leastPart-st.Pending:
		return c, nil
	}
	if ex.up.Passthrough() { // the session may have come from another replica, or long ago
		if err := ex.mayWrite(); err != nil {
			return nil, err
		}
	}
	if err := ex.enterCrowd(c.length); err != nil {
		return nil, err
	}
	least := leastPart - st.Pending
	counted := &countingReader{r: c.all()}
	if st.Parts == 0 { // the upload may have begun long ago
		st.Generation = ex.p.quarantine.Generation()
	}
	n, err := ex.keepPart(st, io.LimitReader(counted, least), least)
	switch {
	case err == nil:
	case errors.Is(err, errNoRoom):
		ex.giveUp(st)
		return nil, ex.noRoom()
	case !errors.Is(err, quarantine.ErrStorage):
		return nil, err
	case st.Offset == 0 && counted.again() != nil:
		// Pushes without attestations go on without storage. If this was the last chunk, nothing is lost.
		ex.p.storageTrouble(ex.log, "gather a chunk that is too small for upstream", err)
		return unread(counted.again(), c.length), nil
	default:
		return nil, ex.storageTransient(err, "chunk for repository %s is smaller than the %d bytes that upstream takes, and could not be kept until there are more: the storage of sluice failed, see its log", ex.repo, leastPart)
	}
	st.Parts++
	st.Pending += n
	st.Offset += n
	if n < least {
		return nil, nil
	}
	return unread(counted.r, -1), nil // of unknown length: it may be at its end
}

// unread is a chunk of which nothing has been counted yet.
func unread(rest io.Reader, length int64) *chunk { return &chunk{rest: rest, length: length} }

// tooMany is for an upload in so many chunks that one more cannot be kept.
func (ex *exchange) tooMany(st *session.State) error {
	ex.dropParts(st)
	return refuse(http.StatusBadRequest, codeBlobUploadInvalid,
		"upload to repository %s is in more chunks than the %d that sluice keeps of one: send larger chunks, or the blob in one request", ex.repo, quarantine.MaxParts)
}

// tooSmall is for a chunk behind one that was sent on and is too small to have anything behind it.
func (ex *exchange) tooSmall(sent int64) error {
	return refuse(http.StatusBadRequest, codeBlobUploadInvalid,
		"upload to repository %s is in parts, and Amazon ECR takes none under %d bytes before the last: the first, of %d bytes, came without Content-Range and was sent on; send Content-Range with every chunk, or the blob in one request",
		ex.repo, leastPart, sent)
}

// withWaiting puts what waits in front of a chunk.
func (ex *exchange) withWaiting(ctx context.Context, st *session.State, c *chunk) (body io.Reader, length int64, done func(), err error) {
	if st.Pending == 0 {
		return c.all(), c.length, func() {}, nil
	}
	waiting, err := ex.p.quarantine.Parts(ctx, st.Generation, ex.repo, st.ID, st.Parts)
	if err != nil {
		return nil, 0, nil, ex.storageTransient(err, "chunks for repository %s that wait for more could not be read: the storage of sluice failed, see its log", ex.repo)
	}
	length = -1
	if c.length >= 0 {
		length = st.Pending + c.length
	}
	h := &held{size: st.Pending, rc: storageReader{waiting, ex}}
	return io.MultiReader(h, c.all()), length, func() { _ = h.Close() }, nil
}

// storageReader tells an error of the storage from one of the client's body.
type storageReader struct {
	io.ReadCloser
	ex *exchange
}

func (s storageReader) Read(b []byte) (int, error) {
	n, err := s.ReadCloser.Read(b)
	switch {
	case objects.Absent(err):
		err = s.ex.hasEnded(err)
	case err != nil && !errors.Is(err, io.EOF):
		err = &storageFailed{cause: err}
	}
	return n, err
}

// anything is false for a body that is empty although its length was not said.
func (c *chunk) anything() (bool, error) {
	if c.length >= 0 || len(c.head) > 0 {
		return c.length != 0, nil
	}
	var b [1]byte
	for !c.ended.Load() {
		n, err := c.Read(b[:])
		if n > 0 {
			c.head = bytes.Clone(b[:n])
			return true, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
	}
	c.length = 0
	return false, nil
}
