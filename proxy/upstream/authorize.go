package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"sluice/proxy/internal/contain"
)

// maxGrants bounds what is remembered: one per repository and set of actions in use.
const maxGrants = 4096

// authorizer keeps the Authorization headers of one registry: one for all requests with Basic, one per
// set of scopes with Bearer. How the registry wants it is learned from its first 401, so that the first
// request to it needs no ping and a registry without authentication never starts a credential helper.
type authorizer struct {
	host   string
	source source
	now    func() time.Time
	life   context.Context // ends with the Registry
	stop   context.CancelFunc
	fetch  func(ctx context.Context, s service, scopes []string, c credential) (grant, error)
	realm  func(raw string) (*url.URL, error)
	keeps  bool // a refusal without a challenge is about the token, and not about the way of signing in

	flights sync.WaitGroup // added to with mu held, and only while there is life

	mu         sync.Mutex
	service    service
	grants     map[string]*entry
	doubted    time.Time // when, and which gen of a grant
	doubtedGen uint64
	settled    bool                // the doubt brought no other token: no more of it until it is time for the next
	wider      map[string][]string // scopes that 401s asked for on top of a request's own, by key
}

// service is how a registry wants to be authenticated.
type service struct {
	scheme string // "", "basic", "bearer"
	realm  *url.URL
	name   string
}

// grant is an Authorization header and how long it lasts; zero times: until a 401.
type grant struct {
	header  string // "": nothing to send
	renewAt time.Time
	ends    time.Time
}

type entry struct {
	grant
	gen    uint64 // counts the grants, so that many 401s of one old grant ask for one new
	flight *flight
}

type flight struct {
	done    chan struct{}
	waiters int
	cancel  context.CancelFunc
	err     error
}

// lease is what one request was sent with.
type lease struct {
	key    string // of the grant
	gen    uint64
	header string
	scopes []string // what the request needs
}

func key(scopes []string) string { return strings.Join(scopes, " ") }

// lease is current for a plan. As long as the registry has not asked for any credentials it costs nothing.
func (a *authorizer) lease(ctx context.Context, p *plan) (lease, error) {
	a.mu.Lock()
	unasked := a.service.scheme == ""
	a.mu.Unlock()
	if unasked {
		return lease{}, nil
	}
	return a.current(ctx, scopes(p.q))
}

// current is the header for a new request: none as long as the registry did not ask for any.
func (a *authorizer) current(ctx context.Context, scopes []string) (lease, error) {
	a.mu.Lock()
	if w := a.wider[key(scopes)]; w != nil {
		scopes = w
	}
	l := lease{key: key(scopes), scopes: scopes}
	switch a.service.scheme {
	case "":
		a.mu.Unlock()
		return l, nil
	case "basic":
		l.key = ""
	default:
		// A push has a token that allows its reads too.
		if k, ok := withPush(scopes); ok && a.usable(a.grants[k], []string{k}) {
			l.key = k
		}
	}
	e := a.grants[l.key]
	if a.usable(e, l.scopes) {
		l.gen, l.header = e.gen, e.header
		a.mu.Unlock()
		return l, nil
	}
	if e != nil {
		l.gen = e.gen
	}
	a.mu.Unlock()
	old := l
	l, err := a.obtain(ctx, l)
	if err != nil && e != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if e.gen == old.gen && e.header != "" && a.now().Before(e.ends) { // renewal ahead of time failed
			old.header = e.header
			return old, nil
		}
	}
	return l, err
}

const (
	// arrival is what a grant must have left for a request that is sent with it: to get there, also where clocks differ a little.
	arrival = 5 * time.Second
	// renewalPause is the longest time between two attempts to renew a grant.
	renewalPause = time.Minute
)

// usable is true for a grant that a request may be sent with. One that is to be renewed is until shortly before its end, and
// renewed meanwhile, so that nobody waits for a service that is slow. Called with the lock held.
func (a *authorizer) usable(e *entry, scopes []string) bool {
	switch {
	case e == nil || e.gen == 0:
		return false
	case !a.due(e.grant):
		return true
	}
	now := a.now()
	left := e.ends.Sub(now)
	if left < arrival || a.life.Err() != nil {
		return false
	}
	if e.flight == nil {
		e.renewAt = now.Add(min(renewalPause, left/2)) // the next attempt, if this one fails
		a.start(e, scopes).waiters++                   // which nobody can take away: it goes on when others give up
	}
	return true
}

// doubt is true once in a while for a token that was refused without a reason, for all requests that were sent
// with it, for one that was replaced since, and for one whose time is over.
func (a *authorizer) doubt(l lease, every time.Duration) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, now := a.grants[l.key], a.now()
	switch {
	case e == nil:
		return false
	case e.gen > l.gen, a.doubtedGen == l.gen && !a.doubted.IsZero() && !a.settled:
		return true
	case !e.ends.IsZero() && !now.Before(e.ends): // no doubt about it
		return true
	case !a.doubted.IsZero() && now.Sub(a.doubted) < every:
		return false
	}
	a.doubted, a.doubtedGen, a.settled = now, l.gen, false
	return true
}

// lapsed is true for a grant whose time is over, or that was replaced, since it was sent: what was refused with it may be
// taken with another, also when it was new a moment ago.
func (a *authorizer) lapsed(l lease) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.grants[l.key]
	return e != nil && (e.gen > l.gen || !e.ends.IsZero() && !a.now().Before(e.ends))
}

func (a *authorizer) due(g grant) bool { return !g.renewAt.IsZero() && !a.now().Before(g.renewAt) }

