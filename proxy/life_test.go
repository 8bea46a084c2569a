package proxy_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A life is one registry and one storage through changes of the rules, pushes by all clients to all replicas, copies of tags,
// signatures, deletes, restarts and days that go by, drawn at random from a seed.
type life struct {
	*rand.Rand
	t      *testing.T
	newUp  upstreamFunc
	o      proxytest.UpstreamOptions
	wrap   func(http.Handler) http.Handler // of the registry that pushes go to
	up     *proxytest.Upstream
	ecr    bool   // it is a double of Amazon ECR
	rs     []*rig // replicas with the present rule
	rule   func(*config.Config)
	action filters.Action // of the present rule
	plain  bool           // it stores, and images stay what they are
	now    atomic.Int64   // in nanoseconds; no two looks at the clock see the same
	trees  []*proxytest.Tree
	events []string

	tags   map[place]bool            // of what was pushed
	kept   map[place]*proxytest.Tree // by the original's digest: pushed under `store`, and nobody has deleted it
	signed map[place]*signature      // by its digest: of an attestation that was kept then, and nobody has deleted that
	others map[place]bool            // by the original's digest: pushed under a rule that is not plain
}

// A place is a repository, and a tag or a digest in it.
type place struct{ repo, ref string }

func one[T any](l *life, of ...T) T { return of[l.IntN(len(of))] }

// inOrder makes of a map what a seed draws the same from each time.
func inOrder[T any](m map[place]T) []place {
	return slices.SortedFunc(maps.Keys(m), func(a, b place) int { return cmp.Or(cmp.Compare(a.repo, b.repo), cmp.Compare(a.ref, b.ref)) })
}

func (l *life) clock() time.Time { return time.Unix(0, l.now.Add(1)) }

func (l *life) happens(format string, args ...any) {
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

// seeds are those of the lives: a few always, and as many others as LIVES says, or the one that LIFE says.
func seeds(always ...uint64) []uint64 {
	seeds := always
	if seed, err := strconv.ParseUint(os.Getenv("LIFE"), 10, 64); err == nil {
		return []uint64{seed}
	}
	more, _ := strconv.Atoi(os.Getenv("LIVES"))
	for range more {
		seeds = append(seeds, rand.Uint64N(1_000_000))
	}
	return seeds
}

// I1, I2, I6, I7, I10: whatever came before, a push leaves under its tag what the present rule makes of it in an empty
// registry, its original can be read back whole, every tag can be pulled, here and from the registry, and what `store` keeps
// is there whenever the rule is `store`, wherever it was put meanwhile.
func TestWhateverCameBeforeAPushEndsAsThePresentRuleSays(t *testing.T) {
	for _, seed := range seeds(15, 22, 23, 47) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := newLife(t, seed, 0, nil)
			storage := storage(inmemory.New())
			for step := range 14 {
				if step == 0 || l.IntN(5) == 0 {
					l.changeRule()
					l.rs = nil
					for range 2 {
						l.rs = append(l.rs, newRig(t, l.up, storage, with(l.rule), clock(l.clock)))
					}
				}
				l.step(one(l, "app", "lib"), one(l, "1", "2"))
				l.check()
				if t.Failed() {
					t.Fatalf("seed %d: %q", seed, l.events)
				}
			}
		})
	}
}

func newLife(t *testing.T, seed uint64, statements int, wrap func(http.Handler) http.Handler) *life {
	t.Helper()
	l := &life{
		Rand: rand.New(rand.NewPCG(seed, 9)), t: t, wrap: wrap,
		tags: map[place]bool{}, kept: map[place]*proxytest.Tree{}, signed: map[place]*signature{}, others: map[place]bool{},
	}
	l.now.Store(time.Now().UnixNano())
	l.registry()
	for build := range 3 { // images are the same where platforms are
		l.trees = append(l.trees, proxytest.Synthetic(proxytest.SyntheticOptions{
			Platforms: one(l, []string{"linux/amd64"}, []string{"linux/amd64", "linux/arm64"}),
			Form:      one(l, forms...), Build: build, SBOM: one(l, true, false), Compact: l.IntN(4) == 0, StatementSize: statements,
		}))
	}
	return l
}

