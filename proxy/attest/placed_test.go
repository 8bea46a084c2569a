package attest

import (
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"sluice/proxy/internal/objects/objectstest"
)

// onePlace is where all repositories store but one.
func onePlace(repo string) string {
	if repo == "own" {
		return "own"
	}
	return "attestations"
}

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
			if other, alike, err := s.AlsoPlaced(t.Context(), "dev", placed, onePlace); other != next.other || alike != next.alike || err != nil {
				t.Errorf("with %s: found %q, %v, %v; want %q, %v", next.repo, other, alike, err, next.other, next.alike)
			}
		}
	})
}

// Its push writes the record last, and relies before that on what it found in the place. One that has written none after a
// day did not come to its end.
func TestAPushUnderWayCountsInASharedPlace(t *testing.T) {
	objectstest.Backends(t, func(t *testing.T, d storagedriver.StorageDriver) {
		placed := record("provenance")
		placed.Repository, placed.Placed, placed.Derived = "attestations", sha("placed"), sha("placed")
		body := []byte(manifestOf(placed))
		for _, next := range []struct{ repo, other string }{{"dev", ""}, {"own", ""}, {"prod", "prod"}} {
			must(t, newStore(d).PutDocument(t.Context(), next.repo, placed.Attestation, "x/attestation", body))
			other, alike, err := newStore(d).AlsoPlaced(t.Context(), "dev", placed, onePlace)
			if other != next.other || alike != (next.other != "") || err != nil {
				t.Errorf("pushed to %s: found %q, %v, %v; want %q", next.repo, other, alike, err, next.other)
			}
		}
		if other, _, err := storeAfter(d, 2).AlsoPlaced(t.Context(), "dev", placed, onePlace); other != "" || err != nil {
			t.Errorf("after two days: found %q, %v", other, err)
		}
	})
}
