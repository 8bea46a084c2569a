package proxy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// Whoever pushes chooses what an attestation or a signature says of itself, and how many there are. The list of all of them is in
// memory, and read by clients, as a whole.
func TestAListOfReferrersIsBounded(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), action(act))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact})
			r.push(proxytest.BuildKit, "app", "1", tree)
			subject := tree.Attestations()[0].Digest
			first := bundleOf(tree.Attestations()[0])
			first.push(r.request, "app").want(t, http.StatusCreated)
			for i := range 8 {
				m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"a/%s","config":{"mediaType":%q,"size":2,"digest":%q},"layers":[{"mediaType":%q,"size":2,"digest":%q}],`+
					`"subject":{"mediaType":%q,"size":2,"digest":%q},"annotations":{"n":"%d","a":"%s"}}`,
					ociManifest, bytes.Repeat([]byte("t"), 100<<10), emptyConfig, filters.EmptyDigest, emptyConfig, filters.EmptyDigest, ociManifest, subject, i, bytes.Repeat([]byte("x"), 1<<20))
				r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(m), m, "Content-Type", ociManifest).want(t, http.StatusCreated)
			}
			a := r.request(http.MethodGet, "/v2/app/referrers/"+subject, nil).want(t, http.StatusOK)
			if most := 4<<20 + 64<<10; len(a.body) > most {
				t.Errorf("the list has %d bytes, want at most %d", len(a.body), most)
			}
			list := r.referrers("app", subject)
			if with := bytes.Count(a.body, []byte(`"a":"xxx`)); len(list.Manifests) != 9 || with < 2 || with > 4 {
				t.Errorf("%d are listed, %d with their annotations", len(list.Manifests), with)
			}
			first.check(t, r.request, "app")
		})
	}
}
