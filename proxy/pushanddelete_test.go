package proxy_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// One build's attestation is deleted while another's is pushed. They share the empty config, as all do that are listed as
// referrers, and what the second one was told is kept stays, wherever the delete comes in between.
func TestAPushKeepsWhatADeleteMeanwhileShares(t *testing.T) {
	for _, form := range []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact} {
		t.Run(string(form), func(t *testing.T) {
			options := proxytest.SyntheticOptions{Form: form, Platforms: []string{"linux/amd64"}}
			old := proxytest.Synthetic(options)
			options.Build = 1
			next := proxytest.Synthetic(options)
			up, n := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), 0
			for more := true; more; {
				n++
				shared := inmemory.New()
				deleting := newRig(t, up, action(filters.Store), storage(atOnce{shared}))
				deleting.push(proxytest.BuildKit, "app", "1", old)
				if err := shared.Delete(context.Background(), "/quarantine"); err != nil { // days pass
					t.Fatal(err)
				}
				during := proxytest.Interrupt(shared, n, func() {
					deleting.request(http.MethodDelete, "/v2/app/manifests/"+old.Attestations()[0].Digest, nil).want(t, http.StatusAccepted)
				})
				pushing := newRig(t, up, action(filters.Store), storage(atOnce{during}))
				pushing.push(proxytest.BuildKit, "app", "2", next)
				more = during.Done()
				kept := strings.Join(pushing.files("/attestations/app", "/_blobs/"), "\n")
				for _, b := range append(digestsIn(next.Attestations()[0]), filters.EmptyDigest) {
					if !strings.Contains(kept, strings.TrimPrefix(b, "sha256:")) {
						t.Errorf("%s is not kept: %s", b, kept)
					}
				}
				if t.Failed() {
					t.Fatalf("deleted before call %d of the storage", n)
				}
				pushing.server.Close()
				deleting.server.Close()
			}
			if n < 10 {
				t.Errorf("a push makes %d calls of the storage", n)
			}
		})
	}
}

func digestsIn(m *proxytest.Manifest) (digests []string) {
	for _, b := range m.Blobs() {
		digests = append(digests, b.Digest)
	}
	return digests
}
