//go:build !include_gcs

package main

import (
	"context"
	"errors"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/config"
)

const hasGCS = false

func openGCS(context.Context, config.GCS) (storagedriver.StorageDriver, error) {
	return nil, errors.ErrUnsupported // inThisBuild comes first
}
