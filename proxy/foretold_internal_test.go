package proxy

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/proxy/proxytest"
)

// In every capture of a push, and in whatever order the blobs come, the digest of a legacy attestation manifest follows from them.
func TestAnAttestationManifestIsForetoldFromItsBlobs(t *testing.T) {
	trees := []*proxytest.Tree{
		proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}),
		proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true, Statements: 2, StatementSize: 10000}),
	}
	for _, scenario := range []string{"b-multi-max-sbom", "f-matrix"} {
		trees = append(trees, proxytest.AllDocuments(t, scenario)...)
	}
	seen := 0
	for _, tree := range trees {
		f := newForetold()
		var all []*proxytest.Blob
		for _, m := range tree.Attestations() {
			all = append(all, m.Blobs()...)
		}
		rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for i, m := range tree.Attestations() {
			if f.manifest("app", m.Digest) {
				t.Errorf("%s: %d is foretold from nothing", tree.Scenario, i)
			}
		}
		for _, b := range all {
			f.held("app", b.Digest, b.Bytes())
		}
		for _, m := range tree.Attestations() {
			if m.Subject != nil {
				continue
			}
			seen++
			if !f.manifest("app", m.Digest) {
				t.Errorf("%s: %s is not foretold", tree.Scenario, m.Name)
			}
			if f.manifest("other", m.Digest) {
				t.Errorf("%s: foretold in another repository", tree.Scenario)
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d attestation manifests were looked at", seen)
	}
}

func TestWhatIsForetoldIsBounded(t *testing.T) {
	f := newForetold()
	for i := range 2 * maxForetold {
		f.held("app", fmt.Sprint(i), []byte(`{"_type":"https://in-toto.io/Statement/v1","predicateType":"x"}`))
		f.held("app", fmt.Sprint("c", i), fmt.Appendf(nil, `{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%064x"]}}`, i))
	}
	if len(f.statements) > maxForetold || len(f.configs) > maxWaitingConfigs || len(f.manifests) > maxForetold {
		t.Errorf("%d statements, %d configs, %d manifests", len(f.statements), len(f.configs), len(f.manifests))
	}
}
