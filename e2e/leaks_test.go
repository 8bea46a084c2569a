//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const attestationArtifact = "application/vnd.docker.attestation.manifest.v1+json"

// assertNothingLeaked is invariant I2: it walks the upstream registry's storage, below its API, and
// finds no trace of an attestation, unfinished uploads included.
func assertNothingLeaked(t testing.TB, r *registry) {
	t.Helper()
	for what, files := range findLeaks(t, r) {
		t.Errorf("upstream holds %s: %s", what, strings.Join(files, ", "))
	}
}

// findLeaks returns the files of a registry's storage that belong to attestations, by what they are.
func findLeaks(t testing.TB, r *registry) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(r.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() != "data" {
			return err // only blobs (…/<hex>/data) and uploads (…/_uploads/<uuid>/data) have content
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if what := attestationPart(b); what != "" {
			relative, _ := filepath.Rel(r.root, path)
			found[what] = append(found[what], relative)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return found
}

// attestationPart says which part of an attestation the bytes are, "" for anything else. It shares no code
// with Sluice and is looser than Sluice's own predicate, which would overlook its own mistakes.
func attestationPart(b []byte) string {
	// Also finds the beginning of a statement in an upload that was cut off.
	for _, prefix := range []string{`{"_type":"https://in-toto.io/`, `{"payloadType":"application/vnd.in-toto`} {
		if strings.HasPrefix(string(b), prefix) {
			return "a statement"
		}
	}
	if len(b) > 16<<20 || !strings.HasPrefix(strings.TrimSpace(string(b[:min(len(b), 64)])), "{") {
		return ""
	}
	var d struct {
		Type         string `json:"_type"`
		PayloadType  string
		OS           string
		Architecture string
		ArtifactType string
		Manifests    []descriptor
		Layers       []descriptor
	}
	if json.Unmarshal(b, &d) != nil {
		return ""
	}
	inToto := func(l descriptor) bool { return strings.HasPrefix(l.MediaType, "application/vnd.in-toto") }
	attestation := func(e descriptor) bool {
		return e.ArtifactType == attestationArtifact || e.Annotations["vnd.docker.reference.type"] == "attestation-manifest" ||
			e.Platform != nil && e.Platform.OS == "unknown" && e.Platform.Architecture == "unknown"
	}
	switch {
	case strings.HasPrefix(d.Type, "https://in-toto.io/"), strings.HasPrefix(d.PayloadType, "application/vnd.in-toto"):
		return "a statement"
	case d.OS == "unknown" && d.Architecture == "unknown":
		return "an attestation's config"
	case d.ArtifactType == attestationArtifact, slices.ContainsFunc(d.Layers, inToto):
		return "an attestation manifest"
	case slices.ContainsFunc(d.Manifests, attestation):
		return "an index that lists an attestation"
	}
	return ""
}
