package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// I1, I7: a registry that loses a blob which it had a moment ago, as garbage collection does, and takes manifests without a
// look at what they refer to. Whoever is told that the blob is here does not send it, so that Sluice must.
func TestWhatUpstreamHasLostIsSentAgainWhereOnlySluiceHasIt(t *testing.T) {
	statement := []byte(`{"_type":"https://in-toto.io/Statement/v1","predicate":{}}`)
	put201 := func(r *rig, t *testing.T, b []byte) {
		r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(b)), b).want(t, http.StatusCreated)
	}
	head := func(header ...string) func(r *rig, t *testing.T, b []byte) {
		return func(r *rig, t *testing.T, b []byte) {
			if r.request(http.MethodHead, "/v2/app/blobs/"+ocidoc.DigestOf(b), nil, header...).StatusCode != http.StatusOK {
				put201(r, t, b)
			}
		}
	}
	for name, c := range map[string]struct {
		blob  []byte
		again func(r *rig, t *testing.T, b []byte) // how a client makes sure that the blob is there
	}{
		"a look":                    {statement, head()},
		"a look for a statement":    {statement, head("Accept", "application/vnd.in-toto+json")},
		"the blob itself":           {statement, put201},
		"a look for the empty blob": {[]byte("{}"), head()},
		"the empty blob itself":     {[]byte("{}"), put201},
		"the blob in chunks": {statement, func(r *rig, t *testing.T, b []byte) {
			next := r.request(http.MethodPatch, r.upload("app"), b).want(t, http.StatusAccepted).Header.Get("Location")
			r.request(http.MethodPut, put(next, ocidoc.DigestOf(b)), nil).want(t, http.StatusCreated)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, Wrap: careless}))
			push := func(tag string) {
				manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"text/plain","digest":%q,"size":%d}],"annotations":{"tag":%q}}`,
					ocidoc.MediaTypeOCIManifest, filters.EmptyDigest, ocidoc.DigestOf(statement), len(statement), tag)
				r.request(http.MethodPut, "/v2/app/manifests/"+tag, manifest, "Content-Type", ocidoc.MediaTypeOCIManifest).want(t, http.StatusCreated)
			}
			for _, b := range [][]byte{statement, []byte("{}")} {
				put201(r, t, b)
			}
			push("1")
			where := "/v2/app/blobs/" + ocidoc.DigestOf(c.blob)
			r.request(http.MethodHead, where, nil).want(t, http.StatusOK) // and Sluice knows that upstream has it
			r.direct(http.MethodDelete, where, nil).want(t, http.StatusAccepted)
			r.direct(http.MethodHead, where, nil).want(t, http.StatusNotFound)

			c.again(r, t, c.blob)
			push("2")
			r.direct(http.MethodHead, where, nil).want(t, http.StatusOK)
		})
	}
}

// careless takes every manifest, and looks for nothing that it refers to.
func careless(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !is(http.MethodPut, "/manifests/")(r) {
			next.ServeHTTP(w, r)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusCreated)
	})
}

// The same for an attestation that upstream has lost, which an earlier configuration held.
func TestAnAttestationThatUpstreamHasLostIsSentAgainWhereOnlySluiceHasIt(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{NoValidation: true, Delete: true})
	shared := storage(inmemory.New())
	old, next := newRig(t, up, shared), newRig(t, up, shared, with(dryRun))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	for _, m := range tree.Images() {
		for _, b := range m.Blobs() {
			send(t, old, "app", b.Bytes())
		}
		old.request(http.MethodPut, "/v2/app/manifests/"+m.Digest, m.Bytes(), "Content-Type", m.MediaType).want(t, http.StatusCreated)
	}
	pushHalf(t, old, "app", "", tree)
	for _, m := range tree.Attestations() {
		where := "/v2/app/manifests/" + m.Digest
		next.request(http.MethodPut, where, m.Bytes(), "Content-Type", m.MediaType).want(t, http.StatusCreated)
		next.direct(http.MethodHead, where, nil, acceptAll...).want(t, http.StatusOK)
		next.direct(http.MethodDelete, where, nil).want(t, http.StatusAccepted)
		next.request(http.MethodHead, where, nil, acceptAll...).want(t, http.StatusOK)
	}
	next.request(http.MethodPut, "/v2/app/manifests/1", tree.Root.Bytes(), "Content-Type", tree.Root.MediaType).want(t, http.StatusCreated)
	proxytest.AssertComplete(t, up)
}
