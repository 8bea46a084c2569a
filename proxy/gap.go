package proxy

import (
	"maps"
	"net/http"
	"slices"
	"time"

	"sluice/filters/ocidoc"
	"sluice/proxy/internal/contain"
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
	gapMemory   = 2 * time.Minute // that Proxy.pushed has what upstream took, after which "not found" is the truth

	looksForOthers = 4 // times that a child is looked for which another replica may have pushed: 1.5 s
)

// justPushed remembers that upstream took a manifest under a reference.
func (ex *exchange) justPushed(ref string, body []byte) {
	if ex.onECR() {
		ex.p.pushed.put(inRepo{ex.repo, ref})
		ex.p.pushed.put(inRepo{ex.repo, ocidoc.DigestOf(body)})
	}
}

// askManifest reads a manifest upstream, again and again if it was pushed lately and is not found.
func (ex *exchange) askManifest(q upstream.Request) (*http.Response, error) {
	ref := q.Path[len(manifestPath("")):]
	for wait := gapFirst; ; wait = min(2*wait, gapMost) {
		resp, err := ex.do(q)
		if err != nil || resp.StatusCode != http.StatusNotFound || !ex.onECR() || !ex.p.pushed.has(inRepo{ex.repo, ref}) || !ex.wait(wait) {
			return resp, err
		}
		discard(resp)
	}
}

// wait sleeps as long as that fits into the patience that the request has for gaps; false: no more.
func (ex *exchange) wait(d time.Duration) bool {
	if time.Duration(ex.seen.waited.Add(int64(d))) > gapPatience {
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

// mayAppear is true for an index that upstream refuses for want of a child, where that may pass: none of its children is
// missing, or those that are were pushed lately. Whether another replica has just pushed one is not known here, so one that
// is missing is looked for a few times more. What nobody pushed will not appear, and each try of the index costs ECR's quota
// a manifest, so none is made before.
func (ex *exchange) mayAppear(doc *ocidoc.Document) bool {
	if !ex.onECR() || doc.Kind != ocidoc.KindIndex || len(doc.Manifests) == 0 {
		return false
	}
	others := map[string]bool{}
	for _, e := range doc.Manifests {
		if !ex.p.pushed.has(inRepo{ex.repo, e.Digest}) {
			others[e.Digest] = true
		}
	}
	if len(others) > maxFetched {
		return false
	}
	missing := ex.missing(slices.Collect(maps.Keys(others)))
	for i := 0; len(missing) > 0 && i < looksForOthers; i++ {
		if !ex.wait(gapFirst << i) {
			return false
		}
		missing = ex.missing(missing)
	}
	return len(missing) == 0
}

// missing are those manifests that upstream does not have. One that cannot be looked up is no reason against another try, and
// no others are looked for after it.
func (ex *exchange) missing(digests []string) []string {
	gone := make([]bool, len(digests))
	g, going := contain.WithContext(ex.ctx())
	g.SetLimit(lookups)
	for i, digest := range digests {
		g.Go(func() error {
			if err := going.Err(); err != nil {
				return err
			}
			there, err := ex.exists(manifestPath(digest))
			gone[i] = err == nil && !there
			return err
		})
	}
	if err := g.Wait(); err != nil {
		ex.log.Debug("whether upstream has all that an index lists could not be looked up", "reason", err)
	}
	var out []string
	for i, digest := range digests {
		if gone[i] {
			out = append(out, digest)
		}
	}
	return out
}
