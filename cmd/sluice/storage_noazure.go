//go:build !include_azure

package main

import (
	"context"
	"errors"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/config"
)

const hasAzure = false

func openAzure(context.Context, config.Azure) (storagedriver.StorageDriver, error) {
	return nil, errors.ErrUnsupported // inThisBuild comes first
}