// registry is what stands behind all of it.
func (l *life) registry() {
	l.o = proxytest.UpstreamOptions{NoReferrers: one(l, true, false), Delete: true}
	l.newUp = proxytest.Upstreams()[one(l, "distribution", "olareg")]
	if l.ecr = l.IntN(3) == 0; l.ecr {
		l.happens("Amazon ECR")
		l.o.NoReferrers = false
		l.up = readableECR(l.t, l.wrap)
		return
	}
	o := l.o
	o.Wrap = l.wrap
	l.up = l.newUp(l.t, o)
}

func (l *life) changeRule() {
	to := one(l, config.StoreToStorage, config.StoreToStorage, config.StoreToReferrers, config.StoreToRepository)
	where := one(l, "{repository}-attestations", "attestations")
	l.action = one(l, filters.Forward, filters.Strip, filters.Store, filters.Store)
	unwrap := one(l, filters.UnwrapAuto, filters.UnwrapAuto, filters.UnwrapNever)
	types, view := filters.MediaTypesKeep, config.ViewUpstream
	if l.action != filters.Forward {
		types = one(l, filters.MediaTypesKeep, filters.MediaTypesKeep, filters.MediaTypesDocker)
	}
	if l.action == filters.Store {
		view = one(l, config.ViewUpstream, config.ViewOriginal)
	}
	action := l.action
	l.plain = action == filters.Store && types == filters.MediaTypesKeep
	l.rule = func(c *config.Config) {
		if l.ecr {
			ecrCredentials(c)
		}
		c.Attestations, c.Unwrap, c.MediaTypes, c.View, c.Store.To = action, unwrap, types, view, to
		if to == config.StoreToRepository {
			c.Store.Repository = where
		}
	}
	l.happens("rule: %s, unwrap %s, %s, view %s, to %s %s", action, unwrap, types, view, to, where)
}

func (l *life) step(repo, tag string) {
	l.t.Helper()
	tree := one(l, l.trees...)
	switch l.IntN(15) {
	case 0:
		d := time.Duration(l.IntN(130)) * time.Hour
		l.now.Add(int64(d))
		l.happens("%s later: sweep", d)
		one(l, l.rs...).proxy.Sweep(context.Background())
	case 1:
		l.delete("attestation", repo, one(l, tree.Attestations()...).Digest)
	case 2:
		l.delete("original", repo, tree.Digest())
	case 3:
		l.copy(repo, tag)
	case 4, 5:
		l.sign()
	case 6:
		l.happens("restart")
		one(l, l.rs...).restart()
	case 9:
		l.deleteImage(repo, tag)
	case 7, 8:
		other := one(l, l.trees...)
		l.push(l.pushOf(repo, tag, tree), l.pushOf(one(l, "app", "lib"), one(l, "1", "2"), other))
	default:
		l.push(l.pushOf(repo, tag, tree))
	}
}

// copy tags what is under another tag, or in the other repository.
func (l *life) copy(repo, tag string) {
	l.t.Helper()
	from := place{one(l, "app", "lib"), one(l, "1", "2")}
	if !l.tags[from] {
		return
	}
	l.happens("imagetools create -t %s:%s %s", repo, tag, from)
	_, err := proxytest.ImagetoolsCreate(context.Background(), proxytest.Options{
		BaseURL: one(l, l.rs...).url(), Repository: repo, Tags: []string{tag}, Sources: []proxytest.Source{{Repository: from.repo, Reference: from.ref}},
	})
	if err != nil {
		l.t.Errorf("imagetools create: %v", err)
	}
	l.tags[place{repo, tag}] = true
}

