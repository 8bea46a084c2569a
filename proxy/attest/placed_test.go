package attest

import (
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

func TestASharedPlaceIsKnown(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		s := newStore(d)
		placed := record("provenance")
		placed.Repository, placed.Placed = "attestations", sha("placed")
		elsewhere, another, nowhere, converted := placed, placed, placed, placed
		elsewhere.Repository = "other-attestations"
		another.Placed = sha("another")
		nowhere.Repository, nowhere.Placed = "", ""
		converted.Subject = sha("image, converted")
		for repo, r := range map[string]Record{"elsewhere": elsewhere, "another": another, "nowhere": nowhere} {
			must(t, s.PutRecord(t.Context(), repo, r))
		}
		for _, next := range []struct {
			repo  string
			r     Record
			other string // that is found once repo has r
			alike bool
		}{
			{"dev", placed, "", false},
			{"team/converted", converted, "team/converted", false},
			{"team/prod", placed, "team/prod", true},
		} {
			must(t, s.PutRecord(t.Context(), next.repo, next.r))
			if other, alike, err := s.AlsoPlaced(t.Context(), "dev", placed); other != next.other || alike != next.alike || err != nil {
				t.Errorf("with %s: found %q, %v, %v; want %q, %v", next.repo, other, alike, err, next.other, next.alike)
			}
		}
	})
}
