// Package observe counts what happens. The names follow Prometheus conventions: a unit as suffix,
// _total for counters; labels have few values, never a repository or a digest.
package observe

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is a registry of its own, joined with the default one when it is served.
type Metrics struct {
	registry      *prometheus.Registry
	taken         *prometheus.CounterVec
	exceptions    *prometheus.CounterVec
	streamedBytes prometheus.Counter
	heldBytes     prometheus.Counter
	storageErrors prometheus.Counter
	unclaimed     prometheus.Counter
}

// New makes a set of metrics that nothing has counted in yet.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		taken: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_statements_taken_total", Help: "Statements taken out of pushed indexes.",
		}, []string{"action", "predicate_type"}),
		exceptions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_attestations_upstream_total", Help: "Attestations that are upstream although the rule takes them out, by reason: pushed_by_tag, blob_upstream.",
		}, []string{"reason"}),
		streamedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_streamed_bytes_total", Help: "Bytes of blobs streamed upstream.",
		}),
		heldBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_held_bytes_total", Help: "Bytes of blobs put in quarantine.",
		}),
		storageErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_storage_errors_total", Help: "Storage calls that failed while a client waited.",
		}),
		unclaimed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_unclaimed_attestations_total", Help: "Attestation manifests that no index ever named and that were kept aside.",
		}),
	}
	m.registry.MustRegister(m.taken, m.exceptions, m.streamedBytes, m.heldBytes, m.storageErrors, m.unclaimed)
	return m
}

// knownPredicates keeps the label's values few: anybody can push any predicate type.
var knownPredicates = map[string]bool{
	"https://slsa.dev/provenance/v0.2": true, "https://slsa.dev/provenance/v1": true,
	"https://spdx.dev/Document": true, "https://cyclonedx.org/bom": true,
}

// Taken counts the statements of one attestation manifest.
func (m *Metrics) Taken(action string, predicateTypes []string) {
	for _, t := range predicateTypes {
		if !knownPredicates[t] {
			t = "other"
		}
		m.taken.WithLabelValues(action, t).Inc()
	}
}

// Exception counts an attestation that went or stays upstream (I2 names the reasons).
func (m *Metrics) Exception(reason string) { m.exceptions.WithLabelValues(reason).Inc() }

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
