package observe

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/notifications"
)

// maxPending bounds what waits for one endpoint: in memory, as in distribution, at about 2 KiB an event.
const maxPending = 1000

// Endpoint is a webhook.
type Endpoint struct {
	Name      string
	URL       string // may be a secret as a whole
	Headers   http.Header
	Timeout   time.Duration // of one attempt
	Threshold int           // failures in a row after which attempts wait
	Backoff   time.Duration // so long
}

// Events delivers events to endpoints, to each in order and one at a time. Nobody who sends one waits
// for that, and none is lost while an endpoint is away, until too many wait or the process ends.
type Events struct {
	queues []*queue
	log    *slog.Logger

	mu     sync.Mutex
	closed bool
}

// envelope is notifications.Envelope, of which the events have no type.
type envelope struct {
	Events []notifications.Event `json:"events"`
}

// NewEvents starts delivering. Close ends it. An endpoint that others deliver to already, all of its settings the
// same, is one with theirs: what waits for it goes on waiting, until the last of them is closed.
func (m *Metrics) NewEvents(endpoints []Endpoint, log *slog.Logger) (*Events, error) {
	for _, ep := range endpoints {
		if _, err := url.Parse(ep.URL); err != nil {
			return nil, fmt.Errorf("endpoint %s: its url cannot be parsed", ep.Name) // the error would show it
		}
	}
	e := &Events{log: log}
	for _, ep := range endpoints {
		e.queues = append(e.queues, m.events.queue(ep, log))
	}
	return e, nil
}

// Send hands an event over. It never waits: where too many wait already, the event is dropped and counted.
func (e *Events) Send(event notifications.Event) {
	body, err := json.Marshal(envelope{[]notifications.Event{event}})
	if err != nil {
		e.log.Error("event cannot be encoded and is dropped", "reason", err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, q := range e.queues {
		switch {
		case e.closed:
			q.dropped.Inc()
		case !q.put(body):
			q.dropped.Inc()
			e.log.Error("event dropped, too many wait for the endpoint", "endpoint", q.Name, "waiting", maxPending)
		}
	}
}

// Drain waits until nothing waits any more, or ctx ends.
func (e *Events) Drain(ctx context.Context) {
	for _, q := range e.queues {
		q.drain(ctx)
	}
}

// Close delivers what waits for endpoints that nobody else delivers to, until ctx ends, and drops and counts the rest.
// It may be called again.
func (e *Events) Close(ctx context.Context) {
	e.mu.Lock()
	again := e.closed
	e.closed = true
	e.mu.Unlock()
	if again {
		return
	}
	var all sync.WaitGroup
	for _, q := range e.queues {
		all.Go(func() { q.release(ctx) })
	}
	all.Wait()
}
