package proxy

import (
	"context"
	"net/http"
	"time"

	"sluice/proxy/internal/contain"
	"sluice/proxy/session"
	"sluice/proxy/upstream"
)

// A spareSession is an upload that upstream has opened to prove that these credentials may push, and that has no blob yet.
type spareSession struct {
	location string
	opened   time.Time
}

// offer puts an upload session where the next layer finds it. It is in this process only, and
// handed out once: two uploads into one session would spoil both.
func (a *authority) offer(k proofKey, location string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spare[k] = append(a.spare[k], spareSession{location, a.now()})
}

const chunkMinLength = "Oci-Chunk-Min-Length"

// learnChunk remembers how small upstream lets chunks be, which it says when it opens a session and
// the client must hear although its own session is opened later ("Pushing a blob in chunks").
func (a *authority) learnChunk(repo string, resp *http.Response) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.chunk) >= maxProofs {
		clear(a.chunk)
	}
	a.chunk[repo] = resp.Header.Get(chunkMinLength)
}

// knowsChunk is false until upstream has opened a session for this process.
func (a *authority) knowsChunk(repo string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, known := a.chunk[repo]
	return known
}

func (a *authority) minChunk(repo string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.chunk[repo]
}

// take hands out a session that upstream opened less than a minute ago, or "".
func (a *authority) take(k proofKey) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for len(a.spare[k]) > 0 {
		s := a.spare[k][0]
		if len(a.spare[k]) == 1 {
			delete(a.spare, k)
		} else {
			a.spare[k] = a.spare[k][1:]
		}
		if a.now().Sub(s.opened) < proofTTL {
			return s.location
		}
	}
	return ""
}

// openFor gives an upload its upstream session, unless an earlier chunk or a refused mount has opened one for it.
func (ex *exchange) openFor(st *session.State) (err error) {
	if st.Location == "" {
		st.Location, _, err = ex.openSession()
	}
	return err
}

// abandon cancels the session that a refused mount opened for a blob that is held instead. Nobody
// waits for the answer: an upstream that keeps the session purges it some day.
func (ex *exchange) abandon(st *session.State) {
	if st.Location == "" || ex.onECR() { // no word of ECR about cancelling: sessions that are left alone cost nothing there
		st.Location = ""
		return
	}
	location, log := st.Location, ex.log
	st.Location = ""
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ex.ctx()), 10*time.Second)
	ex.p.background.Go(func() {
		defer cancel()
		resp, err := contain.Call(func() (*http.Response, error) {
			return ex.up.Do(ctx, upstream.Request{Method: http.MethodDelete, Repository: ex.upRepo, Location: location, Push: true, Authorization: ex.auth})
		})
		if err != nil {
			log.Debug("upstream session was not cancelled", "reason", err)
			return
		}
		discard(resp)
	})
}

// openSession is an upload session for bytes that go upstream. spare is true for one that was opened before anybody needed it.
func (ex *exchange) openSession() (location string, spare bool, err error) {
	if location := ex.p.authority.take(ex.proofKey(true)); location != "" {
		return location, true, nil
	}
	location, err = ex.openAnother()
	return location, false, err
}

// openAnother opens an upload session, whether there is a spare one or not.
func (ex *exchange) openAnother() (string, error) {
	resp, err := ex.do(upstream.Request{Method: http.MethodPost, Path: "blobs/uploads/", Push: true})
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusAccepted {
		return "", &passed{resp}
	}
	defer discard(resp)
	location, err := ex.up.Location(resp)
	if err != nil {
		return "", refuse(http.StatusBadGateway, codeUnavailable, "upstream's upload session for repository %s cannot be used: %v", ex.repo, err)
	}
	return location, nil
}
