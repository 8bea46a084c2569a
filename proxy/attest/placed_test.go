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
		elsewhere, another, nowhere := placed, placed, placed
		elsewhere.Repository = "other-attestations"
		another.Placed = sha("another")
		nowhere.Repository, nowhere.Placed = "", ""
		for repo, r := range map[string]Record{"dev": placed, "elsewhere": elsewhere, "another": another, "nowhere": nowhere} {
			must(t, s.PutRecord(t.Context(), repo, r))
		}
		if other, err := s.AlsoPlaced(t.Context(), "dev", placed); other != "" || err != nil {
			t.Errorf("found %q, %v; nobody else has it", other, err)
		}
		must(t, s.PutRecord(t.Context(), "team/prod", placed))
		if other, err := s.AlsoPlaced(t.Context(), "dev", placed); other != "team/prod" || err != nil {
			t.Errorf("found %q, %v; want team/prod", other, err)
		}
	})
}
