package objects_test

import (
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/internal/objects"
)

type immediate struct{ storagedriver.StorageDriver }

func (immediate) Immediate() bool { return true }

// What a driver says of itself is not hidden by what stands in front of it.
func TestAPatientDriverIsAsImmediateAsTheOneBehindIt(t *testing.T) {
	for d, want := range map[storagedriver.StorageDriver]bool{inmemory.New(): false, immediate{inmemory.New()}: true} {
		if got := (objects.Storage{Driver: objects.NewPatient(d, time.Minute, &objects.Lost{})}).Immediate(); got != want {
			t.Errorf("%T: %t, want %t", d, got, want)
		}
	}
}
