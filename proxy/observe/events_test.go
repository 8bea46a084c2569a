package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/notifications"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

func value(t *testing.T, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}

// hook is a webhook that answers as it is told and remembers the ids it took.
type hook struct {
	*httptest.Server
	status atomic.Int64
	calls  atomic.Int64
	got    chan string
	header http.Header
}

func newHook(t *testing.T, status int) *hook {
	t.Helper()
	h := &hook{got: make(chan string, 2*maxPending)}
	h.status.Store(int64(status))
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.calls.Add(1)
		status := int(h.status.Load())
		if status == http.StatusOK {
			var got envelope
			b, _ := io.ReadAll(r.Body)
			if err := json.Unmarshal(b, &got); err != nil || len(got.Events) != 1 {
				t.Errorf("body %q: %v", b, err)
			} else {
				h.header = r.Header
				h.got <- got.Events[0].ID
			}
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(h.Close)
	return h
}

func eventsTo(t *testing.T, m *Metrics, log io.Writer, url string) *Events {
	t.Helper()
	e, err := m.NewEvents([]Endpoint{{
		Name: "hook", URL: url, Headers: http.Header{"authorization": {"Bearer planted-secret"}},
		Timeout: 5 * time.Second, Threshold: 3, Backoff: time.Millisecond,
	}}, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		e.Close(ended)
	})
	return e
}

func TestEventsArriveInOrderAfterAnEndpointWasAway(t *testing.T) {
	m, h := New("test"), newHook(t, http.StatusServiceUnavailable)
	var log bytes.Buffer
	e := eventsTo(t, m, &log, h.URL+"/planted-secret?token=planted-secret")
	for _, id := range []string{"a", "b", "c"} {
		e.Send(notifications.Event{ID: id})
	}
	for h.calls.Load() < 5 {
		time.Sleep(time.Millisecond)
	}
	h.status.Store(http.StatusOK)
	for _, want := range []string{"a", "b", "c"} {
		select {
		case got := <-h.got:
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	e.Close(ctx)
	if h.header.Get("Authorization") != "Bearer planted-secret" || h.header.Get("Content-Type") != notifications.EventsMediaType {
		t.Errorf("header %v", h.header)
	}
	if v := value(t, m.events.total.WithLabelValues("hook", "delivered")); v != 3 {
		t.Errorf("%v delivered", v)
	}
	if v := value(t, m.events.failures.WithLabelValues("hook")); v < 5 {
		t.Errorf("%v failures", v)
	}
	if v := value(t, m.events.pending.WithLabelValues("hook")); v != 0 {
		t.Errorf("%v pending", v)
	}
	if text := log.String(); strings.Contains(text, "planted-secret") || !strings.Contains(text, "cannot be delivered") || !strings.Contains(text, "again") {
		t.Errorf("log: %s", text)
	}
}

func TestAnEndpointThatIsAwayCostsABoundedNumberOfEvents(t *testing.T) {
	m := New("test")
	h := newHook(t, http.StatusOK)
	h.Close() // nobody is there any more
	var log bytes.Buffer
	e := eventsTo(t, m, &log, h.URL+"/planted-secret")
	for range maxPending + 100 {
		e.Send(notifications.Event{ID: "x"}) // must not wait
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	e.Close(ctx)
	e.Send(notifications.Event{ID: "late"})
	if v := value(t, m.events.total.WithLabelValues("hook", "dropped")); v != maxPending+101 {
		t.Errorf("%v dropped, want %d", v, maxPending+101)
	}
	if strings.Contains(log.String(), "planted-secret") {
		t.Error("the log shows the endpoint's URL")
	}
}

// Configurations follow each other faster than an endpoint comes back: what waits for one that is still, or again,
// configured is not lost with the configuration that it came from.
func TestWhatWaitsIsHandedOnToWhoeverHasTheSameEndpoint(t *testing.T) {
	m, h := New("test"), newHook(t, http.StatusServiceUnavailable)
	first := eventsTo(t, m, io.Discard, h.URL)
	first.Send(notifications.Event{ID: "a"})
	impatient, cancel := context.WithCancel(t.Context())
	closed := make(chan struct{})
	go func() {
		first.Close(impatient)
		close(closed)
	}()
	second := eventsTo(t, m, io.Discard, h.URL)
	cancel()
	<-closed
	second.Send(notifications.Event{ID: "b"})
	h.status.Store(http.StatusOK)
	for _, want := range []string{"a", "b"} {
		select {
		case got := <-h.got:
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is lost", want)
		}
	}
	if v := value(t, m.events.total.WithLabelValues("hook", "dropped")); v != 0 {
		t.Errorf("%v dropped", v)
	}
	second.Close(t.Context())
	if len(m.events.queues) > 0 {
		t.Error("the endpoint is still known when nobody delivers to it")
	}
}

func TestClosingDeliversWhatWaits(t *testing.T) {
	m, h := New("test"), newHook(t, http.StatusOK)
	e := eventsTo(t, m, io.Discard, h.URL)
	for range 200 {
		e.Send(notifications.Event{ID: "x"})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	e.Close(ctx)
	if len(h.got) != 200 {
		t.Errorf("%d of 200 events arrived", len(h.got))
	}
}

func TestAnEventThatIsRefusedForGoodDoesNotBlockOthers(t *testing.T) {
	for status, result := range map[int]string{http.StatusBadRequest: "rejected", http.StatusFound: "dropped"} {
		m, h := New("test"), newHook(t, status)
		e := eventsTo(t, m, io.Discard, h.URL)
		e.Send(notifications.Event{ID: "x"})
		for h.calls.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if result == "dropped" {
			cancel() // it is tried until then
		}
		e.Close(ctx)
		cancel()
		if v := value(t, m.events.total.WithLabelValues("hook", result)); v != 1 {
			t.Errorf("%d: %v %s", status, v, result)
		}
	}
}
