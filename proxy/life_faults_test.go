package proxy_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A stormyLife is a life in which storms come over some of the steps. Whoever meets one tries again when it is over.
type stormyLife struct {
	*life
	storm  *storm
	to     config.StoreTo
	choice config.OnStorageError
	shut   bool // nothing of an attestation goes upstream in this life: no rule and no choice lets it

	leaked bool           // on_storage_error may have sent something of an attestation upstream
	listed map[place]bool // of what is kept, by the original's digest: it was kept as it was pushed, and is listed so
}

// I1, I2, I6, I7, I10: whatever fails in the middle of whatever, nothing dangles, what was there before still is, what was
// answered with a 201 is there, and the same again, with nothing that fails, ends as if nothing had failed before.
func TestWhateverFailsTheSameAgainEndsAsThePresentRuleSays(t *testing.T) {
	for _, seed := range seeds(1, 7, 11) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newStorm(inmemory.New())
			l := &stormyLife{life: newLife(t, seed, []int{0, 0, 300 << 10}[seed%3], s.wrap), storm: s, listed: map[place]bool{}}
			l.shut = one(l.life, true, false)
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("the life was:\n%s", strings.Join(l.events, "\n"))
				}
			})
			for step := range 12 {
				if step == 0 || l.IntN(5) == 0 {
					l.changeRule(false)
				}
				l.step(one(l.life, "app", "lib"), one(l.life, "1", "2"))
				l.goesOn()
			}
			l.changeRule(true)
			l.now.Add(int64(10 * 24 * time.Hour)) // what waits in quarantine for a retry is gone
			l.rs[0].proxy.Sweep(context.Background())
			l.goesOn()
		})
	}
}

// changeRule draws rules until one fits to the life, and to its end if this is it.
func (l *stormyLife) changeRule(end bool) {
	for fits := false; !fits; {
		l.life.changeRule()
		c := config.Default()
		l.rule(c)
		l.to = c.Store.To
		fits = (!l.shut || l.action != filters.Forward && l.to == config.StoreToStorage) && (!end || l.action == filters.Store)
	}
	l.choice = one(l.life, config.StorageErrorReject, config.StorageErrorReject, config.StorageErrorForward, config.StorageErrorStrip)
	if l.shut && l.choice == config.StorageErrorForward {
		l.choice = config.StorageErrorStrip
	}
	l.happens("on_storage_error: %s", l.choice)
	rule, choice := l.rule, l.choice
	l.rule = func(c *config.Config) {
		rule(c)
		c.OnStorageError = choice
	}
	l.rs = nil
	for range 2 {
		l.rs = append(l.rs, newRig(l.t, l.up, storage(l.storm.driver), with(l.rule), clock(l.clock), before(l.storm.watch)))
	}
}

// goesOn checks all that holds at any time.
func (l *stormyLife) goesOn() {
	l.t.Helper()
	l.check()
	if l.shut && !l.ecr {
		proxytest.AssertClean(l.t, l.up)
	}
	maps.DeleteFunc(l.listed, func(p place, _ bool) bool { return l.kept[p] == nil })
	for _, p := range inOrder(l.listed) {
		if l.action == filters.Store {
			l.lists(p)
		}
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
}

// lists checks that each attestation of an original is among the referrers of its image.
func (l *stormyLife) lists(p place) {
	l.t.Helper()
	tree := l.kept[p]
	for i, image := range tree.Images() {
		m := tree.Attestations()[i]
		doc, err := ocidoc.Parse(m.Bytes(), m.MediaType)
		if err != nil {
			l.t.Fatal(err)
		}
		digest := ocidoc.DigestOf(filters.Derived(doc, ocidoc.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}))
		if list := one(l.life, l.rs...).referrers(p.repo, image.Digest); !strings.Contains(fmt.Sprint(list.Manifests), digest) {
			l.t.Errorf("attestation %s of %s in %s is not listed as %s about %s: %v", m.Digest, p.ref, p.repo, digest, image.Digest, list.Manifests)
		}
	}
}

