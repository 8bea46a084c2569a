package main

import (
	"context"
	"fmt"
	"log/slog"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/folder"
)

// openStorage is the only place that knows the storage drivers, with the files storage_*.go; inThisBuild comes first. It
// reaches out for nothing yet: that object storage answers is found when the proxy reads its format.
func openStorage(ctx context.Context, s config.Storage, log *slog.Logger) (d storagedriver.StorageDriver, err error) {
	switch {
	case s.Inmemory != nil:
		return inmemory.New(), nil
	case s.S3 != nil:
		d, err = openS3(ctx, *s.S3)
	case s.GCS != nil:
		d, err = openGCS(ctx, *s.GCS)
	case s.Azure != nil:
		d, err = openAzure(ctx, *s.Azure)
	default:
		return openFolder(*s.Filesystem, log)
	}
	if err != nil {
		return nil, fmt.Errorf("storage.%s: %w", s.Driver(), err)
	}
	return d, nil
}

// inThisBuild refuses a driver that was left out. The drivers of Google and Azure link two cloud SDKs that nobody
// else needs.
func inThisBuild(c *config.Config) error {
	s := c.Storage
	var tag string
	switch {
	case s.GCS != nil && !hasGCS:
		tag = "include_gcs"
	case s.Azure != nil && !hasAzure:
		tag = "include_azure"
	default:
		return nil
	}
	return c.Mistake("storage."+s.Driver(), "the driver is not in this build; make one that has it with: go build -tags "+tag+" ./cmd/sluice")
}

func openFolder(s config.Filesystem, log *slog.Logger) (storagedriver.StorageDriver, error) {
	root := s.RootDirectory
	if err := privateFolder(root, log); err != nil {
		return nil, fmt.Errorf("data folder: %w (choose another with --data)", err)
	}
	return folder.New(root, s.MaxThreads), nil
}

// parameters leaves out what is not set, so that the driver's own default holds.
type parameters map[string]any

func (p parameters) text(key, value string) {
	if value != "" {
		p[key] = value
	}
}

func (p parameters) number(key string, value int64) {
	if value != 0 {
		p[key] = value
	}
}
