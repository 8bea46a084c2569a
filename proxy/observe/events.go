package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/notifications"
	"github.com/prometheus/client_golang/prometheus"
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
	stop   context.CancelFunc
	done   sync.WaitGroup
	log    *slog.Logger

	mu     sync.Mutex
	closed bool
}

// queue is what waits for one endpoint.
type queue struct {
	Endpoint
	host      string
	client    *http.Client
	log       *slog.Logger
	waiting   chan []byte
	pending   prometheus.Gauge
	failures  prometheus.Counter
	delivered prometheus.Counter
	rejected  prometheus.Counter
	dropped   prometheus.Counter
}

// envelope is notifications.Envelope, of which the events have no type.
type envelope struct {
	Events []notifications.Event `json:"events"`
}

// NewEvents starts delivering. Close ends it.
func (m *Metrics) NewEvents(endpoints []Endpoint, log *slog.Logger) (*Events, error) {
	life, stop := context.WithCancel(context.Background())
	e := &Events{stop: stop, log: log}
	for _, ep := range endpoints {
		u, err := url.Parse(ep.URL)
		if err != nil {
			stop()
			return nil, fmt.Errorf("endpoint %s: its url cannot be parsed", ep.Name) // the error would show it
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConns = 1
		v := &m.events
		q := &queue{
			Endpoint: ep, host: u.Host, log: log, waiting: make(chan []byte, maxPending),
			client: &http.Client{Transport: transport, Timeout: ep.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse // the headers are for this host only
			}},
			pending: v.pending.WithLabelValues(ep.Name), failures: v.failures.WithLabelValues(ep.Name),
			delivered: v.total.WithLabelValues(ep.Name, "delivered"), rejected: v.total.WithLabelValues(ep.Name, "rejected"), dropped: v.total.WithLabelValues(ep.Name, "dropped"),
		}
		e.queues = append(e.queues, q)
	}
	for _, q := range e.queues {
		e.done.Go(func() { q.run(life) })
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
		if e.closed {
			q.dropped.Inc()
			continue
		}
		select {
		case q.waiting <- body:
			q.pending.Inc()
		default:
			q.dropped.Inc()
			e.log.Error("event dropped, too many wait for the endpoint", "endpoint", q.Name, "waiting", maxPending)
		}
	}
}

// Close delivers what waits until ctx ends, and drops and counts the rest. It may be called again.
func (e *Events) Close(ctx context.Context) {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		for _, q := range e.queues {
			close(q.waiting)
		}
	}
	e.mu.Unlock()
	stopped := context.AfterFunc(ctx, e.stop)
	defer stopped()
	e.done.Wait()
	e.stop()
	for _, q := range e.queues {
		q.client.CloseIdleConnections()
	}
}

func (q *queue) run(life context.Context) {
	lost := 0
	for body := range q.waiting {
		if life.Err() != nil || !q.deliver(life, body) {
			lost++
			q.dropped.Inc()
		}
		q.pending.Dec()
	}
	if lost > 0 {
		q.log.Error("events dropped, since the process ends", "endpoint", q.Name, "events", lost)
	}
}

// errRejected is an answer that another attempt would get again.
var errRejected = errors.New("rejected")

// deliver tries until the endpoint has the event, refuses it for good, or life ends.
func (q *queue) deliver(life context.Context, body []byte) bool {
	for failed := 0; ; {
		err := q.post(life, body)
		switch {
		case err == nil:
			if failed >= q.Threshold {
				q.log.Info("events can be delivered again", "endpoint", q.Name, "host", q.host)
			}
			q.delivered.Inc()
			return true
		case errors.Is(err, errRejected):
			q.log.Error("event rejected", "endpoint", q.Name, "host", q.host, "reason", err)
			q.rejected.Inc()
			return true
		case life.Err() != nil:
			return false
		}
		q.failures.Inc()
		failed++
		if failed < q.Threshold {
			continue
		}
		if failed == q.Threshold {
			q.log.Warn("events cannot be delivered, attempts go on", "endpoint", q.Name, "host", q.host, "attempts", failed, "reason", err)
		}
		t := time.NewTimer(q.Backoff)
		select {
		case <-t.C:
		case <-life.Done():
			t.Stop()
			return false
		}
	}
}

func (q *queue) post(life context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(life, http.MethodPost, q.URL, bytes.NewReader(body))
	if err != nil {
		return errRejected // the error would show the URL; Validate has refused what comes here
	}
	for name, values := range q.Headers {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	req.Header.Set("Content-Type", notifications.EventsMediaType)
	resp, err := q.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL
		}
		return errors.New(strings.ReplaceAll(err.Error(), q.URL, "<url>"))
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10)
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusBadRequest, code == http.StatusGone, code == http.StatusRequestEntityTooLarge,
		code == http.StatusUnsupportedMediaType, code == http.StatusUnprocessableEntity:
		return fmt.Errorf("%w with status %d", errRejected, code)
	default:
		return fmt.Errorf("status %d", code)
	}
}
