package upstream

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/sirupsen/logrus"
)

// bridgeLogrus sends what distribution logs as a warning or worse to logger. Distribution logs through
// logrus' standard logger and gives no other way from outside: its own context package is internal.
func bridgeLogrus(logger *slog.Logger) {
	std := logrus.StandardLogger()
	std.SetOutput(io.Discard)
	std.SetLevel(logrus.WarnLevel)
	hooks := logrus.LevelHooks{}
	hooks.Add(slogHook{logger})
	std.ReplaceHooks(hooks)
}

type slogHook struct{ logger *slog.Logger }

func (slogHook) Levels() []logrus.Level {
	return []logrus.Level{logrus.PanicLevel, logrus.FatalLevel, logrus.ErrorLevel, logrus.WarnLevel}
}

// Fire passes on the message and what it is about. Not the request's URI: an upload's holds its state.
func (h slogHook) Fire(e *logrus.Entry) error {
	level := slog.LevelWarn
	switch {
	case e.Message == "response completed with error":
		// Every HEAD of a blob that is not there yet. The answer itself says it to whoever asked.
		level = slog.LevelDebug
	case e.Level < logrus.WarnLevel:
		level = slog.LevelError
	}
	ctx := e.Context
	if ctx == nil {
		ctx = context.Background()
	}
	if !h.logger.Enabled(ctx, level) {
		return nil
	}
	attrs := []slog.Attr{slog.String("message", e.Message)}
	for _, f := range [][2]string{{"vars.name", "repository"}, {"err.code", "code"}, {"err.message", "error"}, {"error", "error"}} {
		if v, ok := e.Data[f[0]]; ok {
			attrs = append(attrs, slog.String(f[1], fmt.Sprint(v)))
		}
	}
	h.logger.LogAttrs(ctx, level, "embedded registry", attrs...)
	return nil
}
