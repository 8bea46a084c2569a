package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A woven life is one in which a few things happen at the same time, in an order that is drawn call by call: pushes, deletes,
// sweeps and reads, by replicas that share a storage and a registry.
type woven struct {
	*rand.Rand
	t        *testing.T
	up       *proxytest.Upstream
	registry http.Handler
	noAPI    bool // the registry has no list of referrers
	driver   *proxytest.WovenDriver
	weave    *proxytest.Weave
	replicas []*replica
	action   filters.Action
	to       config.StoreTo
	expires  time.Duration // after which `store` forgets; 0: never
	troubled bool          // something fails in what is woven now
	log      logBuffer
	trees    []*proxytest.Tree
	faults   bool   // things fail
	forward  bool   // one of the replicas forwards all
	theme    string // what this life is mostly about
	events   []string

	kept   map[place]*keptTree
	signed map[place]*signature // by its digest
	tags   map[place]bool
	under  map[place]*mayBe
	gone   map[place]string // attestations that were deleted, in both forms, and what they were about
	owed   []*act           // what failed, and is to be done again
}

// A keptTree is one that was acknowledged, by the original's digest.
type keptTree struct {
	tree  *proxytest.Tree
	at    time.Time // of the last push
	strip bool      // its attestations are not kept, and it is for a while
	plain bool      // it is upstream as it was pushed, and nothing is kept here
}

// A replica is one of several processes, without a network around it.
type replica struct {
	*proxy.Proxy
	*troubles
	direct *proxytest.Direct
	name   string
	config *config.Config
	alive  context.Context // ends when it is killed
}

// RoundTrip is a request of a client.
func (r *replica) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	defer context.AfterFunc(r.alive, cancel)()
	return r.direct.RoundTrip(req.WithContext(ctx))
}

const wovenURL = "http://127.0.0.1:5000"

// I1, I2, I6, I7, I10: whatever happens at the same time, what was acknowledged is there, and stays for as long as the rule says.
func TestWhateverHappensAtTheSameTimeLosesNothing(t *testing.T) {
	for _, seed := range seeds(1, 2, 3, 4, 5, 6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			o := proxytest.UpstreamOptions{NoReferrers: r.IntN(2) == 0, Delete: true}
			kind := []string{"distribution", "olareg", "ecrsim"}[r.IntN(3)]
			var up *proxytest.Upstream
			if kind == "ecrsim" {
				up = wovenECR(t, r, o.NoReferrers)
			} else {
				up = proxytest.Upstreams()[kind](t, o)
			}
			registry := proxytest.Outside(t, up.Handler)
			synctest.Test(t, func(t *testing.T) {
				t.Cleanup(func() { time.Sleep(time.Hour) }) // until goroutines that wait for more to do have ended
				l := newWoven(t, r, up, registry, o.NoReferrers || kind == "distribution")
				defer func() {
					if t.Failed() || os.Getenv("LIFE") != "" {
						t.Logf("seed %d:\n%s", seed, strings.Join(l.events, "\n"))
						if testing.Verbose() {
							t.Logf("the log:\n%s", &l.log)
						}
					}
				}()
				l.live()
			})
		})
	}
}

