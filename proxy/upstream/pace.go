package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// pacer keeps requests under the rates of a registry. One that has none of them costs nothing.
type pacer [actions]*gate

func newPacer(rates [actions]int, now func() time.Time) *pacer {
	var p pacer
	for a, rate := range rates {
		if rate > 0 {
			p[a] = &gate{lane: newLane(rate), now: now}
		}
	}
	return &p
}

// gate is a lane with a lock and a clock.
type gate struct {
	now func() time.Time

	mu    sync.Mutex
	lane  *lane
	armed bool // a timer runs
}

// wait returns when the request may go. late is not 0 if the patience was not enough: come again after that. Who is due later
// waits all the same, and others may leave meanwhile: BuildKit and containerd do not look at Retry-After, come again at once,
// and give up after five answers (containerd core/remotes/docker/resolver.go, retryRequest).
func (g *gate) wait(ctx context.Context, repo string, patience time.Duration) (late time.Duration, err error) {
	g.mu.Lock()
	now := g.now()
	if g.lane.take(now) {
		g.mu.Unlock()
		return 0, nil
	}
	w := &waiter{repo: repo, ready: make(chan struct{})}
	g.lane.join(w)
	g.look(now)
	g.mu.Unlock()

	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-w.ready:
		return 0, nil
	case <-timer.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.ready:
		return 0, err
	default:
	}
	g.lane.leave(w)
	now = g.now()
	return max(window, g.lane.due(now, repo).Sub(now)), err
}

// look lets go whoever may, and comes back for the others. It is called with mu held.
func (g *gate) look(now time.Time) {
	next, more := g.lane.advance(now)
	if !more || g.armed {
		return
	}
	g.armed = true
	time.AfterFunc(max(next.Sub(now), time.Millisecond), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.armed = false
		g.look(g.now())
	})
}

func (g *gate) slow(wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lane.slow(g.now(), min(wait, retryBudget))
}

// paced is attempt in its turn. A streamed body waits with its first byte unread. What does not fit into the
// client's patience is answered as ECR would, with the time after which there is room: every push client
// repeats a 429.
func (r *Registry) paced(ctx context.Context, p *plan, t *retry, authorization string) (*http.Response, *body, error) {
	for _, a := range p.actions {
		g := r.pace[a]
		if g == nil {
			continue
		}
		late, err := g.wait(ctx, p.q.Repository, retryBudget-r.now().Sub(t.start))
		if err != nil {
			return nil, nil, err
		}
		if late > 0 {
			return r.busy(p, a, late), nil, nil
		}
	}
	resp, b, err := r.attempt(ctx, p, p.url, authorization)
	if err == nil && resp.StatusCode == http.StatusTooManyRequests {
		wait, _ := transient(resp)
		for _, a := range p.actions {
			if g := r.pace[a]; g != nil {
				g.slow(wait)
			}
		}
	}
	return resp, b, err
}

// busy is Sluice's own answer in the registry's place.
func (r *Registry) busy(p *plan, a action, late time.Duration) *http.Response {
	seconds := int((late + time.Second - 1) / time.Second)
	return answered(p, http.StatusTooManyRequests, "TOOMANYREQUESTS", fmt.Sprintf(
		"repository %s: more requests wait for upstream %s than its rate of %d %s per second lets through in %s; try again in %d s (see upstreams[].rates of sluice)",
		p.q.Repository, r.base.Host, r.pace[a].lane.rate, actionNames[a], retryBudget, seconds,
	), http.Header{"Retry-After": {strconv.Itoa(seconds)}})
}

// answered is an answer in the form of the distribution spec ("Error Codes").
func answered(p *plan, status int, code, message string, h http.Header) *http.Response {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, err := json.Marshal(map[string][]item{"errors": {{code, message}}})
	if err != nil { // cannot happen: strings only
		body = []byte(`{"errors":[{"code":"UNKNOWN"}]}`)
	}
	h.Set("Content-Type", "application/json")
	if p.q.Method == http.MethodHead {
		body = nil
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		Request: &http.Request{Method: p.q.Method, URL: p.url, Host: p.url.Host},
	}
}
