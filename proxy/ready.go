package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice/filters"
	"sluice/proxy/internal/contain"
	"sluice/proxy/quarantine"
	"sluice/proxy/upstream"
)

const (
	storageCheckTime = 5 * time.Second
	upstreamCheck    = 10 * time.Second // how old an answer may be: probes of any number of kubelets cost upstream no more
	upstreamTime     = 5 * time.Second
	// upstreamDown is how many checks in a row have to fail: one lost connection must not take every
	// replica out of service at once.
	upstreamDown = 2
)

// readyz says line by line what Sluice needs and whether that is there. It is no while shutting down, when
// storage cannot be read, and when an upstream does not answer.
func (p *Proxy) readyz(w http.ResponseWriter, r *http.Request) {
	if p.closing.Load() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	var text strings.Builder
	ready := true
	say := func(what, trouble string) {
		if trouble == "" {
			fmt.Fprintf(&text, "ok %s\n", what)
			return
		}
		ready = false
		fmt.Fprintf(&text, "not ready: %s: %s\n", what, trouble)
	}
	say("storage", p.storageTroubleNow(r.Context()))
	for i, b := range p.upstreams {
		say("upstream "+b.registry.Host(), p.health[i].trouble(r.Context()))
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write([]byte(text.String()))
}

func (p *Proxy) storageTroubleNow(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, storageCheckTime)
	defer cancel()
	if _, err := p.quarantine.TagOriginal(ctx, "readyz", "none", filters.EmptyDigest); err != nil && !errors.Is(err, quarantine.ErrNotFound) {
		p.log.Error("not ready", "what", "storage", "reason", err)
		return "cannot be read, see the log"
	}
	return ""
}

// A health is what is known of one upstream.
type health struct {
	p        *Proxy
	registry *upstream.Registry

	mu      sync.Mutex
	first   chan struct{} // closed when the first check has ended
	running bool
	checked time.Time
	failed  int // checks in a row
	reason  string
	ever    bool // it has answered once
}

func newHealth(p *Proxy, r *upstream.Registry) *health {
	return &health{p: p, registry: r, first: make(chan struct{})}
}

// trouble is what the last checks say, at once: a probe has a second, and an upstream that hangs takes
// longer. What is too old is checked again behind it. Only the very first answer is waited for.
func (h *health) trouble(ctx context.Context) string {
	h.mu.Lock()
	if !h.running && (h.checked.IsZero() || h.p.now().Sub(h.checked) >= upstreamCheck) {
		h.running = true
		h.p.background.Go(h.check)
	}
	h.mu.Unlock()
	select {
	case <-h.first:
	case <-ctx.Done():
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.checked.IsZero():
		return "has not answered yet"
	case h.failed >= upstreamDown, h.failed > 0 && !h.ever:
		return h.reason
	}
	return ""
}

// notTheAPI is what an answer to GET /v2/ that no registry gives points to. Servers of https say 400 to plain http.
func notTheAPI(status int) string {
	switch {
	case status >= 500:
		return "the registry has trouble of its own"
	case status == http.StatusBadRequest:
		return "a registry does not answer GET /v2/ so: check http or https, host and port in the upstream's url"
	}
	return "a registry does not answer GET /v2/ so: check host and port in the upstream's url"
}

// check asks for the API version. That it wants credentials is an answer: whether ours are good shows
// with the repository, and a registry that refuses them is there.
func (h *health) check() {
	ctx, cancel := context.WithTimeout(h.p.life, upstreamTime)
	defer cancel()
	reason := ""
	resp, err := contain.Call(func() (*http.Response, error) { return h.registry.Do(ctx, upstream.Request{Method: http.MethodGet}) })
	switch {
	case err != nil:
		h.p.log.Warn("upstream did not answer a check", "upstream", h.registry.Host(), "reason", err)
		reason = "does not answer, see the log"
		if errors.Is(err, upstream.ErrCredentials) {
			reason = "Sluice has no credentials for it, see the log"
		}
	default:
		discard(resp)
		if c := resp.StatusCode; c >= 300 && c != http.StatusUnauthorized && c != http.StatusForbidden && c != http.StatusTooManyRequests {
			reason = fmt.Sprintf("answers %d to GET /v2/, see the log", c)
			h.p.log.Warn("upstream did not answer a check well", "upstream", h.registry.Host(), "status", c, "reason", notTheAPI(c))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.checked.IsZero() {
		close(h.first)
	}
	h.running, h.checked, h.reason = false, h.p.now(), reason
	if reason == "" {
		h.failed, h.ever = 0, true
	} else {
		h.failed++
	}
}
