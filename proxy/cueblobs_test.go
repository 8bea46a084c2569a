package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// CUE's client (cuelabs.dev/go/oci/ociregistry/ociclient, writer.go) sends Content-Range with each PUT: that of the whole blob,
// of the rest behind chunks of 64 KiB, and of nothing, which ends before it begins.
func TestBlobsArriveAsCueSendsThem(t *testing.T) {
	const chunk = 64 << 10
	layer := bytes.Repeat([]byte("layer "), 40_000)
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v0.1","predicate":"` + strings.Repeat("x", 3*chunk) + `"}`)
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, act := range []filters.Action{filters.Store, filters.Strip, filters.Forward} {
			r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), action(act))
			for name, blob := range map[string][]byte{"a layer": layer, "a statement": statement} {
				for _, c := range []struct {
					name    string
					patched int // bytes in chunks, before the PUT
				}{{"in one PUT", 0}, {"in chunks and the rest", 2 * chunk}, {"in chunks and nothing", len(blob)}} {
					t.Run(fmt.Sprint(act, " ", name, " ", c.name), func(t *testing.T) {
						blob := append([]byte(nil), blob...)
						copy(blob[len(blob)-9:], c.name) // another one, so that it is sent again
						location, at := r.upload("app"), 0
						for ; at < c.patched; at += min(chunk, c.patched-at) {
							part := blob[at : at+min(chunk, c.patched-at)]
							a := r.request(http.MethodPatch, location, part, "Content-Range", fmt.Sprintf("%d-%d", at, at+len(part)-1)).want(t, http.StatusAccepted)
							location = a.Header.Get("Location")
						}
						digest := ocidoc.DigestOf(blob)
						a := r.request(http.MethodPut, put(location, digest), blob[at:],
							"Content-Type", "application/octet-stream", "Content-Range", fmt.Sprintf("%d-%d", at, len(blob)-1)).want(t, http.StatusCreated)
						if a.Header.Get("Location") == "" { // it looks for one
							t.Error("no Location")
						}
						if got := r.request(http.MethodGet, "/v2/app/blobs/"+digest, nil).want(t, http.StatusOK); !bytes.Equal(got.body, blob) {
							t.Errorf("%d bytes are read back, not the %d that were sent", len(got.body), len(blob))
						}
						there := r.direct(http.MethodHead, "/v2/app/blobs/"+digest, nil).StatusCode == http.StatusOK
						if want := name == "a layer" || act == filters.Forward; there != want {
							t.Errorf("in the registry: %t, want %t", there, want)
						}
					})
				}
			}
		}
	})
}
