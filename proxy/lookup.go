package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"sluice/proxy/attest"
	"sluice/proxy/internal/contain"
	"sluice/proxy/quarantine"
)

// whereabouts are what each place says of one blob.
type whereabouts struct {
	held, stored                  int64                                                          // size
	open                          func(ctx context.Context, offset int64) (io.ReadCloser, error) // what is held
	placed                        attest.Elsewhere
	heldErr, storedErr, placedErr error
}

// A lookUp asks all places at once: most blobs are in none of them, and object storage takes its time to say so.
type lookUp struct {
	whereabouts
	asked  sync.WaitGroup
	cancel context.CancelFunc
}

func (ex *exchange) lookUp(digest string) *lookUp {
	ctx, cancel := context.WithCancel(ex.ctx())
	l, q, a := &lookUp{cancel: cancel}, ex.p.quarantine, ex.p.attest
	l.asked.Go(func() { defer contain.Panic(&l.heldErr); l.held, l.open, l.heldErr = q.FindBlob(ctx, ex.repo, digest) })
	l.asked.Go(func() { defer contain.Panic(&l.storedErr); l.stored, l.storedErr = a.StatBlob(ctx, ex.repo, digest) })
	l.asked.Go(func() { defer contain.Panic(&l.placedErr); l.placed, l.placedErr = a.Elsewhere(ctx, ex.repo, digest) })
	return l
}

// wait is for who needs the answer.
func (l *lookUp) wait() whereabouts {
	l.asked.Wait()
	l.cancel()
	return l.whereabouts
}

// leave ends a look-up whose answer may not be needed. It may be nil.
func (ex *exchange) leave(l *lookUp) {
	if l != nil {
		l.cancel()
		ex.p.handlers.Go(l.asked.Wait) // the client's answer does not
	}
}

// lookAhead asks the storage about a blob while upstream is asked: a client that looks for what the registry lacks waits
// for the slower of the two and not for both. That is so for every layer of a push, whichever replica held what, and costs a
// few requests in vain where upstream has the blob. nil: it is not worth it, or there is nothing to ask.
func (ex *exchange) lookAhead(digest, method string) *lookUp {
	if method != http.MethodHead || ex.p.immediate || asksForLayer(ex.r) || !ex.holdsBlobs() || ex.p.sent.has(ex.repo, digest) {
		return nil
	}
	return ex.lookUp(digest)
}

// findBlob finds a blob whoever asks. Nothing of it may reach a client without mayRead.
func (ex *exchange) findBlob(digest string) (*held, error) {
	return ex.found(digest, ex.whereabouts(digest))
}

func (ex *exchange) whereabouts(digest string) whereabouts {
	if ex.p.immediate {
		return ex.whereaboutsInTurn(digest)
	}
	return ex.lookUp(digest).wait()
}

// everywhere asks all places, whatever the first says.
func (ex *exchange) everywhere(digest string) whereabouts {
	if !ex.p.immediate {
		return ex.lookUp(digest).wait()
	}
	w := ex.whereaboutsInTurn(digest)
	if w.heldErr == nil {
		w.stored, w.storedErr = ex.p.attest.StatBlob(ex.ctx(), ex.repo, digest)
	}
	return w
}

// whereaboutsInTurn stops at the first place whose word counts.
func (ex *exchange) whereaboutsInTurn(digest string) (w whereabouts) {
	if w.held, w.open, w.heldErr = ex.p.quarantine.FindBlob(ex.ctx(), ex.repo, digest); !errors.Is(w.heldErr, quarantine.ErrNotFound) {
		return w
	}
	if w.stored, w.storedErr = ex.p.attest.StatBlob(ex.ctx(), ex.repo, digest); !errors.Is(w.storedErr, attest.ErrNotFound) {
		return w
	}
	w.placed, w.placedErr = ex.p.attest.Elsewhere(ex.ctx(), ex.repo, digest)
	return w
}

// found is the blob where its whereabouts say that it is, quarantine first. nil: nowhere.
func (ex *exchange) found(digest string, w whereabouts) (*held, error) {
	switch {
	case w.heldErr == nil:
		return &held{ctx: ex.ctx(), size: w.held, open: w.open}, nil
	case !errors.Is(w.heldErr, quarantine.ErrNotFound):
		return nil, w.heldErr
	case w.storedErr == nil:
		return &held{ctx: ex.ctx(), size: w.stored, open: func(ctx context.Context, off int64) (io.ReadCloser, error) {
			rc, _, err := ex.p.attest.OpenBlob(ctx, ex.repo, digest, off)
			return rc, err
		}}, nil
	case !errors.Is(w.storedErr, attest.ErrNotFound):
		return nil, w.storedErr
	case errors.Is(w.placedErr, attest.ErrNotFound):
		return nil, nil
	case w.placedErr != nil:
		return nil, w.placedErr
	}
	return ex.elsewhere(digest, w.placed)
}
