package observe

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A Route is one of the registry API's, as a label: there are as many as there are constants.
type Route uint8

const (
	RouteOther Route = iota // no route took the path
	RouteBase
	RouteCatalog
	RouteManifest
	RouteTags
	RouteBlob
	RouteUploads // where uploads begin
	RouteUpload  // one upload
	RouteReferrers
	routeCount
)

// String is the label's value, distribution's name of the route.
func (r Route) String() string {
	return [routeCount]string{other, "base", "catalog", "manifest", "tags", "blob", "blob-upload", "blob-upload-chunk", "referrers"}[r]
}

// The methods that are told apart; any other text that a client sends is "other".
func methodNames() []string {
	return []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete, other}
}

const methodCount = 7

func methodIndex(method string) int {
	switch method {
	case http.MethodGet:
		return 0
	case http.MethodHead:
		return 1
	case http.MethodPut:
		return 2
	case http.MethodPost:
		return 3
	case http.MethodPatch:
		return 4
	case http.MethodDelete:
		return 5
	}
	return methodCount - 1
}

// classNames are the classes of status codes; 0xx is an exchange that ended without one.
func classNames() []string { return []string{"none", "1xx", "2xx", "3xx", "4xx", "5xx"} }

const classCount = 6

func classIndex(status int) int {
	if status < 100 || status > 599 {
		return 0
	}
	return status / 100
}

type requestMetrics struct {
	total    [routeCount][methodCount][classCount]prometheus.Counter
	duration [routeCount]prometheus.Observer
	inFlight prometheus.Gauge
	answered prometheus.Counter
}

func newRequestMetrics(m *Metrics) (r requestMetrics) {
	total := m.counters("sluice_requests_total", "Requests of clients that were answered or given up, by the class of the status.", "route", "method", "code")
	duration := m.histograms("sluice_request_duration_seconds", "Time from a client's request header to the end of the answer, bodies included.",
		[]float64{0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800}, "route")
	for route := range routeCount {
		r.duration[route] = duration.WithLabelValues(route.String())
		for i, method := range methodNames() {
			for j, class := range classNames() {
				if class == "1xx" {
					continue // never an answer
				}
				r.total[route][i][j] = total.WithLabelValues(route.String(), method, class)
			}
		}
	}
	r.inFlight = m.gauge("sluice_requests_in_flight", "Requests of clients that are being answered.")
	r.answered = m.counter("sluice_response_bytes_total", "Bytes of bodies sent to clients.")
	return r
}

// Arrived counts a request that is being answered.
func (m *Metrics) Arrived() { m.requests.inFlight.Inc() }

// Left is said last of a request, after all else of it was counted: while nothing is in flight, no count is outstanding.
func (m *Metrics) Left() { m.requests.inFlight.Dec() }

// Answered counts a request that is over. A status of 0 is one that was cut.
func (m *Metrics) Answered(route Route, method string, status int, took time.Duration, written int64) {
	r := &m.requests
	r.answered.Add(float64(written))
	if c := r.total[route][methodIndex(method)][classIndex(status)]; c != nil {
		c.Inc()
	}
	r.duration[route].Observe(took.Seconds())
}

// A PushResult is what became of one pushed manifest.
type PushResult uint8

const (
	PushFailed    PushResult = iota // 429, 5xx: upstream's or Sluice's trouble
	PushRefused                     // any other 4xx
	PushAborted                     // no answer: the client went away
	PushForwarded                   // upstream as it was received
	PushRewritten                   // upstream without what was taken out
	PushHeld                        // an attestation that waits for its index, or an artifact about one that was taken out
	pushResults
)

func (r PushResult) String() string {
	return [pushResults]string{"failed", "refused", "aborted", "forwarded", "rewritten", "held"}[r]
}

// PushEnded is the result of a push without a success.
func PushEnded(status int) PushResult {
	switch {
	case status == 0:
		return PushAborted
	case status == http.StatusTooManyRequests || status >= 500:
		return PushFailed
	}
	return PushRefused
}

type pushMetrics struct {
	total [3][2][pushResults]prometheus.Counter
}

func actionIndex(action string) int {
	switch action {
	case "store":
		return 0
	case "strip":
		return 1
	}
	return 2
}

func newPushMetrics(m *Metrics) (p pushMetrics) {
	total := m.counters("sluice_pushes_total", "Manifests and indexes that clients pushed, by the action of the rule, by what they were pushed under (tag or digest) and by what became of them.", "action", "reference", "result")
	for i, action := range []string{"store", "strip", "forward"} {
		for j, reference := range []string{"tag", "digest"} {
			for result := range pushResults {
				p.total[i][j][result] = total.WithLabelValues(action, reference, result.String())
			}
		}
	}
	return p
}

// Pushed counts one pushed manifest.
func (m *Metrics) Pushed(action string, byDigest bool, result PushResult) {
	reference := 0
	if byDigest {
		reference = 1
	}
	m.pushes.total[actionIndex(action)][reference][result].Inc()
}