// ended is a push that has ended well. What on_storage_error sent to Amazon ECR before is there for clients that look, and is
// not given back: under strip, where no index needs it, the first who misses it has the next push send it.
func (l *stormyLife) ended(p *lifePush, contested bool) {
	l.t.Helper()
	if l.ecr && l.leaked && l.action == filters.Strip {
		if _, err := proxytest.PullAll(context.Background(), p.r.url(), p.repo, p.tree.Digest()); err != nil {
			l.happens("%s pushes %s to %s:%s once more", p.client.Name, p.tree.Digest(), p.repo, p.ref)
			p.o.BaseURL, p.o.Client = p.r.url(), nil
			_, p.err = p.client.Push(context.Background(), p.o)
			p.r.proxy.Settle()
		}
	}
	l.pushed(p, contested)
	original := place{p.repo, p.tree.Digest()}
	forwarded := p.r.direct(http.MethodHead, "/v2/"+p.repo+"/manifests/"+original.ref, nil, acceptAll...).StatusCode == http.StatusOK
	if l.plain && !p.known && !forwarded {
		l.listed[original] = true
	}
	c := config.Default()
	l.rule(c)
	if l.action == filters.Store && c.View == config.ViewOriginal && !p.o.ByDigest && !contested {
		a := one(l.life, l.rs...).request(http.MethodHead, "/v2/"+p.repo+"/manifests/"+p.ref, nil, acceptAll...)
		if got := a.Header.Get("Docker-Content-Digest"); got != p.tree.Digest() {
			l.t.Errorf("%s:%s shows %s, and %s was pushed last", p.repo, p.ref, got, p.tree.Digest())
		}
	}
}

func (l *stormyLife) step(repo, tag string) {
	l.t.Helper()
	tree := one(l.life, l.trees...)
	switch l.IntN(14) {
	case 0, 1, 2, 3:
		l.life.step(repo, tag)
	case 4:
		d := time.Duration(l.IntN(130)) * time.Hour
		l.now.Add(int64(d))
		l.happens("%s later: sweep", d)
		l.rages(func(ctx context.Context) { one(l.life, l.rs...).proxy.Sweep(ctx) })
		one(l.life, l.rs...).proxy.Sweep(context.Background())
	case 5:
		l.deleteInStorm(repo, one(l.life, tree.Digest(), one(l.life, tree.Attestations()...).Digest))
	case 6:
		l.signInStorm()
	case 7:
		l.copyInStorm(repo, tag)
	case 8, 9:
		other := one(l.life, l.trees...)
		l.pushInStorm(l.pushOf(repo, tag, tree), l.pushOf(one(l.life, "app", "lib"), one(l.life, "1", "2"), other))
	default:
		l.pushInStorm(l.pushOf(repo, tag, tree))
	}
}

// rages lets a storm rage over what is done until nothing runs any more that was begun in it.
// lenient is what on_storage_error then allows, "" for nothing.
func (l *stormyLife) rages(do func(ctx context.Context)) (lenient config.OnStorageError) {
	l.t.Helper()
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	l.storm.begin(l.Rand, leave)
	do(ctx)
	for _, r := range l.rs {
		r.server.Close()
		r.proxy.HandlersEnd()
		r.proxy.Settle()
	}
	eventually(l.t, "an idle registry", func() bool { return l.storm.running.Load() == 0 })
	killed := l.storm.dead
	fired, storage, upstream := l.storm.end()
	l.happens("  failed: %s", strings.Join(fired, "\n    "))
	for _, r := range l.rs {
		if killed || l.IntN(2) == 0 {
			r.restart()
		} else {
			r.listen()
		}
	}
	l.leaked = l.leaked || l.choice == config.StorageErrorForward && storage
	switch {
	case l.choice == config.StorageErrorReject, !storage && !upstream:
		return ""
	case storage, l.to != config.StoreToStorage, l.choice == config.StorageErrorStrip:
		// With strip what the registry says it does not have may be what was acknowledged and not kept.
		return l.choice
	}
	return ""
}

