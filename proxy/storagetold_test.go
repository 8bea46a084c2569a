package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// Storage that fails while a client waits is in the log and counted, also where the client gets an answer without it.
func TestStorageThatFailsIsToldWhateverIsAnswered(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	original, attestation, statement := tree.Digest(), tree.Attestations()[0].Digest, tree.Statements()[0].Digest
	for name, c := range map[string]struct {
		kind, digest string // that cannot be read or deleted
		method, path string
		status       int
	}{
		"the original behind a tag":            {"_documents", original, http.MethodGet, "manifests/1", http.StatusOK},
		"what the original behind a tag has":   {"_documents", attestation, http.MethodGet, "manifests/1", http.StatusOK},
		"what an original has":                 {"_documents", attestation, http.MethodHead, "manifests/" + original, http.StatusNotFound},
		"what an attestation refers to":        {"_blobs", statement, http.MethodHead, "manifests/" + attestation, http.StatusNotFound},
		"whether a blob to be deleted is held": {"_blobs", statement, http.MethodDelete, "blobs/" + statement, http.StatusNotFound},
		"what is held of an upload":            {"_parts", "", http.MethodDelete, "", http.StatusTooManyRequests},
	} {
		t.Run(name, func(t *testing.T) {
			d := proxytest.NewFailingDriver(inmemory.New())
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), storage(d), view(config.ViewOriginal))
			r.push(proxytest.BuildKit, "app", "1", tree)
			path := "/v2/app/" + c.path
			if c.path == "" {
				path = r.request(http.MethodPatch, r.upload("app"), statementOf(1, 10)).want(t, http.StatusAccepted).Header.Get("Location")
			}
			before := r.scrape()["sluice_storage_errors_total"]
			d.Draw(func(what string) proxytest.Kind {
				if strings.Contains(what, "/"+c.kind+"/") && strings.Contains(what, strings.TrimPrefix(c.digest, "sha256:")) {
					return proxytest.FaultError
				}
				return ""
			})
			r.request(c.method, path, nil, acceptAll...).want(t, c.status)
			d.Draw(nil)
			if after := r.scrape()["sluice_storage_errors_total"]; after == before {
				t.Error("it is not counted")
			}
			if !strings.Contains(r.log.String(), "made to fail") {
				t.Errorf("the log does not say it")
			}
		})
	}
}
