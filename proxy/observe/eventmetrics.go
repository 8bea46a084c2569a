package observe

import "github.com/prometheus/client_golang/prometheus"

type eventMetrics struct {
	total   *prometheus.CounterVec
	pending *prometheus.GaugeVec
}

func newEventMetrics(m *Metrics) eventMetrics {
	return eventMetrics{
		total:   m.counters("sluice_events_total", "Events for the endpoints of `notifications`, by the endpoint's name and what became of them.", "endpoint", "result"),
		pending: m.gauges("sluice_events_pending", "Events that wait to be delivered.", "endpoint"),
	}
}