// pushInStorm makes pushes at the same time in a storm, and those that fail once more after it.
func (l *stormyLife) pushInStorm(pushes ...*lifePush) {
	l.t.Helper()
	heard := newAcknowledged()
	for _, p := range pushes {
		p.o.Client, p.o.Sequential, p.o.Retries = heard.client(l.t), l.IntN(2) == 0, l.IntN(2)
	}
	lenient := l.rages(func(ctx context.Context) {
		var wg sync.WaitGroup
		for _, p := range pushes {
			wg.Go(func() { _, p.err = p.client.Push(ctx, p.o) })
		}
		wg.Wait()
	})
	l.heard(heard, lenient == config.StorageErrorStrip)
	for _, p := range pushes {
		l.happens("  the push of %s to %s:%s ends with %v", p.tree.Digest(), p.repo, p.ref, p.err)
		contested := slices.ContainsFunc(pushes, func(o *lifePush) bool { return o != p && o.place == p.place })
		l.afterStorm(p, pushes, contested, lenient)
	}
	l.goesOn()
	failed := slices.DeleteFunc(slices.Clone(pushes), func(p *lifePush) bool { return p.err == nil })
	for _, p := range failed {
		p.r = one(l.life, l.rs...)
		p.o.BaseURL, p.before = p.r.url(), l.under(p)
	}
	if len(failed) > 0 && l.IntN(3) == 0 {
		l.happens("  and again in a storm")
		l.pushInStorm(failed...)
		return
	}
	for _, p := range failed {
		l.again(p)
	}
}

// under is what upstream has where a push goes.
func (l *stormyLife) under(p *lifePush) string {
	l.t.Helper()
	return p.r.direct(http.MethodHead, "/v2/"+p.repo+"/manifests/"+p.ref, nil, acceptAll...).Header.Get("Docker-Content-Digest")
}

// afterStorm checks what a push has left, whatever it met.
func (l *stormyLife) afterStorm(p *lifePush, pushes []*lifePush, contested bool, lenient config.OnStorageError) {
	l.t.Helper()
	if p.err == nil && lenient == "" {
		l.ended(p, contested)
		return
	}
	if !p.o.ByDigest {
		may := map[string]bool{}
		for _, o := range pushes {
			if o.place != p.place {
				continue
			}
			may[l.madeOf(o)] = true
			may[o.tree.Digest()] = may[o.tree.Digest()] || lenient == config.StorageErrorForward
			if p.err != nil || o.before == o.tree.Digest() {
				may[o.before] = true
			}
		}
		if under := l.under(p); !may[under] {
			l.t.Errorf("the push ended with %v, and upstream has %q under the tag, which may be one of %v", p.err, under, may)
		}
		if p.err == nil {
			l.tags[p.place] = true
		}
	}
	// A statement that went to Amazon ECR alone, and whose index did not need it, is not given back.
	if p.err == nil && lenient == config.StorageErrorForward && (!l.ecr || l.action != filters.Strip) {
		l.whole("what was forwarded", p.r, p.repo, p.tree)
	}
}

// again is the same push when all is well. Where ECR has not given back a blob that the client had only asked for, the first
// answer says that it is to be pushed once more.
func (l *stormyLife) again(p *lifePush) {
	l.t.Helper()
	first := p.err
	p.o = proxytest.Options{BaseURL: p.r.url(), Repository: p.repo, Tags: p.o.Tags, Tree: p.tree, ByDigest: p.o.ByDigest, MountFrom: p.o.MountFrom}
	p.before = l.under(p)
	l.happens("%s pushes %s to %s:%s again", p.client.Name, p.tree.Digest(), p.repo, p.ref)
	_, p.err = p.client.Push(context.Background(), p.o)
	p.r.proxy.Settle()
	if p.err != nil && l.ecr && (l.leaked || strings.Contains(p.err.Error(), "push again")) {
		_, p.err = p.client.Push(context.Background(), p.o)
		p.r.proxy.Settle()
	}
	if p.err != nil {
		l.t.Errorf("the retry fails too: %v (the first time: %v)", p.err, first)
		return
	}
	l.ended(p, false)
}

