package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"time"

	"sluice/proxy/config"
	"sluice/proxy/quarantine"
	"sluice/proxy/session"
)

// heldQuota bounds what each identity has in quarantine that nothing has asked for. What an index names costs nothing
// any more, and neither does what is released, since a pusher who finishes fills nothing; what is left costs as long as
// the bytes are there.
//
// It counts in this process, and from its start: replicas share only the storage, which has no counter that many can
// add to, and the quota is there against one client that fills the storage, not for bills. With n replicas the bound is n
// times as high. What other replicas do with a thing that is charged for here is found out late, by settleCharges.
type heldQuota struct {
	limit config.Size // 0: none
	*heldLedger
}

// room begins to hold something for an identity; nil where there is no bound.
func (q *heldQuota) room(identity string) *reservation {
	if q.limit == 0 {
		return nil
	}
	return q.reserve(identity, int64(q.limit))
}

// hasRoom is false for who may not hold n bytes more.
func (q *heldQuota) hasRoom(identity string, n int64) bool {
	return q.limit == 0 || !q.full(identity, n, int64(q.limit))
}

// roomFor refuses at once what cannot be held, before its bytes are read.
func (ex *exchange) roomFor(n int64) error {
	if ex.bundle || ex.p.heldQuota.hasRoom(ex.id.Key, n) {
		return nil
	}
	return ex.noRoom()
}

func (ex *exchange) noRoom() error {
	return refuse(http.StatusForbidden, codeDenied,
		"%s has more than %s waiting in sluice that no index has named, or in uploads that have not ended: finish those pushes, wait %d days, or raise access.max_held_per_identity of sluice",
		ex.id.Name, ex.p.cfg.Access.MaxHeldPerIdentity, int(ex.p.cfg.Retention)+1)
}

// errNoRoom ends the body of who holds too much.
var errNoRoom = errors.New("the identity holds too much")

// metered is a body that is charged for as it comes.
type metered struct {
	r     io.Reader
	room  *reservation
	ended bool // the client sent all of it
}

func (m *metered) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	if !m.room.grow(int64(n)) {
		return 0, errNoRoom
	}
	m.ended = m.ended || errors.Is(err, io.EOF)
	return n, err
}

// keepPart keeps one more part of an upload, and charges for it. A client that hangs up when all of it is there may or may
// not leave it in the storage: it costs. errNoRoom, quarantine.ErrTooLarge and ErrStorage are for the caller, any other error
// is the answer.
func (ex *exchange) keepPart(st *session.State, body io.Reader, most int64) (int64, error) {
	if ex.outlived(st) {
		return 0, refuse(http.StatusNotFound, codeBlobUploadUnknown, "upload to repository %s has expired: start again with POST", ex.repo)
	}
	m := &metered{r: body, room: ex.p.heldQuota.room(ex.id.Key)}
	defer m.room.drop()
	n, err := ex.p.quarantine.WritePart(ex.ctx(), st.Generation, ex.repo, st.ID, st.Parts, m, most)
	switch {
	case err == nil:
		m.room.hold(heldPart(ex.repo, st.ID, st.Parts), st.Generation, n)
	case errors.Is(err, errNoRoom), errors.Is(err, quarantine.ErrTooLarge):
	case ex.ctx().Err() != nil:
		if m.ended {
			m.room.hold(heldPart(ex.repo, st.ID, st.Parts), st.Generation, m.room.size())
		}
		return 0, bodyError(ex, err)
	case errors.Is(err, quarantine.ErrNotFound):
		return 0, ex.hasEnded(err)
	case errors.Is(err, quarantine.ErrTooMany):
		return 0, ex.tooMany(st)
	case !errors.Is(err, quarantine.ErrStorage):
		return 0, bodyError(ex, err)
	}
	return n, err
}

// outlived is true for an upload that began before yesterday. Its parts are in the generation in which it began, and one
// more of them would keep all that is in there from being swept.
func (ex *exchange) outlived(st *session.State) bool {
	return st.Generation < ex.p.now().UTC().Add(-24*time.Hour).Format(time.DateOnly)
}

// claimed ends the charges for what an index has taken out, and for all that it names: it is here, whatever sizes are
// said of it, and ends once.
func (ex *exchange) claimed(rw *rewriting) {
	q := ex.p.heldQuota
	for _, t := range rw.plan.Taken {
		q.release(heldManifestOf(ex.repo, t.Entry.Digest))
		if t.Manifest == nil {
			continue
		}
		for _, b := range blobsOf(t.Manifest) {
			q.release(heldBlobOf(ex.repo, b.Digest))
		}
	}
	for _, inner := range rw.nested {
		ex.claimed(inner)
	}
}

// endCharges ends those of generations that have been swept, by whichever replica.
func (p *Proxy) endCharges(ctx context.Context) {
	there, err := p.quarantine.Generations(ctx)
	if err != nil {
		return // the sweep has said so; what is charged stays
	}
	yesterday := p.now().UTC().Add(-24 * time.Hour).Format(time.DateOnly)
	p.heldQuota.swept(func(g string) bool { return g >= yesterday || slices.Contains(there, g) })
}
