package proxy

import (
	"context"
	"net/http"
	"time"

	"sluice/proxy/session"
)

// RoomForBlobs is true while no large blob is in memory.
func (p *Proxy) RoomForBlobs() bool {
	if !p.largeBlobs.TryAcquire(largeBlobs) {
		return false
	}
	p.largeBlobs.Release(largeBlobs)
	return true
}

// Settle waits for what nobody waits for: sessions that are cancelled in the background.
func (p *Proxy) Settle() { p.background.Wait() }

// HandlersEnd waits for the requests that run, also those whose clients have gone; none may begin meanwhile.
func (p *Proxy) HandlersEnd() { p.handlers.Wait() }

// Sweep is one round of housekeeping.
func (p *Proxy) Sweep(ctx context.Context) {
	p.sweep(ctx)
	p.sweepStored(ctx)
}

// RoomForManifests is true while a large manifest would be read at once.
func (p *Proxy) RoomForManifests() bool {
	if !p.largeManifests.TryAcquire(1) {
		return false
	}
	p.largeManifests.Release(1)
	return true
}

// PlacesOfOne is how many large bodies of one identity may be held at the same time.
func (p *Proxy) PlacesOfOne() int { return heldOfOne }

// Crowd is how many there are.
func (p *Proxy) Crowd() int {
	p.crowd.mu.Lock()
	defer p.crowd.mu.Unlock()
	return p.crowd.total
}

// RoomInCrowd is true while an identity may send one more.
func (p *Proxy) RoomInCrowd(key string) bool {
	entered, _ := p.crowd.tryEnter(key)
	if entered {
		p.crowd.leave(key)
	}
	return entered
}

// KeyOf is the key of whoever has these credentials.
func (p *Proxy) KeyOf(authorization string) string {
	id, _ := p.access.Authenticate(&http.Request{Header: http.Header{"Authorization": {authorization}}})
	return id.Key
}

// Admin is what is served on the admin address.
func (p *Proxy) Admin() http.Handler { return p.admin() }

// Reach leads the first upstream somewhere else than its name.
func (p *Proxy) Reach(t http.RoundTripper) error {
	p.transport = t
	b, err := p.newUpstream(&p.cfg.Upstreams[0])
	if err == nil {
		p.upstreams[0] = b
	}
	return err
}

// Seal is the URL's part of an upload that has come to some state.
func (p *Proxy) Seal(st session.State) (string, error) { return p.sealer.Seal(st) }

// Server is what listens, before it does.
func (p *Proxy) Server(h http.Handler) *http.Server { return p.server(h) }

// Entire is what looks at the rest of a request's body.
func Entire(next http.Handler) http.Handler {
	p := &Proxy{slowBodies: slowBodies{window: time.Hour}}
	return p.bodies(next)
}

// Charged is what an identity pays for under access.max_held_per_identity, by the key that access gives it.
func (p *Proxy) Charged(identity string) int64 {
	p.held.mu.Lock()
	defer p.held.mu.Unlock()
	if h := p.held.holders[identity]; h != nil {
		return h.total
	}
	return 0
}

// LostCalls are those to the storage that were given up and have not come back.
func (p *Proxy) LostCalls() int { return p.lost.Calls() }

// HoldBack is how long the answer to what may pass is kept back. It is set before the first request.
func (p *Proxy) HoldBack(d time.Duration) { p.holdBack = d }

// SlowTime is for how long a client is waited for that hardly sends anything.
func (p *Proxy) SlowTime(d time.Duration) {
	p.slowBodies.mu.Lock()
	defer p.slowBodies.mu.Unlock()
	p.slowBodies.window = d
}

// ReadTime is for how long a client may read nothing of its download. It is set before the first request.
func (p *Proxy) ReadTime(d time.Duration) { p.readTime = d }

// ManifestTime is for how long the rest of a large manifest is waited for. It is set before the first request.
func (p *Proxy) ManifestTime(d time.Duration) { p.manifestTime = d }

// SettleCharges asks the storage what other replicas have done with what is charged for here; false: there was no need.
func (p *Proxy) SettleCharges(ctx context.Context) bool { return p.settleCharges(ctx) }
