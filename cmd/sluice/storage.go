package main

import (
	"fmt"
	"log/slog"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
)

// openStorage is the only place that knows the storage drivers.
func openStorage(s config.Storage, log *slog.Logger) (storagedriver.StorageDriver, error) {
	if s.Inmemory != nil {
		return inmemory.New(), nil
	}
	root := s.Filesystem.RootDirectory
	if err := privateFolder(root, log); err != nil {
		return nil, fmt.Errorf("data folder: %w (choose another with --data)", err)
	}
	parameters := map[string]any{"rootdirectory": root}
	if n := s.Filesystem.MaxThreads; n > 0 {
		parameters["maxthreads"] = n
	}
	d, err := filesystem.FromParameters(parameters)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", root, err)
	}
	return d, nil
}
