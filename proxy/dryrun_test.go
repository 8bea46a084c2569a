package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func dryRun(c *config.Config) { c.DryRun = true }

// I4: a dry run sends what it receives, and the log says what it would have been.
func TestADryRunChangesNothingAndSaysWhatItWould(t *testing.T) {
	for _, client := range proxytest.Clients() {
		if !client.Indexes {
			continue
		}
		t.Run(client.Name, func(t *testing.T) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(dryRun))
			pushed := r.push(client.Push, "app", "1", tree).Pushed
			if got := r.upstreamDigest("app", "1"); got != pushed.Digest() {
				t.Errorf("upstream has %s, want %s", got, pushed.Digest())
			}
			proxytest.AssertComplete(t, r.upstream)
			if kept := append(r.files("/attestations", ""), r.files("/quarantine", "/app/")...); len(kept) > 0 {
				t.Errorf("a dry run keeps %v", kept)
			}
			r.server.Close() // nothing is logged any more
			if log := r.log.String(); !strings.Contains(log, "dry run: would be cut") || !strings.Contains(log, tree.Attestations()[0].Digest) {
				t.Errorf("the log does not say what would be taken:\n%s", log)
			}
		})
	}
}

// What Sluice would refuse is upstream's to take or not.
func TestADryRunRefusesNothing(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{NoValidation: true}), with(dryRun))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	attestation := tree.Attestations()[0]
	for name, body := range map[string][]byte{
		"children that are nowhere": tree.Root.Bytes(),
		"a duplicate key":           []byte(`{"schemaVersion":2,"mediaType":"` + ociIndex + `","manifests":[],"annotations":{"a":"1","a":"2"}}`),
		"nothing but attestations":  indexOf(entryOf(ociManifest, attestation.Digest, int(attestation.Size))),
		"no JSON":                   []byte(`hello`),
	} {
		for _, ref := range []string{"x", ocidoc.DigestOf(body)} {
			directly := r.direct(http.MethodPut, "/v2/direct/manifests/"+ref, body, "Content-Type", ociIndex)
			a := r.request(http.MethodPut, "/v2/app/manifests/"+ref, body, "Content-Type", ociIndex)
			if a.StatusCode != directly.StatusCode {
				t.Errorf("%s: directly %s, in a dry run %s %s", name, directly.Status, a.Status, a.body)
			}
		}
	}
}

// OCI-Subject promises that the referrer can be found. Where upstream has no referrers API and a dry
// run writes no tag for it, the promise is not made, and the client writes the tag as ever.
func TestADryRunPromisesNoReferrer(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), with(dryRun))
		image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
		r.push(proxytest.BuildKit, "app", "1", image)
		r.request(http.MethodPut, put(r.upload("app"), filters.EmptyDigest), []byte("{}")).want(t, http.StatusCreated)
		m := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"text/note","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2}],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
			ociManifest, filters.EmptyDigest, filters.EmptyDigest, ociManifest, image.Root.Digest, image.Root.Size))
		put := func(to func(string, string, []byte, ...string) *answer) *answer {
			return to(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(m), m, "Content-Type", ociManifest).want(t, http.StatusCreated)
		}
		got, want := put(r.request).Header.Get("OCI-Subject"), put(r.direct).Header.Get("OCI-Subject")
		if got != want {
			t.Errorf("OCI-Subject %q, upstream says %q", got, want)
		}
		r.direct(http.MethodGet, "/v2/app/manifests/"+filters.FallbackTag(image.Root.Digest), nil, acceptAll...).want(t, http.StatusNotFound)
	})
}
