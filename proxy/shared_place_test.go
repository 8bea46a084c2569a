package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// onePlace is the setting by which the attestations of all repositories go to one.
func onePlace() setting {
	return with(func(c *config.Config) { c.Store.To, c.Store.Repository = config.StoreToRepository, "attestations" })
}

// I9: who knows no more of a statement than its digest does not get it by naming it in an attestation of their own, although
// it is in the place where their statements go too.
func TestAStatementOfAnotherInTheSamePlaceCannotBeClaimed(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), onePlace())
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	r.push(proxytest.BuildKit, "app", "1", tree)
	own := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}, Seed: 7})
	r.push(proxytest.BuildKit, "other", "1", own)
	statement, image := tree.Statements()[0], own.Images()[0]

	r.request(http.MethodPut, put(r.upload("other"), filters.EmptyDigest), []byte("{}")).want(t, http.StatusCreated)
	claim := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.in-toto+json","digest":%q,"size":%d}]}`,
		ocidoc.MediaTypeOCIManifest, filters.EmptyDigest, statement.Digest, statement.Size)
	r.request(http.MethodPut, "/v2/other/manifests/"+ocidoc.DigestOf(claim), claim, "Content-Type", ocidoc.MediaTypeOCIManifest).want(t, http.StatusCreated)
	index := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"amd64"}},{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"unknown","architecture":"unknown"},"annotations":{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":%q}}]}`,
		ocidoc.MediaTypeOCIIndex, ocidoc.MediaTypeOCIManifest, image.Digest, image.Size, ocidoc.MediaTypeOCIManifest, ocidoc.DigestOf(claim), len(claim), image.Digest)
	r.request(http.MethodPut, "/v2/other/manifests/claimed", index, "Content-Type", ocidoc.MediaTypeOCIIndex).want(t, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
	r.request(http.MethodGet, "/v2/other/blobs/"+statement.Digest, nil).want(t, http.StatusNotFound)

	// Who has it pushes it, and shares the place.
	r.push(proxytest.BuildKit, "other", "2", tree)
	r.request(http.MethodGet, "/v2/other/blobs/"+statement.Digest, nil).want(t, http.StatusOK)
}

// One build that is pushed to two repositories has one attestation in the place that they share: what one of them deletes
// the other keeps.
func TestAnAttestationInASharedPlaceIsDeletedWithTheLast(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), onePlace())
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	image := tree.Images()[0].Digest
	for _, repo := range []string{"dev", "prod"} {
		r.push(proxytest.BuildKit, repo, "1", tree)
	}
	att := r.referrers("dev", image).Manifests[0].Digest
	there := func(want int) {
		t.Helper()
		r.direct(http.MethodHead, "/v2/attestations/manifests/"+att, nil, acceptAll...).want(t, want)
	}
	listed := func(repo string, want int) {
		t.Helper()
		if got := len(r.referrers(repo, image).Manifests); got != want {
			t.Errorf("%d referrers are listed in %s, want %d", got, repo, want)
		}
	}
	r.request(http.MethodDelete, "/v2/dev/manifests/"+att, nil).want(t, http.StatusAccepted)
	there(http.StatusOK)
	listed("dev", 0)
	listed("prod", 1)
	r.request(http.MethodDelete, "/v2/prod/manifests/"+att, nil).want(t, http.StatusAccepted)
	there(http.StatusNotFound)
	listed("prod", 0)
}

// An attestation without a subject is the same for an image and for what that was converted to, which two repositories may
// have in the place that they share: under the tags of two images.
func TestALegacyAttestationInASharedPlaceIsDeletedWithTheLast(t *testing.T) {
	f := &refusing{text: `"subject"`, status: http.StatusMethodNotAllowed, code: "UNSUPPORTED"}
	converted := with(func(c *config.Config) {
		c.Rules = []config.Rule{{Repositories: []string{"dev"}, MediaTypes: filters.MediaTypesDocker}}
	})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: f.wrap, Delete: true}), onePlace(), converted)
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	image := map[string]string{}
	for _, repo := range []string{"dev", "prod"} {
		r.push(proxytest.BuildKit, repo, "1", tree)
		image[repo] = r.upstreamDigest(repo, "1")
	}
	remove := func(repo string) {
		t.Helper()
		r.request(http.MethodDelete, "/v2/"+repo+"/manifests/"+r.referrers(repo, image[repo]).Manifests[0].Digest, nil).want(t, http.StatusAccepted)
	}
	listed := func(repo string, want int) {
		t.Helper()
		if here, there := len(r.referrers(repo, image[repo]).Manifests), len(r.listedUpstream("attestations", image[repo]).Manifests); here != want || there != want {
			t.Errorf("%d referrers are listed in %s, and %d in the place, want %d", here, repo, there, want)
		}
		proxytest.AssertComplete(t, r.upstream)
	}
	remove("dev")
	listed("dev", 0)
	listed("prod", 1)
	remove("prod")
	listed("prod", 0)
	r.direct(http.MethodHead, "/v2/attestations/manifests/"+tree.Attestations()[0].Digest, nil, acceptAll...).want(t, http.StatusNotFound)
}

// The place may be a repository of images too.
func TestAnAttestationInThePlaceItselfIsDeletedWithTheLast(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), with(func(c *config.Config) { c.Store.To, c.Store.Repository = config.StoreToRepository, "kept" }))
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	for _, repo := range []string{"app", "kept"} {
		r.push(proxytest.BuildKit, repo, "1", tree)
	}
	r.request(http.MethodDelete, "/v2/kept/manifests/"+tree.Attestations()[0].Digest, nil).want(t, http.StatusAccepted)
	if got := len(r.referrers("app", tree.Images()[0].Digest).Manifests); got != 1 {
		t.Errorf("%d referrers are listed in app, want 1", got)
	}
	proxytest.AssertComplete(t, r.upstream)
}

// One build that was just pushed to two repositories has its attestation in the place of each: what one deletes is gone there.
func TestAnAttestationInItsOwnPlaceIsDeletedWhereAnotherRepositoryHasItElsewhere(t *testing.T) {
	for in, to := range map[string]func(*config.Config){
		"dev":              func(c *config.Config) { c.Store.To = config.StoreToReferrers },
		"dev-attestations": func(c *config.Config) { c.Store.To = config.StoreToRepository },
	} {
		t.Run(in, func(t *testing.T) {
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Delete: true}), with(to))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact, Platforms: []string{"linux/amd64"}})
			attestation := tree.Attestations()[0].Digest
			for _, repo := range []string{"dev", "prod"} {
				r.push(proxytest.BuildKit, repo, "1", tree)
			}
			r.direct(http.MethodGet, "/v2/"+in+"/manifests/"+attestation, nil, acceptAll...).want(t, http.StatusOK)
			r.request(http.MethodDelete, "/v2/dev/manifests/"+attestation, nil).want(t, http.StatusAccepted)
			r.direct(http.MethodGet, "/v2/"+in+"/manifests/"+attestation, nil, acceptAll...).want(t, http.StatusNotFound)
			r.request(http.MethodGet, "/v2/dev/manifests/"+attestation, nil, acceptAll...).want(t, http.StatusNotFound)
			r.request(http.MethodGet, "/v2/prod/manifests/"+attestation, nil, acceptAll...).want(t, http.StatusOK)
		})
	}
}
