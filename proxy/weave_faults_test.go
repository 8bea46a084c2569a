package proxy_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/proxy/proxytest"
)

// Troubles are what befalls one replica in a woven life: calls to the storage and to the registry that fail, or whose answer
// is lost, and that it is killed. Which call fails, and how, follows from a seed and from the call.
type troubles struct {
	*proxytest.FailingDriver
	folder   bool
	registry *proxytest.FailingUpstream
	die      func()

	mu    sync.Mutex
	seed  uint64
	aims  [2]aim
	slow  int // so many of 1000 calls to the storage take long
	left  int // so many calls may still fail
	seen  map[string]int
	fired []string
	dead  bool // nothing that this process begins has an effect any more
}

func newTroubles(d *proxytest.WovenDriver, registry http.Handler) *troubles {
	tr := &troubles{FailingDriver: proxytest.NewFailingDriver(d), folder: d.Immediate(), registry: proxytest.NewFailingUpstream(registry)}
	tr.FailingDriver.Draw(func(what string) proxytest.Kind {
		return tr.draw(what, 0, proxytest.FaultError, storageTroubles)
	})
	tr.registry.Draw(func(what string) proxytest.Kind {
		return tr.draw(what, 1, proxytest.FaultCut, registryTroubles)
	})
	return tr
}

var (
	storageTroubles = []proxytest.Kind{proxytest.FaultError, proxytest.FaultAfter, proxytest.FaultPartial}
	// A registry that says it does not have what it has is believed: no 404.
	registryTroubles = []proxytest.Kind{
		proxytest.FaultError, proxytest.FaultAfter, proxytest.FaultPartial, proxytest.FaultCut, proxytest.FaultCutAfter,
		proxytest.FaultUnavailable, proxytest.FaultTooMany, proxytest.FaultDenied, proxytest.FaultBadGateway,
	}
)

// Immediate is the wrapped driver's word.
func (tr *troubles) Immediate() bool { return tr.folder }

func (tr *troubles) begin(r *rand.Rand) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.seed, tr.seen = r.Uint64(), map[string]int{}
	tr.aims = [2]aim{takes(r, storageAims), takes(r, upstreamAims)}
	switch r.IntN(3) {
	case 0:
		tr.aims[0].now = 0
	case 1:
		tr.aims[1].now = 0
	}
	tr.left = []int{1, 1, 2, 3, 10, 1000}[r.IntN(6)]
	tr.slow = []int{0, 0, 0, 20}[r.IntN(4)]
}

// end says whether anything failed.
func (tr *troubles) end() (fired []string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	fired, tr.fired, tr.left, tr.slow = tr.fired, nil, 0, 0
	return fired
}

func (tr *troubles) draw(what string, side int, dead proxytest.Kind, kinds []proxytest.Kind) (kind proxytest.Kind) {
	tr.mu.Lock()
	if tr.dead {
		tr.mu.Unlock()
		return dead
	}
	if tr.left == 0 && tr.slow == 0 {
		tr.mu.Unlock()
		return ""
	}
	name := volatile.ReplaceAllString(what, "…")
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, name, tr.seen[name])
	tr.seen[name]++
	r := rand.New(rand.NewPCG(tr.seed, h.Sum64()))
	if fails, which := tr.aims[side].hits(what, r), kinds[r.IntN(len(kinds))]; fails && tr.left > 0 {
		kind = which
		tr.left--
		tr.fired = append(tr.fired, what+": "+string(kind))
	}
	slow := time.Duration(0)
	if side == 0 && r.IntN(1000) < tr.slow {
		slow = []time.Duration{time.Second, 20 * time.Second, 40 * time.Second}[r.IntN(3)] // a call is given up after 30 s
		tr.fired = append(tr.fired, what+": after "+slow.String())
	}
	tr.mu.Unlock()
	time.Sleep(slow)
	return kind
}

// kill lets nothing happen any more that this process begins. What it has begun may still.
func (r *replica) kill() {
	r.mu.Lock()
	r.dead = true
	r.mu.Unlock()
	r.die()
}

