package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Upstream counts what is asked of one registry; it is the Observer of package upstream. The label is
// the registry's host as it is configured.
type Upstream struct {
	requests map[string]*[classCount]prometheus.Counter
	duration map[string]prometheus.Observer
	errors   map[string]prometheus.Counter
	retries  prometheus.Counter
}

type upstreamMetrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	errors   *prometheus.CounterVec
	retries  *prometheus.CounterVec
}

// What is asked of a registry, and why there is no good answer, in the words of package upstream.
func operations() []string { return []string{"read", "write", "stream", "token"} }

func errorKinds() []string {
	return []string{"unreachable", "dns", "tls", "timeout", "credentials", "host", "body", "canceled", "unauthorized", "throttled", "server_error", other}
}

func newUpstreamMetrics(m *Metrics) upstreamMetrics {
	return upstreamMetrics{
		requests: m.counters("sluice_upstream_requests_total", "Requests that a registry answered, each attempt of a repeated one, by the class of the status.", "upstream", "operation", "code"),
		duration: m.histograms("sluice_upstream_request_duration_seconds", "Time from a request to the header of the registry's answer; of operation stream, with the client's time to send the body.",
			[]float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300}, "upstream", "operation"),
		errors:  m.counters("sluice_upstream_errors_total", "Requests that ended without an answer, or with one that says that something is wrong, after all attempts.", "upstream", "kind"),
		retries: m.counters("sluice_upstream_retries_total", "Attempts after the first.", "upstream"),
	}
}

// Upstream gives the counters of one registry.
func (m *Metrics) Upstream(host string) *Upstream {
	v := &m.upstreams
	u := &Upstream{
		requests: map[string]*[classCount]prometheus.Counter{}, duration: map[string]prometheus.Observer{}, errors: map[string]prometheus.Counter{},
		retries: v.retries.WithLabelValues(host),
	}
	for _, operation := range operations() {
		u.requests[operation] = &[classCount]prometheus.Counter{}
		for i, class := range classNames() {
			if i >= 2 {
				u.requests[operation][i] = v.requests.WithLabelValues(host, operation, class)
			}
		}
		u.duration[operation] = v.duration.WithLabelValues(host, operation)
	}
	for _, kind := range errorKinds() {
		u.errors[kind] = v.errors.WithLabelValues(host, kind)
	}
	return u
}

// Answered counts one attempt that got an answer.
func (u *Upstream) Answered(operation string, status int, took time.Duration) {
	classes, ok := u.requests[operation]
	if !ok {
		return
	}
	if c := classes[classIndex(status)]; c != nil {
		c.Inc()
	}
	u.duration[operation].Observe(took.Seconds())
}

// Failed counts a request that has no good answer.
func (u *Upstream) Failed(kind string) {
	c, ok := u.errors[kind]
	if !ok {
		c = u.errors[other]
	}
	c.Inc()
}

// Retried counts one more attempt.
func (u *Upstream) Retried() { u.retries.Inc() }
