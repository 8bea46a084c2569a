//go:build include_gcs

package main

import (
	"context"
	"fmt"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	gcsdriver "github.com/distribution/distribution/v3/registry/storage/driver/gcs"

	"sluice/proxy/config"
)

const hasGCS = true

func openGCS(ctx context.Context, s config.GCS) (storagedriver.StorageDriver, error) {
	p := parameters{"bucket": s.Bucket}
	p.text("keyfile", s.KeyFile)
	p.text("rootdirectory", s.RootDirectory)
	p.text("useragent", s.UserAgent)
	p.number("chunksize", int64(s.ChunkSize))
	if s.MaxConcurrency > 0 {
		p["maxconcurrency"] = s.MaxConcurrency
	}
	d, err := gcsdriver.FromParameters(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", s.Bucket, err)
	}
	return d, nil
}
