package main

import (
	"context"
	"log/slog"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/observe"
)

// tracesTime is how long the end waits for a collector.
const tracesTime = 5 * time.Second

func run(ctx context.Context, cfg *config.Config, logger *slog.Logger, driver storagedriver.StorageDriver, changes <-chan *config.Config, serving func()) error {
	traces, err := observe.NewTraces(ctx, version(), logger)
	if err != nil {
		return err
	}
	if traces != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesTime)
			defer cancel()
			if err := traces.Close(ctx); err != nil {
				logger.Warn("the last traces were not exported", "reason", err)
			}
		}()
	}
	p, err := proxy.New(proxy.Options{Config: cfg, Logger: logger, Storage: driver, Version: version(), Traces: traces, Changes: changes, Serving: serving}) //nolint:contextcheck // what New opens outlives a canceled ctx: Run drains first
	if err != nil {
		return err
	}
	return p.Run(ctx)
}
