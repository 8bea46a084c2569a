package observe

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

type eventMetrics struct {
	total    *prometheus.CounterVec
	failures *prometheus.CounterVec
	pending  *prometheus.GaugeVec

	mu     sync.Mutex
	queues map[string]*queue // by endpoint
}

func newEventMetrics(m *Metrics) *eventMetrics {
	return &eventMetrics{
		queues:   map[string]*queue{},
		total:    m.counters("sluice_events_total", "Events for the endpoints of notifications, by what became of them.", "endpoint", "result"),
		failures: m.counters("sluice_event_failures_total", "Attempts to deliver an event that failed and were repeated.", "endpoint"),
		pending:  m.gauges("sluice_events_pending", "Events that wait to be delivered.", "endpoint"),
	}
}