// sign signs an attestation that is kept, as cosign does.
func (l *life) sign() {
	l.t.Helper()
	if l.action != filters.Store || len(l.kept) == 0 {
		return
	}
	of := one(l, inOrder(l.kept)...)
	s := bundleOf(one(l, l.kept[of].Attestations()...))
	l.happens("sign %s of %s", s.subject, of.repo)
	s.push(one(l, l.rs...).request, of.repo).want(l.t, http.StatusCreated)
	l.signed[place{of.repo, s.digest}] = s
}

// delete is about what only Sluice has.
func (l *life) delete(what, repo, digest string) {
	l.t.Helper()
	r, path := one(l, l.rs...), "/v2/"+repo+"/manifests/"+digest
	if r.direct(http.MethodHead, path, nil, acceptAll...).StatusCode == http.StatusOK || r.request(http.MethodGet, path, nil, acceptAll...).StatusCode != http.StatusOK {
		return
	}
	l.happens("delete %s %s of %s", what, digest, repo)
	r.request(http.MethodDelete, path, nil).want(l.t, http.StatusAccepted)
	maps.DeleteFunc(l.kept, func(p place, tree *proxytest.Tree) bool {
		return p.repo == repo && (p.ref == digest || slices.ContainsFunc(tree.Attestations(), func(m *proxytest.Manifest) bool { return m.Digest == digest }))
	})
	maps.DeleteFunc(l.signed, func(p place, s *signature) bool { return p.repo == repo && s.subject == digest })
}

// deleteImage deletes what is under a tag, as the registry has it, and what it is only part of stays whole.
func (l *life) deleteImage(repo, tag string) {
	l.t.Helper()
	under := func(ref string) (digest, mediaType string) {
		h := l.rs[0].direct(http.MethodHead, "/v2/"+repo+"/manifests/"+ref, nil, acceptAll...).Header
		return h.Get("Docker-Content-Digest"), h.Get("Content-Type")
	}
	forwarded, mediaType := under(tag)
	if forwarded == "" || mediaType != ociIndex && mediaType != proxytest.MediaTypeDockerList {
		return
	}
	l.happens("delete image %s of %s", forwarded, repo)
	one(l, l.rs...).request(http.MethodDelete, "/v2/"+repo+"/manifests/"+forwarded, nil).want(l.t, http.StatusAccepted)
	for _, p := range inOrder(l.tags) {
		if d, _ := under(p.ref); p.repo == repo && d == "" {
			delete(l.tags, p)
		}
	}
	for _, p := range inOrder(l.kept) {
		if p.repo == repo && !there(one(l, l.rs...), p) { // it is read as long as the registry has its counterpart
			delete(l.kept, p)
		}
	}
}

func there(r *rig, p place) bool {
	return r.request(http.MethodHead, "/v2/"+p.repo+"/manifests/"+p.ref, nil, acceptAll...).StatusCode == http.StatusOK
}

// A lifePush is one push that is about to be made.
type lifePush struct {
	place
	tree   *proxytest.Tree
	r      *rig
	client proxytest.Client
	o      proxytest.Options
	before string // what upstream has under the tag
	// It goes by its digest alone, by which it may be known from under another rule. Then clients do not send it, and what
	// that rule has made of it is all that is kept, for as long as that rule says.
	known bool
	err   error
}

func (l *life) pushOf(repo, tag string, tree *proxytest.Tree) *lifePush {
	p := &lifePush{place: place{repo, tag}, tree: tree, r: one(l, l.rs...), client: one(l, proxytest.Clients()...)}
	if !p.client.Indexes || (p.client.Name == "crane" || p.client.Name == "oras") && l.o.NoReferrers { // which fail by themselves at olareg's 405
		p.client = proxytest.Clients()[0]
	}
	p.o = proxytest.Options{BaseURL: p.r.url(), Repository: repo, Tags: []string{tag}, Tree: tree, ByDigest: l.IntN(4) == 0}
	original := place{repo, tree.Digest()}
	if p.o.ByDigest {
		p.o.Tags = nil
		p.known = l.others[original] || there(p.r, original)
	}
	l.others[original] = l.others[original] || !l.plain
	if l.IntN(3) == 0 {
		p.o.MountFrom = map[string]string{"app": "lib", "lib": "app"}[repo]
	}
	p.before = p.r.direct(http.MethodHead, "/v2/"+repo+"/manifests/"+tag, nil, acceptAll...).Header.Get("Docker-Content-Digest")
	l.happens("%s pushes %s to %s:%s, by digest: %t, mount from %q", p.client.Name, tree.Digest(), repo, tag, p.o.ByDigest, p.o.MountFrom)
	return p
}

