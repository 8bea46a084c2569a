package main

import (
	"context"
	"log/slog"
	"os"

	"sluice/proxy/config"
)

// onHangup reads the configuration again at each signal until ctx ends, and hands on one that is good. One that
// is not is an entry in the log with all its mistakes. The service manager is told that it begins, and that it has ended if
// nothing is handed on.
func onHangup(ctx context.Context, hangups <-chan os.Signal, file string, load func() (*config.Config, error), changes chan<- *config.Config, notify func(string), log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
		}
		notify(stateReloading)
		cfg := loadAgain(file, load, log)
		if cfg == nil {
			notify(stateReady)
			continue
		}
		select {
		case changes <- cfg:
		case <-ctx.Done():
			return
		}
	}
}

// loadAgain says in the log why there is none.
func loadAgain(file string, load func() (*config.Config, error), log *slog.Logger) *config.Config {
	if file == "" {
		log.Warn("SIGHUP: there is no configuration to read again, since serve runs without --config")
		return nil
	}
	cfg, err := load()
	if err != nil {
		log.Error("configuration not changed", "file", file, "reason", err)
		return nil
	}
	return cfg
}
