package objects_test

import (
	"context"
	"errors"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/internal/contain"
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

// broken is a driver with a bug.
type broken struct{ storagedriver.StorageDriver }

func (broken) GetContent(context.Context, string) ([]byte, error)           { panic("GetContent") }
func (broken) Stat(context.Context, string) (storagedriver.FileInfo, error) { panic("Stat") }

// Whatever a driver panics with, the next call is made as if nothing had happened.
func TestAPanicOfADriverEndsTheCallAndNothingElse(t *testing.T) {
	for name, d := range map[string]storagedriver.StorageDriver{
		"immediate": immediate{broken{inmemory.New()}}, "not immediate": broken{inmemory.New()},
	} {
		t.Run(name, func(t *testing.T) {
			p := objects.NewPatient(d, time.Minute, &objects.Lost{})
			for range 3 {
				var bug *contain.Bug
				if _, err := p.GetContent(t.Context(), "/a"); !errors.As(err, &bug) || bug.Value != "GetContent" {
					t.Errorf("GetContent: %v", err)
				}
				if _, err := p.Stat(t.Context(), "/a"); !errors.As(err, &bug) || bug.Value != "Stat" {
					t.Errorf("Stat: %v", err)
				}
				if err := p.PutContent(t.Context(), "/a", []byte("a")); err != nil {
					t.Errorf("PutContent: %v", err)
				}
			}
		})
	}
}
