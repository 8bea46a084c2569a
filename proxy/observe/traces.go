package observe

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"

	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Traces are spans of clients' requests and of the requests to registries that they lead to.
type Traces struct {
	provider  *sdktrace.TracerProvider
	tracer    trace.Tracer
	propagate propagation.TextMapPropagator // nil: OTEL_PROPAGATORS says none
}

// NewTraces is nil, and nothing at all is wrapped or measured, unless OTEL_TRACES_EXPORTER names an
// exporter: autoexport by itself would send to localhost. All else is read from OpenTelemetry's own variables
// by its SDK. Its errors go to log, process-wide, since it has no other way to tell them.
//
// Of what clients send only the traceparent is read, and baggage never goes anywhere: it is anybody's text.
func NewTraces(ctx context.Context, version string, log *slog.Logger) (*Traces, error) {
	exporter := os.Getenv("OTEL_TRACES_EXPORTER")
	if exporter == "" || exporter == "none" || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	e, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("traces: OTEL_TRACES_EXPORTER=%s: %w (known are otlp, console and none)", exporter, err)
	}
	res, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "sluice"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithFromEnv()) // the last one wins
	if err != nil {
		return nil, fmt.Errorf("traces: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces are not exported", "reason", err) }))
	t := &Traces{provider: sdktrace.NewTracerProvider(sdktrace.WithBatcher(e), sdktrace.WithResource(res))}
	t.tracer = t.provider.Tracer("sluice", trace.WithInstrumentationVersion(version))
	names := strings.Split(os.Getenv("OTEL_PROPAGATORS"), ",")
	if names[0] == "" || slices.Contains(names, "tracecontext") {
		t.propagate = propagation.TraceContext{}
	}
	return t, nil
}

// Close exports what waits until ctx ends.
func (t *Traces) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// Arrived begins the span of a client's request, below the client's own if it sent one.
func (t *Traces) Arrived(r *http.Request) (*http.Request, trace.Span) {
	ctx := r.Context()
	if t.propagate != nil {
		ctx = t.propagate.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	ctx, span := t.tracer.Start(ctx, "request", trace.WithSpanKind(trace.SpanKindServer))
	return r.WithContext(ctx), span
}

// A Request is what a span says of a client's request. Never the path, which may hold a sealed token, nor
// the query.
type Request struct {
	Method, Repository, Reference, Action, Identity string
	Route                                           Route
	Status                                          int
	BytesOut                                        int64
	Result                                          string // of a push
}

// Left ends the span of a client's request.
func (t *Traces) Left(span trace.Span, q Request) {
	method := methodNames()[methodIndex(q.Method)]
	span.SetName(method + " " + q.Route.String())
	span.SetAttributes(attribute.String("http.request.method", method), attribute.String("http.route", q.Route.String()),
		attribute.Int64("http.response.body.size", q.BytesOut))
	if q.Status != 0 {
		span.SetAttributes(attribute.Int("http.response.status_code", q.Status))
	}
	for key, v := range map[string]string{
		"sluice.repository": q.Repository, "sluice.reference": q.Reference, "sluice.action": q.Action, "sluice.result": q.Result, "enduser.id": q.Identity,
	} {
		if v != "" {
			span.SetAttributes(attribute.String(key, v))
		}
	}
	if q.Status == 0 || q.Status >= 500 {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// Sent begins the span of a request to a registry, if a client's request led to it. The registry is told of the
// trace only where own says that it is the configured one, and not a token service or where a redirect leads.
func (t *Traces) Sent(req *http.Request, operation string, own bool) (*http.Request, func(status int, err error)) {
	if !trace.SpanContextFromContext(req.Context()).IsValid() {
		return req, func(int, error) {}
	}
	ctx, span := t.tracer.Start(req.Context(), req.Method+" upstream "+operation, trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("http.request.method", req.Method), attribute.String("server.address", req.URL.Host), attribute.String("sluice.operation", operation)))
	req = req.WithContext(ctx)
	if own && t.propagate != nil {
		t.propagate.Inject(ctx, propagation.HeaderCarrier(req.Header)) // the header is this attempt's own
	}
	return req, func(status int, err error) {
		if err != nil {
			span.SetStatus(codes.Error, "no answer") // its text may hold a URL
		} else {
			span.SetAttributes(attribute.Int("http.response.status_code", status))
			if status >= 500 {
				span.SetStatus(codes.Error, "")
			}
		}
		span.End()
	}
}
