// Command scanner is the smallest SBOM scanner that BuildKit accepts as a generator: it describes an
// image by one made-up package. The tests build it into a scratch image, because the default
// generator (docker.io/docker/buildkit-syft-scanner) would need a registry on the internet.
//
// The protocol is BuildKit's docs/attestations/sbom-protocol.md: BUILDKIT_SCAN_SOURCE is the root to
// look at, and every file left in BUILDKIT_SCAN_DESTINATION is an in-toto statement.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := scan(os.Getenv("BUILDKIT_SCAN_SOURCE"), os.Getenv("BUILDKIT_SCAN_DESTINATION")); err != nil {
		fmt.Fprintln(os.Stderr, "scanner:", err)
		os.Exit(1)
	}
}

func scan(source, destination string) error {
	if destination == "" {
		return fmt.Errorf("BUILDKIT_SCAN_DESTINATION is not set: run by BuildKit as an SBOM generator only")
	}
	statement, err := json.Marshal(map[string]any{
		"_type":         "https://in-toto.io/Statement/v0.1",
		"predicateType": "https://spdx.dev/Document",
		"predicate": map[string]any{
			"spdxVersion":       "SPDX-2.3",
			"dataLicense":       "CC0-1.0",
			"SPDXID":            "SPDXRef-DOCUMENT",
			"name":              source,
			"documentNamespace": "https://example.test/sluice-e2e",
			"creationInfo":      map[string]any{"creators": []string{"Tool: sluice-e2e"}, "created": "2026-01-01T00:00:00Z"},
			"packages": []map[string]any{{
				"name": "payload", "SPDXID": "SPDXRef-payload", "downloadLocation": "NOASSERTION",
			}},
		},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(destination, filepath.Base(source)+".spdx.json"), statement, 0o644)
}
