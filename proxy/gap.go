package proxy

import (
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/filters/ocidoc"
	"sluice/proxy/upstream"
)

// What is written to Amazon ECR may be "not found" for a while (docker/github-builder#30 and others saw it
// on public.ecr.aws). Clients that read back (oras after each manifest), an index that is put right after its
// children, and Sluice's own look at them would fail. So what is known to have been pushed is asked for
// again.
const (
	gapPatience = 8 * time.Second // of one request, inside what Docker waits for headers
	gapFirst    = 100 * time.Millisecond
	gapMost     = time.Second
	gapMemory   = 2 * time.Minute // after which "not found" is the truth
	maxPushed   = 4096
)

// pushedLately remembers manifests that upstream took a short while ago. It is a hint of this process.
type pushedLately struct {
	now func() time.Time

	mu   sync.Mutex
	when map[string]time.Time // by repository and reference
}

func (p *pushedLately) put(repo, ref string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.when == nil || len(p.when) >= maxPushed {
		p.when = map[string]time.Time{}
	}
	p.when[repo+"@"+ref] = p.now()
}

func (p *pushedLately) has(repo, ref string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	t, ok := p.when[repo+"@"+ref]
	if ok && p.now().Sub(t) >= gapMemory {
		delete(p.when, repo+"@"+ref)
		return false
	}
	return ok
}

// forget is for a repository in which something was deleted: what is not found there now may well be gone.
func (p *pushedLately) forget(repo string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.when, func(key string, _ time.Time) bool { return strings.HasPrefix(key, repo+"@") })
}

// justPushed remembers that upstream took a manifest under a reference.
func (ex *exchange) justPushed(ref string, body []byte) {
	if ex.onECR() {
		ex.p.pushed.put(ex.repo, ref)
		ex.p.pushed.put(ex.repo, ocidoc.DigestOf(body))
	}
}

// askManifest reads a manifest upstream, again and again if it was pushed lately and is not found.
func (ex *exchange) askManifest(q upstream.Request) (*http.Response, error) {
	ref := q.Path[len(manifestPath("")):]
	for wait := gapFirst; ; wait = min(2*wait, gapMost) {
		resp, err := ex.do(q)
		if err != nil || resp.StatusCode != http.StatusNotFound || !ex.onECR() || !ex.p.pushed.has(ex.repo, ref) || !ex.wait(wait) {
			return resp, err
		}
		discard(resp)
	}
}

// wait sleeps as long as that fits into the patience that the request has for gaps; false: no more.
func (ex *exchange) wait(d time.Duration) bool {
	if time.Duration(atomic.AddInt64(&ex.waited, int64(d))) > gapPatience {
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ex.ctx().Done():
		return false
	}
}

// mayAppear is true for an index that upstream refuses for want of a child, where that may pass: a child was pushed
// lately, and none of the others is missing. What nobody pushed here will not appear, and each try costs ECR's quota a
// manifest, so the others are looked up once.
func (ex *exchange) mayAppear(doc *ocidoc.Document) bool {
	if !ex.onECR() || doc.Kind != ocidoc.KindIndex {
		return false
	}
	others, lately := map[string]bool{}, false
	for _, e := range doc.Manifests {
		if ex.p.pushed.has(ex.repo, e.Digest) {
			lately = true
		} else {
			others[e.Digest] = true
		}
	}
	if !lately || len(others) > maxFetched {
		return false
	}
	var missing atomic.Bool
	var g errgroup.Group
	g.SetLimit(lookups)
	for digest := range others {
		if missing.Load() {
			break
		}
		g.Go(func() error {
			if there, err := ex.exists(manifestPath(digest)); err == nil && !there {
				missing.Store(true)
			}
			return nil // what cannot be looked up is no reason against another try
		})
	}
	_ = g.Wait()
	return !missing.Load()
}