// push makes pushes at the same time.
func (l *life) push(pushes ...*lifePush) {
	l.t.Helper()
	var wg sync.WaitGroup
	for _, p := range pushes {
		wg.Go(func() { _, p.err = p.client.Push(context.Background(), p.o) })
	}
	wg.Wait()
	for _, p := range pushes {
		p.r.proxy.Settle()
	}
	for _, p := range pushes {
		contested := slices.ContainsFunc(pushes, func(o *lifePush) bool { return o != p && o.place == p.place })
		l.pushed(p, contested)
	}
}

// pushed checks a push that has ended. What ends under a tag that another was pushed to at the same time is open.
func (l *life) pushed(p *lifePush, contested bool) {
	l.t.Helper()
	if p.err != nil {
		l.t.Errorf("%s: %v", p.client.Name, p.err)
		return
	}
	if !p.o.ByDigest {
		l.tags[p.place] = true
	}
	if !p.o.ByDigest && !contested {
		// A tag that holds the original, from under another rule, is skipped by clients.
		if got, want := p.r.upstreamDigest(p.repo, p.ref), l.madeOf(p); got != want && (got != p.before || got != p.tree.Digest()) {
			l.t.Errorf("upstream has %s under the tag, want %s", got, want)
		}
	}
	l.whole("the original that was pushed", p.r, p.repo, p.tree)
	if l.action == filters.Store && !p.known {
		l.kept[place{p.repo, p.tree.Digest()}] = p.tree
	}
}

// madeOf is what the present rule makes of a push in an empty registry.
func (l *life) madeOf(p *lifePush) (digest string) {
	l.t.Helper()
	alone := newRig(l.t, l.newUp(l.t, l.o), with(l.rule), with(func(c *config.Config) { c.Upstreams[0].Credentials = config.Default().Upstreams[0].Credentials }))
	alone.push(proxytest.BuildKit, p.repo, p.ref, p.tree)
	return alone.upstreamDigest(p.repo, p.ref)
}

// whole reads an original back.
func (l *life) whole(what string, r *rig, repo string, tree *proxytest.Tree) {
	l.t.Helper()
	back, err := proxytest.PullAll(context.Background(), r.url(), repo, tree.Digest())
	if err == nil {
		err = back.Equal(tree)
	}
	if err != nil {
		l.t.Errorf("%s, %s of %s: %v", what, tree.Digest(), repo, err)
	}
}

func (l *life) check() {
	l.t.Helper()
	for _, tag := range inOrder(l.tags) {
		for _, from := range []string{one(l, l.rs...).url(), l.up.URL} {
			if l.ecr && from == l.up.URL { // no digest comes with its answers
				continue
			}
			if _, err := proxytest.PullAll(context.Background(), from, tag.repo, tag.ref); err != nil {
				l.t.Error(err)
			}
		}
	}
	if !l.ecr { // of which no list can be had
		proxytest.AssertComplete(l.t, l.up)
	}
	if l.action != filters.Store {
		return
	}
	for _, p := range inOrder(l.kept) {
		l.whole("what was kept", one(l, l.rs...), p.repo, l.kept[p])
	}
	for _, p := range inOrder(l.signed) {
		l.signed[p].check(l.t, one(l, l.rs...).request, p.repo)
	}
}
