package proxy

import (
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"sluice/proxy/internal/contain"
	"sluice/proxy/upstream"
)

const (
	// proofTTL is how long an upstream's agreement counts for the same credentials, repository and action.
	proofTTL = time.Minute
	// maxProofs bounds the memory of a hint; beyond it the oldest knowledge goes and is asked for again.
	maxProofs = 4096
)

// authority remembers what upstream let whom do, and keeps upload sessions that upstream opened to
// prove it until a layer can use them.
//
// Both are hints of this process: another replica asks upstream again (I10). A proof is only ever
// made by a 2xx of upstream to these very credentials, or by a redirect of a blob, as object stores
// need it. A 404 proves nothing (I9), and neither does any other redirect: a front end may send
// everybody elsewhere before it looks at credentials.
type authority struct {
	now    func() time.Time
	flight singleflight.Group

	mu     sync.Mutex
	proofs map[proofKey]time.Time
	spare  map[proofKey][]spareSession
	seen   map[proofKey]string // a blob these credentials put there: something that a read can be tried on
	asking map[proofKey]bool   // a session is being opened to find out
	chunk  map[string]string   // by repository: upstream's OCI-Chunk-Min-Length, "" for none
}

type proofKey struct {
	credentials [sha256.Size]byte
	repo        string
	push        bool
}

func newAuthority(now func() time.Time) *authority {
	return &authority{now: now, proofs: map[proofKey]time.Time{}, spare: map[proofKey][]spareSession{}, seen: map[proofKey]string{}, asking: map[proofKey]bool{}, chunk: map[string]string{}}
}

func (ex *exchange) proofKey(push bool) proofKey {
	return proofKey{credentials: sha256.Sum256([]byte(ex.auth)), repo: ex.repo, push: push}
}

// learn takes the proof out of an upstream answer, if there is one in it.
func (a *authority) learn(ex *exchange, q upstream.Request, resp *http.Response) {
	status := resp.StatusCode
	redirectedBlob := status >= 300 && status < 400 && strings.HasPrefix(q.Path, "blobs/") && q.Method != http.MethodPost
	if q.Repository != ex.upRepo || (status < 200 || status >= 300) && !redirectedBlob {
		return
	}
	if q.Method == http.MethodPost && status == http.StatusAccepted {
		a.learnChunk(ex.repo, resp)
	}
	switch {
	case (q.Method == http.MethodGet || q.Method == http.MethodHead) && q.Location == "": // an upload's status is no read
		a.prove(ex.proofKey(false))
	case q.Method == http.MethodPost && q.Mount == "":
		a.prove(ex.proofKey(true))
	case q.Method == http.MethodPut && strings.HasPrefix(q.Path, "manifests/"):
		a.prove(ex.proofKey(true))
	}
}

func (a *authority) prove(k proofKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.proofs) >= maxProofs {
		for old, t := range a.proofs {
			if a.now().Sub(t) > proofTTL/2 {
				delete(a.proofs, old)
			}
		}
		if len(a.proofs) >= maxProofs {
			clear(a.proofs)
		}
	}
	a.proofs[k] = a.now()
}

func (a *authority) proven(k proofKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	t, ok := a.proofs[k]
	return ok && a.now().Sub(t) < proofTTL
}

// uploaded remembers a blob that upstream took from these credentials.
func (a *authority) uploaded(ex *exchange, digest string) {
	if ex.auth == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.seen) >= maxProofs {
		clear(a.seen)
	}
	a.seen[ex.proofKey(true)] = digest
}

// mayRead makes sure that a local answer tells this client nothing that upstream would not (I9). It
// is always yes where Sluice itself decides who may do what. A no without an error is an answer of
// upstream that proves nothing: what is held here is then "not here". An error is upstream's refusal.
func (ex *exchange) mayRead() (bool, error) {
	if !ex.up.Passthrough() || ex.p.authority.proven(ex.proofKey(false)) {
		return true, nil
	}
	// Renewing authority: a read that succeeds if and only if the repository may be read.
	resp, err := ex.do(upstream.Request{Method: http.MethodGet, Path: "tags/list", Query: url.Values{"n": {"1"}}})
	if err != nil {
		return false, err
	}
	if resp.StatusCode == http.StatusNotFound {
		// A repository with blobs and no manifest yet has no tags to list (distribution: NAME_UNKNOWN).
		discard(resp)
		last := ex.p.authority.lastUpload(ex)
		if last == "" {
			return ex.mayReadFirstPush()
		}
		if resp, err = ex.do(upstream.Request{Method: http.MethodHead, Path: blobPath(last)}); err != nil {
			return false, err
		}
		if resp.StatusCode == http.StatusNotFound { // it has been deleted since, by whichever replica
			discard(resp)
			return ex.mayReadFirstPush()
		}
	}
	if !ex.p.authority.proven(ex.proofKey(false)) && resp.StatusCode >= 400 && resp.StatusCode != http.StatusNotFound {
		return false, &passed{resp}
	}
	discard(resp)
	return ex.p.authority.proven(ex.proofKey(false)), nil
}

