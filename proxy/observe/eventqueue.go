package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/notifications"
	"github.com/prometheus/client_golang/prometheus"
)

// queue is what waits for one endpoint. Configurations that follow each other use the same one as long as the
// endpoint is the same, so that nothing is lost, or overtaken, between them.
type queue struct {
	Endpoint
	host      string
	client    *http.Client
	log       *slog.Logger
	waiting   chan []byte
	life      context.Context
	stop      context.CancelFunc // gives up what waits
	ended     chan struct{}      // closed when nothing is delivered any more
	pending   prometheus.Gauge
	failures  prometheus.Counter
	delivered prometheus.Counter
	rejected  prometheus.Counter
	dropped   prometheus.Counter
	forget    func()

	mu      sync.Mutex
	users   int
	closed  bool
	left    int           // that wait or are being delivered
	changed chan struct{} // closed, and replaced, when one of the three is another
}

// queue is that of an endpoint, with one more user.
func (v *eventMetrics) queue(ep Endpoint, log *slog.Logger) *queue {
	v.mu.Lock()
	defer v.mu.Unlock()
	if q := v.queues[ep.Name]; q != nil && reflect.DeepEqual(q.Endpoint, ep) && q.take() {
		return q
	}
	host := ""
	if u, err := url.Parse(ep.URL); err == nil {
		host = u.Host
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns = 1
	q := &queue{
		Endpoint: ep, host: host, log: log, waiting: make(chan []byte, maxPending), ended: make(chan struct{}),
		client: &http.Client{Transport: transport, Timeout: ep.Timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the headers are for this host only
		}},
		pending: v.pending.WithLabelValues(ep.Name), failures: v.failures.WithLabelValues(ep.Name),
		delivered: v.total.WithLabelValues(ep.Name, "delivered"), rejected: v.total.WithLabelValues(ep.Name, "rejected"), dropped: v.total.WithLabelValues(ep.Name, "dropped"),
		users: 1, changed: make(chan struct{}),
	}
	q.life, q.stop = context.WithCancel(context.Background())
	q.forget = func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		if v.queues[ep.Name] == q {
			delete(v.queues, ep.Name)
		}
	}
	v.queues[ep.Name] = q
	go q.run()
	return q
}

// take is false for a queue that has ended. One that only delivers its rest is as good as any.
func (q *queue) take() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.users++
	q.tell()
	return true
}

// tell wakes who waits for a change. Called with the lock held.
func (q *queue) tell() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// put is false when too many wait.
func (q *queue) put(body []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case q.waiting <- body:
		q.left++
		q.pending.Inc()
		return true
	default:
		return false
	}
}

// done takes one off what is left.
func (q *queue) done() {
	q.pending.Dec()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left--
	q.tell()
}

// drain waits until nothing is left, or ctx ends.
func (q *queue) drain(ctx context.Context) {
	q.await(ctx, func() bool { return q.left == 0 })
}

// await waits until something is true, which is asked with the lock held, or ctx ends.
func (q *queue) await(ctx context.Context, ready func() bool) {
	for {
		q.mu.Lock()
		ok, changed := ready(), q.changed
		q.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// release takes a user away. Without any the queue ends, when it is empty or ctx ends; until then it may get a new one.
func (q *queue) release(ctx context.Context) {
	q.mu.Lock()
	q.users--
	q.mu.Unlock()
	q.await(ctx, func() bool { return q.left == 0 || q.users > 0 })
	q.mu.Lock()
	if q.users > 0 || q.closed {
		q.mu.Unlock()
		return
	}
	q.closed = true
	q.tell()
	q.mu.Unlock()
	q.forget()
	close(q.waiting) // nobody puts anything here any more: there is no user
	q.stop()
	<-q.ended
	q.client.CloseIdleConnections()
}

func (q *queue) run() {
	defer close(q.ended)
	lost := 0
	for body := range q.waiting {
		if q.life.Err() != nil || !q.deliver(q.life, body) {
			lost++
			q.dropped.Inc()
		}
		q.done()
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
