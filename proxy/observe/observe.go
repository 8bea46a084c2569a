// Package observe tells operators what happens: metrics, traces and events.
//
// What there is, with labels and units, is in docs/operability.md; a test holds the two equal.
//
// Names follow Prometheus' conventions: a unit as suffix, _total for counters. The values of every
// label are known at start: they come from the code or from the configuration, never from a request.
// So the number of series has a bound that no client can move, every series is there with 0 before
// anything happened, and counting needs no look-up and no memory.
package observe

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is a registry of its own, joined with the default one when it is served.
type Metrics struct {
	registry      *prometheus.Registry
	requests      requestMetrics
	pushes        pushMetrics
	upstreams     upstreamMetrics
	sweeps        sweepMetrics
	events        *eventMetrics
	taken         *prometheus.CounterVec
	exceptions    *prometheus.CounterVec
	refusals      *prometheus.CounterVec
	streamedBytes prometheus.Counter
	heldBytes     prometheus.Counter
	storageErrors prometheus.Counter
	unclaimed     prometheus.Counter
}

// New makes a set of metrics that nothing has counted in yet.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.requests = newRequestMetrics(m)
	m.pushes = newPushMetrics(m)
	m.upstreams = newUpstreamMetrics(m)
	m.sweeps = newSweepMetrics(m)
	m.events = newEventMetrics(m)
	m.taken = m.counters("sluice_statements_taken_total", "Statements taken out of pushed indexes.", "action", "predicate_type")
	for _, action := range []string{"store", "strip"} {
		for _, t := range append(knownPredicates(), other) {
			m.taken.WithLabelValues(action, t)
		}
	}
	m.exceptions = m.counters("sluice_attestations_upstream_total", "Attestations that are upstream although the rule takes them out.", "reason")
	for _, r := range []string{"pushed_by_tag", "blob_upstream", "storage"} {
		m.exceptions.WithLabelValues(r)
	}
	m.refusals = m.counters("sluice_access_refusals_total", "Requests of clients that were not let in.", "reason")
	for _, r := range []string{Unauthenticated, Denied, Unavailable} {
		m.refusals.WithLabelValues(r)
	}
	m.streamedBytes = m.counter("sluice_streamed_bytes_total", "Bytes of blobs streamed upstream.")
	m.heldBytes = m.counter("sluice_held_bytes_total", "Bytes of blobs put in quarantine.")
	m.storageErrors = m.counter("sluice_storage_errors_total", "Storage calls that failed while a client waited.")
	m.unclaimed = m.counter("sluice_unclaimed_attestations_total", "Attestation manifests that no index ever named and that were kept aside.")
	m.gauges("sluice_build_info", "1, with the version that runs and the Go release it was built with.", "version", "goversion").
		WithLabelValues(version, runtime.Version()).Set(1)
	return m
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	return m.counters(name, help).WithLabelValues()
}

func (m *Metrics) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	return m.gauges(name, help).WithLabelValues()
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

// other stands for everything that is not worth, or not safe, to tell apart.
const other = "other"

// knownPredicates keeps the label's values few: anybody can push any predicate type.
func knownPredicates() []string {
	return []string{
		"https://slsa.dev/provenance/v0.2", "https://slsa.dev/provenance/v1",
		"https://spdx.dev/Document", "https://cyclonedx.org/bom",
	}
}

// Taken counts the statements of one attestation manifest.
func (m *Metrics) Taken(action string, predicateTypes []string) {
	for _, t := range predicateTypes {
		label := other
		for _, known := range knownPredicates() {
			if t == known {
				label = known
			}
		}
		m.taken.WithLabelValues(action, label).Inc()
	}
}

// Exception counts an attestation that went or stays upstream (I2 names the reasons).
func (m *Metrics) Exception(reason string) { m.exceptions.WithLabelValues(reason).Inc() }

// Why a client is not let in.
const (
	Unauthenticated = "unauthenticated" // who it is, is not known: 401
	Denied          = "denied"          // who it is may not do this: 403
	Unavailable     = "unavailable"     // it could not be found out
)

// Refused counts a client that was not let in.
func (m *Metrics) Refused(reason string) { m.refusals.WithLabelValues(reason).Inc() }

// Streamed counts bytes of one blob that went upstream.
func (m *Metrics) Streamed(n int64) { m.streamedBytes.Add(float64(n)) }

// Held counts bytes of one blob put in quarantine.
func (m *Metrics) Held(n int64) { m.heldBytes.Add(float64(n)) }

// StorageError counts a storage call that failed.
func (m *Metrics) StorageError() { m.storageErrors.Inc() }

// Unclaimed counts an attestation manifest that no index named.
func (m *Metrics) Unclaimed() { m.unclaimed.Inc() }

// Handler serves the metrics with those that libraries count in the default registry.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, prometheus.DefaultGatherer}, promhttp.HandlerOpts{})
}
