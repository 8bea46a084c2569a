package proxy

import (
	"context"
	"log/slog"
)

// aboutRepository adds the repository to what is logged, when something is: most requests log nothing, and
// slog.Logger.With would format it for each of them.
type aboutRepository struct {
	slog.Handler
	repo string
}

func (h *aboutRepository) with() slog.Handler {
	return h.Handler.WithAttrs([]slog.Attr{slog.String("repository", h.repo)})
}

func (h *aboutRepository) Handle(ctx context.Context, r slog.Record) error {
	return h.with().Handle(ctx, r)
}

func (h *aboutRepository) WithAttrs(attrs []slog.Attr) slog.Handler { return h.with().WithAttrs(attrs) }

func (h *aboutRepository) WithGroup(name string) slog.Handler { return h.with().WithGroup(name) }
