package proxy_test

import (
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"sluice/proxy/config"
	"sluice/proxy/observe"
	"sluice/proxy/proxytest"
)

// collect is an OTLP collector, and the environment that names it.
func collect(t *testing.T) (got func() []*spans.Span, raw func() string) {
	t.Helper()
	var mu sync.Mutex
	var all []*spans.Span
	var text strings.Builder
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var q collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(b, &q); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		mu.Lock()
		defer mu.Unlock()
		text.Write(b)
		for _, rs := range q.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				all = append(all, ss.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	return func() []*spans.Span { mu.Lock(); defer mu.Unlock(); return all }, func() string { mu.Lock(); defer mu.Unlock(); return text.String() }
}

func attribute(s *spans.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

func TestATraceLeadsFromTheClientToTheRegistry(t *testing.T) {
	got, raw := collect(t)
	var mu sync.Mutex
	seen := map[string]bool{} // trace ids that the registry was told
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			if p := strings.Split(r.Header.Get("Traceparent"), "-"); len(p) == 4 {
				seen[p[1]] = true
			}
			if r.Header.Get("Baggage") != "" {
				t.Error("baggage went upstream")
			}
			mu.Unlock()
			next.ServeHTTP(w, r)
		})
	}})
	traces, err := observe.NewTraces(t.Context(), "test", slog.New(slog.DiscardHandler))
	if err != nil || traces == nil {
		t.Fatal(traces, err)
	}
	r := newRig(t, up, with(func(c *config.Config) { c.AccessLog = true }), traced(traces))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r.push(proxytest.BuildKit, "app", "1", tree)
	const id = "0af7651916cd43dd8448eb211c80319c"
	r.request(http.MethodGet, "/v2/app/manifests/1?planted=planted", nil, append(acceptAll, "Traceparent", "00-"+id+"-b7ad6b7169203331-01", "Baggage", "a=planted")...).want(t, 200)
	r.server.Close()
	if err := traces.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var server, client, pushed *spans.Span
	for _, s := range got() {
		if hex.EncodeToString(s.TraceId) == id {
			if s.Kind == spans.Span_SPAN_KIND_SERVER {
				server = s
			} else {
				client = s
			}
		}
		if s.Name == "PUT manifest" && attribute(s, "sluice.reference") == "1" {
			pushed = s
		}
	}
	if server == nil || client == nil || pushed == nil {
		t.Fatalf("spans: %v", got())
	}
	if string(client.ParentSpanId) != string(server.SpanId) || hex.EncodeToString(server.ParentSpanId) != "b7ad6b7169203331" {
		t.Error("the spans are not below each other")
	}
	if server.Name != "GET manifest" || attribute(server, "sluice.repository") != "app" || attribute(server, "http.route") != "manifest" {
		t.Errorf("server span %v", server)
	}
	if attribute(pushed, "sluice.action") != "store" || attribute(pushed, "sluice.result") != "rewritten" {
		t.Errorf("push %v", pushed)
	}
	if !seen[id] {
		t.Error("the registry was not told of the trace")
	}
	for _, secret := range []string{"planted", "blobs/uploads/"} {
		if strings.Contains(raw(), secret) {
			t.Errorf("%s is in the traces", secret)
		}
	}
	if !strings.Contains(r.log.String(), "trace_id="+id) {
		t.Error("the access log has no trace_id")
	}
}

func traced(traces *observe.Traces) setting { return func(r *rig) { r.traces = traces } }

func TestTracesAreOffUnlessAnExporterIsNamed(t *testing.T) {
	t.Setenv("OTEL_SDK_DISABLED", "")
	for _, exporter := range []string{"", "none"} {
		t.Setenv("OTEL_TRACES_EXPORTER", exporter)
		if traces, err := observe.NewTraces(t.Context(), "test", slog.New(slog.DiscardHandler)); traces != nil || err != nil {
			t.Errorf("%q: %v, %v", exporter, traces, err)
		}
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "nonsense")
	if _, err := observe.NewTraces(t.Context(), "test", slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "OTEL_TRACES_EXPORTER=nonsense") {
		t.Errorf("nonsense: %v", err)
	}
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	traces, err := observe.NewTraces(t.Context(), "test", slog.New(slog.DiscardHandler))
	if err != nil || traces == nil {
		t.Fatal(traces, err)
	}
	_ = traces.Close(t.Context())
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if traces, _ := observe.NewTraces(t.Context(), "test", slog.New(slog.DiscardHandler)); traces != nil {
		t.Error("on although OTEL_SDK_DISABLED is true")
	}
}
