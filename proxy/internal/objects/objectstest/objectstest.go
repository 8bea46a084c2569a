// Package objectstest is what the tests of packages that keep objects in a storage driver share.
package objectstest

import (
	"context"
	"errors"
	"os"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/folder"
)

// Backends runs a test over each driver that needs no service, since nothing may depend on which one it is.
func Backends(t *testing.T, test func(t *testing.T, d storagedriver.StorageDriver)) {
	t.Helper()
	t.Run("inmemory", func(t *testing.T) { test(t, inmemory.New()) })
	t.Run("filesystem", func(t *testing.T) { test(t, Filesystem(t)) })
	t.Run("folder", func(t *testing.T) { test(t, folder.New(Dir(t), 0)) })
}

// Filesystem is distribution's driver.
func Filesystem(t testing.TB) storagedriver.StorageDriver {
	return filesystem.New(filesystem.DriverParameters{RootDirectory: Dir(t), MaxThreads: 25})
}

// Dir is on a file system in memory where the machine has one: drivers sync every file that they write.
func Dir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "sluice-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Paths is every object below a folder.
func Paths(t testing.TB, d storagedriver.StorageDriver, from string) []string {
	t.Helper()
	var paths []string
	err := d.Walk(context.Background(), from, func(fi storagedriver.FileInfo) error {
		if !fi.IsDir() {
			paths = append(paths, fi.Path())
		}
		return nil
	})
	var none storagedriver.PathNotFoundError
	if err != nil && !errors.As(err, &none) {
		t.Fatal(err)
	}
	return paths
}
