package proxy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A life is one registry and one storage through changes of the rules, pushes by all clients, copies of tags, deletes and
// days that go by, drawn at random from a seed.
type life struct {
	*rand.Rand
	t      *testing.T
	newUp  upstreamFunc
	o      proxytest.UpstreamOptions
	up     *proxytest.Upstream
	r      *rig // with the present rule
	rule   func(*config.Config)
	now    time.Time
	trees  []*proxytest.Tree
	tags   map[[2]string]bool // repository and tag of what was pushed
	events []string
}

func one[T any](l *life, of ...T) T { return of[l.IntN(len(of))] }

func (l *life) happens(format string, args ...any) {
	l.events = append(l.events, fmt.Sprintf(format, args...))
}

// I1, I2, I6, I7: whatever came before, a push leaves under its tag what the present rule makes of it in an empty registry,
// its original can be read back whole, and every tag can be pulled, here and from the registry.
func TestWhateverCameBeforeAPushEndsAsThePresentRuleSays(t *testing.T) {
	for _, seed := range []uint64{15, 22, 23, 47} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			l := &life{Rand: rand.New(rand.NewPCG(seed, 9)), t: t, now: time.Now(), tags: map[[2]string]bool{}}
			l.newUp = proxytest.Upstreams()[one(l, "distribution", "olareg")]
			l.o = proxytest.UpstreamOptions{NoReferrers: one(l, true, false), Delete: true}
			l.up = l.newUp(t, l.o)
			for build := range 3 { // images are the same where platforms are
				l.trees = append(l.trees, proxytest.Synthetic(proxytest.SyntheticOptions{
					Platforms: one(l, []string{"linux/amd64"}, []string{"linux/amd64", "linux/arm64"}),
					Form:      one(l, forms...), Build: build, SBOM: one(l, true, false), Compact: l.IntN(4) == 0,
				}))
			}
			storage, to := storage(inmemory.New()), one(l, config.StoreToStorage, config.StoreToStorage, config.StoreToReferrers, config.StoreToRepository)
			for step := range 14 {
				if step == 0 || l.IntN(12) == 0 {
					l.changeRule(to)
					l.r = newRig(t, l.up, storage, with(l.rule), clock(func() time.Time { return l.now }))
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

func (l *life) changeRule(to config.StoreTo) {
	action := one(l, filters.Forward, filters.Strip, filters.Store, filters.Store)
	unwrap := one(l, filters.UnwrapAuto, filters.UnwrapAuto, filters.UnwrapNever)
	types, view := filters.MediaTypesKeep, config.ViewUpstream
	if action != filters.Forward {
		types = one(l, filters.MediaTypesKeep, filters.MediaTypesKeep, filters.MediaTypesDocker)
	}
	if action == filters.Store {
		view = one(l, config.ViewUpstream, config.ViewOriginal)
	}
	l.rule = func(c *config.Config) {
		c.Attestations, c.Unwrap, c.MediaTypes, c.View, c.Store.To = action, unwrap, types, view, to
	}
	l.happens("rule: %s, unwrap %s, %s, view %s, to %s", action, unwrap, types, view, to)
}

func (l *life) step(repo, tag string) {
	l.t.Helper()
	tree := one(l, l.trees...)
	switch l.IntN(11) {
	case 0:
		d := time.Duration(l.IntN(130)) * time.Hour
		l.now = l.now.Add(d)
		l.r.proxy.Sweep(context.Background())
		l.happens("%s later: sweep", d)
	case 1:
		l.delete("attestation", repo, one(l, tree.Attestations()...).Digest)
	case 2:
		l.delete("original", repo, tree.Digest())
	case 3:
		from := [2]string{one(l, "app", "lib"), one(l, "1", "2")}
		if !l.tags[from] {
			return
		}
		_, err := proxytest.ImagetoolsCreate(context.Background(), proxytest.Options{BaseURL: l.r.url(), Repository: repo, Tags: []string{tag}, Sources: []proxytest.Source{{Repository: from[0], Reference: from[1]}}})
		l.happens("imagetools create -t %s:%s %s", repo, tag, from)
		if err != nil {
			l.t.Errorf("imagetools create: %v", err)
		}
		l.tags[[2]string{repo, tag}] = true
	default:
		l.push(repo, tag, tree)
	}
}

// delete is about what only Sluice has.
func (l *life) delete(what, repo, digest string) {
	l.t.Helper()
	path := "/v2/" + repo + "/manifests/" + digest
	if l.r.direct(http.MethodHead, path, nil, acceptAll...).StatusCode != http.StatusOK && l.r.request(http.MethodGet, path, nil, acceptAll...).StatusCode == http.StatusOK {
		l.r.request(http.MethodDelete, path, nil).want(l.t, http.StatusAccepted)
		l.happens("delete %s %s of %s", what, digest, repo)
	}
}

func (l *life) push(repo, tag string, tree *proxytest.Tree) {
	l.t.Helper()
	client := one(l, proxytest.Clients()...)
	if !client.Indexes || client.Name == "crane" && l.o.NoReferrers { // which fails by itself at olareg's 405
		client = proxytest.Clients()[0]
	}
	o := proxytest.Options{BaseURL: l.r.url(), Repository: repo, Tags: []string{tag}, Tree: tree, ByDigest: l.IntN(4) == 0}
	if l.IntN(3) == 0 {
		o.MountFrom = map[string]string{"app": "lib", "lib": "app"}[repo]
	}
	before := l.r.direct(http.MethodHead, "/v2/"+repo+"/manifests/"+tag, nil, acceptAll...).Header.Get("Docker-Content-Digest")
	_, err := client.Push(context.Background(), o)
	l.r.proxy.Settle()
	l.happens("%s pushes %s to %s:%s, by digest: %t, mount from %q", client.Name, tree.Digest(), repo, tag, o.ByDigest, o.MountFrom)
	if err != nil {
		l.t.Errorf("%s: %v", client.Name, err)
		return
	}
	if !o.ByDigest {
		l.tags[[2]string{repo, tag}] = true
		alone := newRig(l.t, l.newUp(l.t, l.o), with(l.rule))
		alone.push(proxytest.BuildKit, repo, tag, tree)
		// A tag that holds the original, from under another rule, is skipped by clients.
		if got, want := l.r.upstreamDigest(repo, tag), alone.upstreamDigest(repo, tag); got != want && (got != before || got != tree.Digest()) {
			l.t.Errorf("upstream has %s under the tag, want %s", got, want)
		}
	}
	back, err := proxytest.PullAll(context.Background(), l.r.url(), repo, tree.Digest())
	if err == nil {
		err = back.Equal(tree)
	}
	if err != nil {
		l.t.Errorf("the original that was pushed: %v", err)
	}
}

func (l *life) check() {
	l.t.Helper()
	for tag := range l.tags {
		for _, from := range []string{l.r.url(), l.up.URL} {
			if _, err := proxytest.PullAll(context.Background(), from, tag[0], tag[1]); err != nil {
				l.t.Error(err)
			}
		}
		proxytest.AssertComplete(l.t, l.up)
	}
}