// A misfortune befalls one actor.
type misfortune struct {
	most           int // tries
	hangsUp, kills int // at which of its steps; 0: never
	now            *replica
	leave          func()
	left           bool // it has hung up, or lost whom it asked: what it began may end whenever
	excused        bool // it may have failed
}

// order is whom one asks: the second is for what fails with the first. It may have another rule.
func (l *woven) order(r *replica) []*replica {
	order := []*replica{r}
	for _, o := range l.replicas {
		if o != r {
			order = append(order, o)
		}
	}
	return append(order, r)
}

// tries does something, with as many tries as are drawn beforehand.
func (l *woven) tries(ctx context.Context, a *act, do func(ctx context.Context, r *replica) bool) {
	for _, r := range a.by[:max(a.most, 1)] {
		own, leave := context.WithCancel(context.WithoutCancel(ctx))
		a.now, a.leave = r, leave
		done := do(own, r)
		leave()
		if done {
			return
		}
	}
}

// befalls draws what does.
func (l *woven) befalls(a *act) func(step int) {
	if !l.faults {
		return nil
	}
	a.most = 1 + l.IntN(len(a.by))
	within := draw(l, 10, 40, 120)
	if l.IntN(6) == 0 {
		a.hangsUp = 1 + l.IntN(within)
	}
	if l.IntN(8) == 0 {
		a.kills = 1 + l.IntN(within)
	}
	a.now = a.by[0]
	return func(step int) {
		if step == a.hangsUp && a.leave != nil {
			a.left = true
			a.leave()
		}
		if step == a.kills {
			a.left = true
			a.now.kill()
		}
	}
}

func (l *woven) begin() {
	if l.troubled = l.faults; l.faults {
		for _, r := range l.replicas {
			r.begin(l.Rand)
		}
	}
}

// calm ends what fails, and says who may have failed by it.
func (l *woven) calm(acts []*act) {
	if !l.troubled {
		return
	}
	time.Sleep(time.Minute) // until calls that were given up have ended
	failed := map[*replica]bool{}
	for i, r := range l.replicas {
		fired := r.end()
		failed[r] = len(fired) > 0 || r.dead
		if len(fired) > 0 {
			l.happens("%s meets\n    %s", r.name, strings.Join(fired, "\n    "))
		}
		if r.dead {
			l.replicas[i] = l.start(r.name+"'", r.config)
		}
	}
	l.troubled = false
	for _, a := range acts {
		a.excused = a.left || slices.ContainsFunc(a.by, func(r *replica) bool { return failed[r] })
		if a.excused { // what it began and did not wait for may have ended last
			a.ended = time.Now()
		}
	}
}

// answered is true for a delete that has an answer which decides.
func (a *act) answered() bool {
	return a.answer != nil && (a.answer.StatusCode == http.StatusAccepted || a.answer.StatusCode == http.StatusNotFound)
}

// payOff does again what failed, and now it ends well.
func (l *woven) payOff() {
	l.t.Helper()
	owed := l.owed
	l.owed = nil
	for _, a := range owed {
		b := &act{kind: a.kind, repo: a.repo, tree: a.tree, digest: a.digest, by: a.by, sent: true, begun: time.Now()}
		if b.Name = a.Name; a.kind == "push" {
			b = l.pushActor(place{a.repo, a.tag}, a.tree)
			l.pushedAgain(b)
			b.Do(context.Background())
		} else {
			b.answer = l.ask(http.MethodDelete, "/v2/"+a.repo+"/manifests/"+a.digest)
		}
		b.ended = time.Now()
		for _, r := range l.replicas {
			r.Settle()
		}
		if l.happens("what failed, again: %s: %v", b.Name, b.err); b.kind == "push" {
			l.pushed(b, nil)
			l.tagged(b)
		} else {
			l.deleted(b, nil)
		}
	}
	if len(l.owed) > 0 {
		l.t.Errorf("%d fail again", len(l.owed))
	}
}
