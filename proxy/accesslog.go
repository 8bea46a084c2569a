package proxy

import (
	"io"
	"log/slog"
	"net/http"
	"time"

	"sluice/filters/ocidoc"
	"sluice/proxy/observe"
)

// arrives counts the bytes of a request's body, for the access log.
type arrives struct {
	io.ReadCloser
	n int64
}

func (a *arrives) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	a.n += int64(n)
	return n, err
}

// referred is what a request is about in its repository: a tag, a digest, or the digest that an upload is
// said to have. Never the path, which has a sealed token, nor the rest of the query.
func referred(r *http.Request, route observe.Route, ref string) string {
	switch route {
	case observe.RouteManifest:
		return clip(ref)
	case observe.RouteUpload, observe.RouteUploads:
		ref = r.URL.Query().Get("digest")
	}
	if !ocidoc.ValidDigest(ref) {
		return ""
	}
	return ref
}

// logAccess writes the line of one request (`access_log`).
func (p *Proxy) logAccess(seen *watched, r *http.Request, took time.Duration) {
	attrs := make([]slog.Attr, 0, 16)
	attrs = append(attrs,
		slog.String("method", clip(r.Method)), slog.String("route", seen.route.String()), slog.String("repository", seen.repo),
		slog.String("reference", seen.reference), slog.Int("status", seen.status),
		slog.Int64("bytes_in", seen.body.n), slog.Int64("bytes_out", seen.written), slog.Duration("took", took),
		slog.String("identity", clip(seen.identity)), slog.String("remote", r.RemoteAddr), slog.String("user_agent", clip(r.UserAgent())))
	if seen.trace != "" {
		attrs = append(attrs, slog.String("trace_id", seen.trace))
	}
	p.log.LogAttrs(r.Context(), slog.LevelInfo, "request", attrs...)
}
