package proxy_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/proxytest"
)

// A storm is a while in which calls to the storage and to the registry fail at random, clients hang up and processes die.
// Which call fails, and how, follows from the storm's seed and from the call, and not from what runs beside it.
type storm struct {
	driver  *proxytest.FailingDriver
	running atomic.Int64 // requests that reached the registry and have not ended

	mu       sync.Mutex
	seed     uint64
	storage  aim
	upstream aim
	hangUp   int            // at so many of 1000 calls the client hangs up
	kill     int            // or all processes die
	leave    func()         // hangs up; nil: nobody is there, or has gone already
	dead     bool           // nothing that these processes begin has an effect any more
	seen     map[string]int // calls of this name
	gone     chan struct{}  // closed when a process sees that its client has gone
	fired    []string
	failed   [2]bool // whether a call to the storage, and one to the registry, did not do what it says
}

// upstreamKinds are what a registry, and what stands in front of it, may do to a request.
var upstreamKinds = append(proxytest.UpstreamFaults(), proxytest.FaultBadGateway, proxytest.FaultNotFound)

func newStorm(d storagedriver.StorageDriver) *storm {
	return &storm{driver: proxytest.NewFailingDriver(d)}
}

// An aim is how many of 1000 calls fail, of those that it is about.
type aim struct {
	at  *regexp.Regexp
	now int
}

func (a aim) hits(what string, r *rand.Rand) bool {
	return r.IntN(1000) < a.now && a.at.MatchString(what)
}

var (
	storageAims  = aims("", "", "", "^(PutContent|Writer|Move|Delete)", "^(GetContent|Reader|Stat|List|Walk)", "/_aliases/", "/_tags/", "/_documents/", "/_records/", "/_elsewhere/", "/_blobs/", "/_manifests/", "/_originals/", "/_parts/", "^List|^Walk", "/attestations/")
	upstreamAims = aims("", "", "", "^(PUT|POST|PATCH)", "^(GET|HEAD)", "^PUT .*/manifests/", "/manifests/", "/blobs/", "/referrers/|/sha256-", "^PUT .*/manifests/[^s]")
)

func aims(of ...string) (all []*regexp.Regexp) {
	for _, at := range of {
		all = append(all, regexp.MustCompile(at))
	}
	return all
}

// takes draws what it is about: of nearly all calls few fail, of a few kinds of calls many may.
func takes(r *rand.Rand, of []*regexp.Regexp) aim {
	a := aim{of[r.IntN(len(of))], 0}
	if a.at.String() == "" {
		a.now = []int{0, 0, 10, 20, 50, 150, 1000}[r.IntN(7)]
	} else {
		a.now = []int{30, 100, 300, 600, 1000}[r.IntN(5)]
	}
	return a
}

// wrap stands in front of the registry.
func (s *storm) wrap(next http.Handler) http.Handler {
	failing := proxytest.NewFailingUpstream(next)
	failing.Draw(func(what string) proxytest.Kind {
		return s.draw(what, &s.upstream, 1, proxytest.FaultCut, upstreamKinds)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Add(-1)
		failing.ServeHTTP(w, r)
	})
}

// watch stands in front of a proxy.
func (s *storm) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer context.AfterFunc(r.Context(), s.sawClientGo)()
		next.ServeHTTP(w, r)
	})
}

func (s *storm) sawClientGo() {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.gone:
	default:
		if s.gone != nil && s.leave == nil {
			close(s.gone)
		}
	}
}

// begin lets it rage over what is done until end.
func (s *storm) begin(r *rand.Rand, leave func()) {
	pick := func(of ...int) int { return of[r.IntN(len(of))] }
	s.mu.Lock()
	s.seed, s.seen, s.dead, s.fired = r.Uint64(), map[string]int{}, false, nil
	s.failed = [2]bool{}
	s.storage, s.upstream = takes(r, storageAims), takes(r, upstreamAims)
	switch pick(0, 1, 2) {
	case 0:
		s.storage.now = 0
	case 1:
		s.upstream.now = 0
	}
	s.hangUp, s.kill = pick(0, 0, 0, 5, 20), pick(0, 0, 0, 0, 5)
	s.gone, s.leave = make(chan struct{}), leave
	s.mu.Unlock()
	s.driver.Draw(func(what string) proxytest.Kind {
		return s.draw(what, &s.storage, 0, proxytest.FaultError, proxytest.DriverFaults())
	})
}

// end says what failed.
func (s *storm) end() (fired []string, storage, upstream bool) {
	s.driver.Draw(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.storage.now, s.upstream.now, s.hangUp, s.kill, s.leave, s.dead = 0, 0, 0, 0, nil, false
	return s.fired, s.failed[0], s.failed[1]
}

// volatile are the parts of a call's name that no seed tells.
var volatile = regexp.MustCompile(`/uploads/.*|/(_parts|_staging)/.*|[0-9]{4}-[0-9]{2}-[0-9]{2}|-[A-Z0-9]{26}`)

func (s *storm) draw(what string, at *aim, side int, dead proxytest.Kind, kinds []proxytest.Kind) proxytest.Kind {
	s.mu.Lock()
	name := volatile.ReplaceAllString(what, "…")
	n := s.seen[name]
	if s.seen != nil {
		s.seen[name]++
	}
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, name, n)
	r := rand.New(rand.NewPCG(s.seed, h.Sum64()))
	var kind proxytest.Kind
	if fails, which := at.hits(what, r), kinds[r.IntN(len(kinds))]; fails {
		kind = which
		if kind == proxytest.FaultDead { // an n-th call and all later ones: here the storm decides how many
			kind = dead
		}
		if kind == proxytest.FaultDeadAfter {
			kind = proxytest.FaultAfter
		}
	}
	hangsUp, dies := r.IntN(1000) < s.hangUp, r.IntN(1000) < s.kill
	if s.dead {
		kind, hangsUp, dies = dead, false, false
	}
	s.dead = s.dead || dies
	leave := s.leave
	if leave == nil || !hangsUp && !dies {
		leave = nil
	} else {
		s.leave = nil
	}
	gone := s.gone
	s.failed[side] = s.failed[side] || kind != ""
	if kind != "" || dies || leave != nil {
		how := string(kind)
		if dies {
			how += " (killed after it)"
		} else if leave != nil {
			how += " (the client hangs up)"
		}
		s.fired = append(s.fired, what+": "+strings.TrimSpace(how))
	}
	s.mu.Unlock()
	if leave != nil {
		leave()
		select {
		case <-gone:
		case <-time.After(100 * time.Millisecond): // no process hears of it while it reads no body
		}
	}
	return kind
}