func newWoven(t *testing.T, r *rand.Rand, up *proxytest.Upstream, registry http.Handler, noAPI bool) *woven {
	l := &woven{
		Rand: r, t: t, up: up, registry: registry, noAPI: noAPI, weave: proxytest.NewWeave(r),
		kept: map[place]*keptTree{}, signed: map[place]*signature{}, tags: map[place]bool{}, under: map[place]*mayBe{}, gone: map[place]string{},
	}
	folder := draw(l, true, false)
	l.driver = proxytest.NewWovenDriver(inmemory.New(), folder)
	platforms := draw(l, []string{"linux/amd64"}, []string{"linux/amd64"}, []string{"linux/amd64", "linux/arm64"})
	size := draw(l, 0, 0, 0, 0, 300<<10)
	for build := range 3 {
		l.trees = append(l.trees, proxytest.Synthetic(proxytest.SyntheticOptions{
			Platforms: platforms, Form: draw(l, forms...), Build: build, SBOM: l.IntN(3) == 0, Compact: l.IntN(4) == 0, StatementSize: size,
		}))
	}
	l.theme = draw(l, "", "", "delete", "expiry", "place", "rules")
	l.faults = l.IntN(2) == 0
	l.action = draw(l, filters.Store, filters.Store, filters.Store, filters.Strip)
	l.to = draw(l, config.StoreToStorage, config.StoreToStorage, config.StoreToReferrers, config.StoreToRepository)
	where := draw(l, "{repository}-attestations", "attestations")
	switch l.theme {
	case "expiry":
		l.action, l.to, l.expires = filters.Store, config.StoreToStorage, 5*24*time.Hour
	case "rules":
		l.action = filters.Store
	case "place":
		l.action, l.to, where = filters.Store, config.StoreToRepository, "attestations"
	}
	view := config.ViewUpstream
	if l.action == filters.Store {
		view = draw(l, config.ViewUpstream, config.ViewOriginal)
	}
	rule := func(c *config.Config) {
		c.Upstreams = []config.Upstream{{URL: up.URL, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
		c.Attestations, c.View, c.Store.To, c.Store.Retention = l.action, view, l.to, config.Days(l.expires/(24*time.Hour))
		if l.to == config.StoreToRepository {
			c.Store.Repository = where
		}
	}
	l.happens("about %q: %s, no referrers API: %t, folder: %t, %s to %s %s, view %s, retention %s, %d platforms, statements of %d bytes", l.theme, up.Kind, noAPI, folder, l.action, l.to, where, view, l.expires, len(platforms), size)
	l.replicas = append(l.replicas, l.replica("A", rule), l.replica("B", func(c *config.Config) {
		if rule(c); l.theme == "rules" { // of a rollout
			c.Attestations, c.Unwrap, c.View = draw(l, filters.Strip, filters.Forward), draw(l, filters.UnwrapAuto, filters.UnwrapNever), config.ViewUpstream
			l.forward = c.Attestations == filters.Forward
			l.happens("B: %s, unwrap %s", c.Attestations, c.Unwrap)
		}
	}))
	return l
}

func (l *woven) replica(name string, rule func(*config.Config)) *replica {
	l.t.Helper()
	c := config.Default()
	rule(c)
	return l.start(name, c)
}

func (l *woven) start(name string, c *config.Config) *replica {
	l.t.Helper()
	tr := newTroubles(l.driver, l.registry)
	p, err := proxy.New(proxy.Options{
		Config: c, Storage: tr,
		Logger: slog.New(slog.NewTextHandler(&l.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("replica", name),
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			l.t.Errorf("close: %v", err)
		}
	})
	p.HoldBack(0)
	if err := p.Reach(&proxytest.Direct{Handler: tr.registry, Woven: true}); err != nil {
		l.t.Fatal(err)
	}
	r := &replica{Proxy: p, troubles: tr, direct: &proxytest.Direct{Handler: p.Handler()}, name: name, config: c}
	var die func()
	r.alive, die = context.WithCancel(context.Background())
	tr.die = sync.OnceFunc(func() { l.happens("%s is killed", name); die() })
	return r
}

func draw[T any](l *woven, of ...T) T { return of[l.IntN(len(of))] }

func (l *woven) happens(format string, args ...any) {
	l.events = append(l.events, time.Now().Format("02 15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// send is one request to a replica.
func (l *woven) send(ctx context.Context, to http.RoundTripper) sendFunc {
	return func(method, path string, body []byte, header ...string) *answer {
		var rd io.Reader
		if body != nil {
			rd = bytes.NewReader(body)
		}
		if strings.HasPrefix(path, "/") {
			path = wovenURL + path
		}
		req, err := http.NewRequestWithContext(ctx, method, path, rd)
		if err != nil {
			l.t.Error(err)
			return &answer{Response: &http.Response{}}
		}
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Add(header[i], header[i+1])
		}
		resp, err := to.RoundTrip(req)
		if err != nil {
			if !l.troubled {
				l.t.Errorf("%s %s: %v", method, path, err)
			}
			return &answer{Response: &http.Response{Request: req, Status: err.Error()}}
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			l.t.Error(err)
		}
		return &answer{resp, b}
	}
}

// ask is one request that nothing happens beside.
func (l *woven) ask(method, path string, header ...string) *answer {
	return l.send(context.Background(), l.reader())(method, path, nil, header...)
}

// reader is a replica that shows what is kept here: one that forwards does not.
func (l *woven) reader() *replica {
	return draw(l, slices.DeleteFunc(slices.Clone(l.replicas), func(r *replica) bool { return r.config.Attestations == filters.Forward })...)
}

func (l *woven) live() {
	for range l.IntN(3) {
		l.together(l.pushActor(l.where(), draw(l, l.trees...)))
		l.check()
		l.later()
	}
	for range 1 + l.IntN(2) {
		l.together(l.actors()...)
		l.check()
		l.again()
		l.check()
		l.later()
	}
	l.end()
}

// later is some time in which nothing happens.
func (l *woven) later() {
	d := draw(l, 0, 0, time.Hour, 30*time.Hour, 3*24*time.Hour, 6*24*time.Hour)
	if l.theme == "expiry" {
		d = draw(l, 30*time.Hour, 6*24*time.Hour, 6*24*time.Hour, 9*24*time.Hour)
	}
	time.Sleep(d)
	l.happens("%s later", d)
	if d > 0 && l.IntN(4) == 0 {
		l.sweep(context.Background(), draw(l, l.replicas...))
		l.check()
	}
}

func (l *woven) sweep(ctx context.Context, r *replica) {
	l.happens("%s sweeps", r.name)
	r.Sweep(ctx)
	l.happens("%s has swept", r.name)
}

func (l *woven) where() place {
	return place{draw(l, "app", "app", "app", "lib"), draw(l, "1", "2")}
}

// actors are a push and what happens beside it, which is mostly about the same.
func (l *woven) actors() (actors []*act) {
	tree, at := draw(l, l.trees...), l.where()
	if known := inOrder(l.kept); len(known) > 0 && l.IntN(3) > 0 {
		p := draw(l, known...)
		tree, at.repo = l.kept[p].tree, p.repo
	}
	actors = append(actors, l.pushActor(at, tree))
	switch {
	case l.theme == "delete":
		actors = append(actors, l.deleteActor(at.repo, tree))
	case l.theme == "expiry":
		actors = append(actors, l.sweepActor())
	case l.theme == "place" && l.IntN(4) > 0:
		actors = append(actors, l.deleteActor(map[string]string{"app": "lib", "lib": "app"}[at.repo], tree))
	}
	for len(actors) < 2 || len(actors) < 3 && l.IntN(2) == 0 {
		if l.IntN(4) == 0 {
			tree = draw(l, l.trees...)
		}
		if l.IntN(4) == 0 {
			at = l.where()
		}
		what := l.IntN(10)
		if l.forward && what >= 3 && what <= 6 { // what somebody deletes upstream may well be missing there
			what = 0
		}
		switch what {
		case 0, 1, 2:
			actors = append(actors, l.pushActor(at, tree))
		case 3, 4:
			actors = append(actors, l.deleteActor(at.repo, tree))
		case 5:
			actors = append(actors, l.deleteOriginalActor(at.repo, tree))
		case 6:
			actors = append(actors, l.deleteImageActor(at.repo, tree))
		case 7:
			actors = append(actors, l.signActor(at.repo, tree))
		case 8:
			actors = append(actors, l.readActor(at.repo, tree))
		case 9:
			actors = append(actors, l.sweepActor())
		}
	}
	return actors
}