// renew is called after a 401 to a request that was sent with l. ok is false when there is nothing
// better to send, so that the 401 is the answer.
func (a *authorizer) renew(ctx context.Context, l lease, all []challenge) (_ lease, ok bool, err error) {
	c, found := pick(all)
	before := l.header
	if !found {
		// ECR refuses an expired token without a challenge. Any other registry has nothing to offer then.
		if before == "" || !a.keeps {
			return l, false, nil
		}
		l, err = a.obtain(ctx, l)
		return l, err == nil && l.header != "" && l.header != before, err
	}
	s := service{scheme: c.scheme}
	if s.scheme == "bearer" {
		if s.realm, err = a.realm(c.params["realm"]); err != nil {
			return l, false, err
		}
		s.name = c.params["service"]
	}
	a.mu.Lock()
	a.service = s
	own := key(l.scopes)
	if s.scheme == "basic" {
		own = ""
	} else if w := widen(l.scopes, c.params["scope"]); key(w) != own {
		if len(a.wider) >= maxGrants {
			clear(a.wider)
		}
		a.wider[own] = w
		l.scopes, own = w, key(w)
	}
	if own != l.key { // a grant that was lent, or none: what now counts is the request's own
		l.key, l.gen = own, 0
		if e := a.grants[own]; e != nil && e.header == before {
			l.gen = e.gen
		}
	}
	a.mu.Unlock()
	l, err = a.obtain(ctx, l)
	if err != nil {
		return l, false, err
	}
	return l, l.header != "" && l.header != before, nil
}

// forget makes the next request fetch a new grant: a 401 came that could not be repeated.
func (a *authorizer) forget(l lease) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.grants[l.key]; e != nil && e.gen == l.gen {
		e.renewAt = a.now()
		e.ends = e.renewAt
	}
}

// obtain waits for a grant that is newer than l's, fetching one if nobody does.
func (a *authorizer) obtain(ctx context.Context, l lease) (lease, error) {
	a.mu.Lock()
	e := a.grants[l.key]
	if e == nil {
		a.makeRoom()
		e = &entry{}
		a.grants[l.key] = e
	}
	if e.gen > l.gen && !a.due(e.grant) {
		l.gen, l.header = e.gen, e.header
		a.mu.Unlock()
		return l, nil
	}
	f := e.flight
	if f == nil {
		if err := a.life.Err(); err != nil {
			a.mu.Unlock()
			return l, unreachable(a.host, fmt.Errorf("credentials are needed, and Sluice is shutting down: %w", err))
		}
		f = a.start(e, l.scopes)
	}
	f.waiters++
	a.mu.Unlock()

	select {
	case <-f.done:
	case <-ctx.Done():
		a.mu.Lock()
		if f.waiters--; f.waiters == 0 {
			f.cancel() // nobody wants it any more
			if e.flight == f {
				e.flight = nil
			}
		}
		a.mu.Unlock()
		return l, unreachable(a.host, fmt.Errorf("waiting for credentials: %w", ctx.Err()))
	}
	if f.err != nil {
		return l, f.err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l.gen, l.header = e.gen, e.header
	return l, nil
}

// start begins to fetch a grant. Called with the lock held, and only while there is life.
func (a *authorizer) start(e *entry, scopes []string) *flight {
	ctx, cancel := context.WithTimeout(a.life, tokenTimeout)
	f := &flight{done: make(chan struct{}), cancel: cancel}
	e.flight = f
	s := a.service
	a.flights.Go(func() { a.fly(ctx, f, e, s, scopes) })
	return f
}

// close ends the flights and waits for them; none begins any more.
func (a *authorizer) close() {
	a.mu.Lock()
	a.stop()
	a.mu.Unlock()
	a.flights.Wait()
}

func (a *authorizer) fly(ctx context.Context, f *flight, e *entry, s service, scopes []string) {
	defer f.cancel()
	g, err := contain.Call(func() (grant, error) { return a.fetchGrant(ctx, s, scopes) })
	a.mu.Lock()
	defer a.mu.Unlock()
	f.err = err
	switch {
	case err == nil:
		e.grant = g
		e.gen++
	case e.gen == a.doubtedGen && !errors.Is(ctx.Err(), context.Canceled): // that nobody waits any more settles nothing
		a.settled = true
	}
	if e.flight == f {
		e.flight = nil
	}
	close(f.done)
}

func (a *authorizer) fetchGrant(ctx context.Context, s service, scopes []string) (grant, error) {
	c, err := a.source.credential(ctx)
	if err != nil {
		return grant{}, err
	}
	g, err := a.grant(ctx, s, scopes, c)
	if keeper, ok := a.source.(interface{ refused() }); ok && errors.Is(err, ErrCredentials) {
		keeper.refused() // the password may be the one that has expired
		if c, err = a.source.credential(ctx); err == nil {
			g, err = a.grant(ctx, s, scopes, c)
		}
	}
	return g, err
}

func (a *authorizer) grant(ctx context.Context, s service, scopes []string, c credential) (grant, error) {
	switch {
	case c.bearer != "":
		return grant{header: "Bearer " + c.bearer, renewAt: c.renewAt(), ends: c.expires}, nil
	case s.scheme == "bearer":
		return a.fetch(ctx, s, scopes, c)
	case c.username == "" && c.password == "": // none, or an identity token that Basic has no use for
		return grant{}, nil
	}
	return grant{header: c.basic(), renewAt: c.renewAt(), ends: c.expires}, nil
}

// makeRoom drops what has ended, and everything if that was nothing. Called with the lock held.
func (a *authorizer) makeRoom() {
	if len(a.grants) < maxGrants {
		return
	}
	now := a.now()
	for k, e := range a.grants {
		if e.flight == nil && !e.ends.IsZero() && now.After(e.ends) {
			delete(a.grants, k)
		}
	}
	if len(a.grants) >= maxGrants {
		for k, e := range a.grants {
			if e.flight == nil {
				delete(a.grants, k)
			}
		}
	}
}