// deleteInStorm deletes what only Sluice has: after a 202 it is gone, and before that it may be there or not, or in parts.
func (l *stormyLife) deleteInStorm(repo, digest string) {
	l.t.Helper()
	r, path := one(l.life, l.rs...), "/v2/"+repo+"/manifests/"+digest
	if r.direct(http.MethodHead, path, nil, acceptAll...).StatusCode == http.StatusOK || r.request(http.MethodGet, path, nil, acceptAll...).StatusCode != http.StatusOK {
		return
	}
	l.happens("delete %s of %s", digest, repo)
	var a *answer
	l.rages(func(context.Context) { a = r.tries(http.MethodDelete, path, nil) })
	l.happens("  is answered %s", a.Status)
	maps.DeleteFunc(l.kept, func(p place, tree *proxytest.Tree) bool {
		return p.repo == repo && (p.ref == digest || slices.ContainsFunc(tree.Attestations(), func(m *proxytest.Manifest) bool { return m.Digest == digest }))
	})
	maps.DeleteFunc(l.signed, func(p place, s *signature) bool { return p.repo == repo && s.subject == digest })
	if a.StatusCode != http.StatusAccepted {
		l.goesOn()
		if a = one(l.life, l.rs...).request(http.MethodDelete, path, nil); a.StatusCode != http.StatusAccepted && a.StatusCode != http.StatusNotFound {
			l.t.Errorf("a delete again is answered %s: %s", a.Status, a.body)
		}
	}
	one(l.life, l.rs...).request(http.MethodGet, path, nil, acceptAll...).want(l.t, http.StatusNotFound)
}

func (l *stormyLife) signInStorm() {
	l.t.Helper()
	if l.action != filters.Store || len(l.kept) == 0 {
		return
	}
	of := one(l.life, inOrder(l.kept)...)
	s := bundleOf(one(l.life, l.kept[of].Attestations()...))
	if image := one(l.life, l.kept[of].Images()...); l.IntN(2) == 0 && l.rs[0].direct(http.MethodHead, "/v2/"+of.repo+"/manifests/"+image.Digest, nil, acceptAll...).StatusCode == http.StatusOK {
		s = signatureOf(image.Digest, len(image.Bytes()), one(l.life, "application/vnd.cncf.notary.signature", bundleType))
	}
	l.happens("sign %s of %s", s.subject, of.repo)
	var a *answer
	lenient := l.rages(func(context.Context) { a = s.push(one(l.life, l.rs...).tries, of.repo) })
	l.happens("  is answered %s", a.Status)
	if a.StatusCode == http.StatusCreated && lenient == config.StorageErrorStrip {
		return // it may have gone as the attestations of a push would have
	}
	if a.StatusCode != http.StatusCreated {
		l.goesOn()
		s.push(one(l.life, l.rs...).request, of.repo).want(l.t, http.StatusCreated)
	}
	l.signed[place{of.repo, s.digest}] = s
}

func (l *stormyLife) copyInStorm(repo, tag string) {
	l.t.Helper()
	from := place{one(l.life, "app", "lib"), one(l.life, "1", "2")}
	if !l.tags[from] {
		return
	}
	l.happens("imagetools create -t %s:%s %s", repo, tag, from)
	o := proxytest.Options{
		BaseURL: one(l.life, l.rs...).url(), Repository: repo, Tags: []string{tag}, Sources: []proxytest.Source{{Repository: from.repo, Reference: from.ref}},
	}
	var err error
	l.rages(func(ctx context.Context) { _, err = proxytest.ImagetoolsCreate(ctx, o) })
	if l.happens("  ends with %v", err); err != nil {
		l.goesOn()
		o.BaseURL = one(l.life, l.rs...).url()
		if _, err := proxytest.ImagetoolsCreate(context.Background(), o); err != nil {
			l.t.Errorf("imagetools create again: %v", err)
		}
	}
	l.tags[place{repo, tag}] = true
}
