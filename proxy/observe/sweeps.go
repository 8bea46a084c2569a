package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Place is where Sluice keeps what is not upstream.
type Place uint8

const (
	Quarantine Place = iota // what waits, and what `strip` took out
	Stored                  // what `store` keeps
	placeCount
)

func (p Place) String() string { return [placeCount]string{"quarantine", "stored"}[p] }

type sweepMetrics struct {
	bytes, objects [placeCount]prometheus.Gauge
	runs           [placeCount][2]prometheus.Counter
	removed        [placeCount]prometheus.Counter
	removedBytes   [placeCount]prometheus.Counter
	took           [placeCount]prometheus.Gauge
	succeeded      [placeCount]prometheus.Gauge
}

// What is kept is measured by the sweep, which looks at all of it anyway; counting in and out would
// be wrong after a restart, and with replicas.
func newSweepMetrics(m *Metrics) (s sweepMetrics) {
	bytes := m.gauges("sluice_storage_bytes", "Bytes in the storage when it was last swept; quarantine is what waits or is kept for `retention`, stored is what `store` keeps.", "place")
	objects := m.gauges("sluice_storage_objects", "Objects in the storage when it was last swept.", "place")
	runs := m.counters("sluice_sweeps_total", "Sweeps of the storage.", "place", "result")
	removed := m.counters("sluice_swept_objects_total", "Objects that sweeps removed.", "place")
	removedBytes := m.counters("sluice_swept_bytes_total", "Bytes that sweeps removed.", "place")
	took := m.gauges("sluice_sweep_last_duration_seconds", "How long the last sweep took.", "place")
	succeeded := m.gauges("sluice_sweep_last_success_timestamp_seconds", "When a sweep last ended without an error, in Unix time; 0 before the first one.", "place")
	for p := range placeCount {
		name := p.String()
		s.bytes[p], s.objects[p] = bytes.WithLabelValues(name), objects.WithLabelValues(name)
		s.runs[p] = [2]prometheus.Counter{runs.WithLabelValues(name, "succeeded"), runs.WithLabelValues(name, "failed")}
		s.removed[p], s.removedBytes[p] = removed.WithLabelValues(name), removedBytes.WithLabelValues(name)
		s.took[p], s.succeeded[p] = took.WithLabelValues(name), succeeded.WithLabelValues(name)
	}
	return s
}

// A Sweep is what one did.
type Sweep struct {
	Objects int
	Bytes   int64
	Took    time.Duration
	At      time.Time
	Failed  bool
}

// Swept counts a sweep.
func (m *Metrics) Swept(p Place, s Sweep) {
	v := &m.sweeps
	v.removed[p].Add(float64(s.Objects))
	v.removedBytes[p].Add(float64(s.Bytes))
	v.took[p].Set(s.Took.Seconds())
	if s.Failed {
		v.runs[p][1].Inc()
		return
	}
	v.runs[p][0].Inc()
	v.succeeded[p].Set(float64(s.At.UnixMilli()) / 1000)
}

// Kept says how much there is.
func (m *Metrics) Kept(p Place, objects int, bytes int64) {
	m.sweeps.objects[p].Set(float64(objects))
	m.sweeps.bytes[p].Set(float64(bytes))
}
