package main

import (
	"context"
	"log/slog"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy"
	"sluice/proxy/config"
)

func run(ctx context.Context, cfg *config.Config, logger *slog.Logger, driver storagedriver.StorageDriver) error {
	p, err := proxy.New(proxy.Options{Config: cfg, Logger: logger, Storage: driver, Version: version()}) //nolint:contextcheck // what New opens outlives a canceled ctx: Run drains first
	if err != nil {
		return err
	}
	return p.Run(ctx)
}
