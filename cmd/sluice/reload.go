package main

import (
	"context"
	"log/slog"
	"os"

	"sluice/proxy/config"
)

// onHangup reads the configuration again at each signal until ctx ends, and hands on one that is good. One that
// is not is an entry in the log with all its mistakes.
func onHangup(ctx context.Context, hangups <-chan os.Signal, file string, load func() (*config.Config, error), changes chan<- *config.Config, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		if file == "" {
			log.Warn("SIGHUP: there is no configuration to read again, since serve runs without --config")
			continue
		}
		cfg, err := load()
		if err != nil {
			log.Error("configuration not changed", "file", file, "reason", err)
			continue
		}
		select {
		case changes <- cfg:
		case <-ctx.Done():
			return
		}
	}
}