// mayReadFirstPush is for a repository in which upstream has nothing that a read could be tried on: another replica took
// the blobs of its first push. Whoever may push there reads back what the push has left here so far, as oras does with
// each manifest. That is no less than a read: distribution opens an upload only for who may pull and push (handlers/app.go,
// appendAccessRecords).
func (ex *exchange) mayReadFirstPush() (bool, error) {
	k := ex.proofKey(true)
	if ex.p.authority.proven(k) {
		return true, nil
	}
	resp, err := ex.do(upstream.Request{Method: http.MethodPost, Path: "blobs/uploads/"}) // not Push: a read makes no repository
	if err != nil {
		return false, err
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return false, &passed{resp}
	}
	defer discard(resp)
	if location, err := ex.up.Location(resp); resp.StatusCode == http.StatusAccepted && err == nil {
		ex.p.authority.offer(k, location) // the next layer takes it
	}
	return ex.p.authority.proven(k), nil
}

func (a *authority) lastUpload(ex *exchange) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[ex.proofKey(true)]
}

// mayWrite proves that these credentials may push here, by an upload session that upstream opens
// for them. It runs for every way of logging in, since that first POST is also what makes 401, 403
// and NAME_UNKNOWN come out at once and exactly. Those who come meanwhile wait for its answer with
// passthrough, where it is theirs. Otherwise they go on: what they send needs a session of its own, and they
// hear upstream's answer to that. A push to a distant registry begins a round trip earlier.
func (ex *exchange) mayWrite() error {
	return ex.opened(ex.p.authority.proven)
}

// mayUpload is mayWrite for the answer that begins an upload. That another request has proven the same is not enough for it:
// it also tells how small chunks may be.
func (ex *exchange) mayUpload() error {
	a := ex.p.authority
	return ex.opened(func(k proofKey) bool { return a.proven(k) && a.knowsChunk(ex.repo) })
}

// opened asks upstream for an upload session, unless all that it would tell is known.
func (ex *exchange) opened(known func(proofKey) bool) error {
	k := ex.proofKey(true)
	a := ex.p.authority
	if known(k) {
		return nil
	}
	if !ex.up.Passthrough() && !a.ask(k) {
		return nil
	}
	ch := a.flight.DoChan(string(k.credentials[:])+ex.repo, func() (_ any, err error) {
		defer contain.Panic(&err)
		if known(k) {
			return nil, nil
		}
		// Not this client's context: others wait for the same answer.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ex.ctx()), 30*time.Second)
		defer cancel()
		resp, err := ex.doContext(ctx, upstream.Request{Method: http.MethodPost, Path: "blobs/uploads/", Push: true})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusAccepted {
			return keepAnswer(resp), nil
		}
		defer discard(resp)
		location, err := ex.up.Location(resp)
		if err != nil {
			return nil, refuse(http.StatusBadGateway, codeUnavailable, "upstream's upload session for repository %s cannot be used: %v", ex.repo, err)
		}
		a.offer(k, location)
		return nil, nil
	})
	select {
	case <-ex.ctx().Done():
		ex.p.background.Go(func() { <-ch; a.asked(k) }) // others may wait for it; Close does
		return ex.ctx().Err()
	case r := <-ch:
		a.asked(k)
		if r.Err != nil {
			return r.Err
		}
		if kept, ok := r.Val.(*keptAnswer); ok {
			return &passed{kept.response()}
		}
		return nil
	}
}

// ask is true for the first to ask, until asked is called.
func (a *authority) ask(k proofKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asking[k] {
		return false
	}
	a.asking[k] = true
	return true
}

func (a *authority) asked(k proofKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.asking, k)
}

// passthroughMayWrite is mayWrite where the client's own credentials decide.
func (ex *exchange) passthroughMayWrite() error {
	if !ex.up.Passthrough() {
		return nil
	}
	return ex.mayWrite()
}

// expire forgets sessions that nobody took. Upstream purges them by itself; whoever holds the
// credentials to cancel them has long gone.
func (a *authority) expire() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k, list := range a.spare {
		a.spare[k] = slices.DeleteFunc(list, func(s spareSession) bool { return a.now().Sub(s.opened) >= proofTTL })
		if len(a.spare[k]) == 0 {
			delete(a.spare, k)
		}
	}
	for k, t := range a.proofs {
		if a.now().Sub(t) >= proofTTL {
			delete(a.proofs, k)
		}
	}
}

// A keptAnswer is a small upstream answer that several clients get.
type keptAnswer struct {
	status int
	header http.Header
	body   []byte
	req    *http.Request
}

func keepAnswer(resp *http.Response) *keptAnswer {
	defer discard(resp)
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	header := resp.Header.Clone()
	header.Del("Content-Length") // of what was kept, see response
	return &keptAnswer{resp.StatusCode, header, body, resp.Request}
}
