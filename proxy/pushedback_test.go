package proxy_test

import (
	"fmt"
	"net/http"
	"testing"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// asBuildx is the index that `docker buildx imagetools create` makes of a tag: the images under it, and the attestations
// that it finds among their referrers, listed as BuildKit does (buildx 0.33, util/imagetools/create.go, filterPlatforms).
func (r *rig) asBuildx(repo string, tree *proxytest.Tree) (index []byte, listed []string) {
	r.t.Helper()
	var images, attestations []string
	for _, image := range tree.Images() {
		images = append(images, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"linux"}}`,
			ociManifest, image.Digest, image.Size))
		for _, d := range r.referrers(repo, image.Digest).Manifests {
			if d.ArtifactType != filters.ArtifactTypeAttestation {
				continue
			}
			a := r.request(http.MethodGet, "/v2/"+repo+"/manifests/"+d.Digest, nil, acceptAll...).want(r.t, http.StatusOK)
			attestations = append(attestations, fmt.Sprintf(
				`{"mediaType":%q,"digest":%q,"size":%d,"annotations":{%q:%q,%q:"attestation-manifest"},"platform":{"architecture":"unknown","os":"unknown"}}`,
				ociManifest, d.Digest, len(a.body), filters.AnnotationReferenceDigest, image.Digest, filters.AnnotationReferenceType))
			listed = append(listed, d.Digest)
		}
	}
	return indexOf(append(images, attestations...)...), listed
}

// A tag that imagetools made of another holds the same image, and the attestation that came back as the derived referrer
// is the one that is stored: it is listed once, and one delete of either digest ends both.
func TestAnAttestationThatImagetoolsPushedBackIsOneWithTheFirst(t *testing.T) {
	for _, to := range []config.StoreTo{config.StoreToStorage, config.StoreToRepository, config.StoreToReferrers} {
		for _, form := range forms {
			for _, derived := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/derived=%t", to, form, derived), func(t *testing.T) {
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, Platforms: []string{"linux/amd64"}})
					r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), storeTo(to))
					r.push(proxytest.BuildKit, "app", "1", tree)
					index, listed := r.asBuildx("app", tree)
					r.request(http.MethodPut, "/v2/app/manifests/2", index, "Content-Type", ociIndex).want(t, http.StatusCreated)
					image := tree.Images()[0].Digest
					if got := r.upstreamDigest("app", "2"); got != image {
						t.Errorf("the new tag holds %s, want the image %s", got, image)
					}
					if list := r.referrers("app", image); len(list.Manifests) != 1 {
						t.Errorf("referrers: %v, want one", list)
					}
					digest := tree.Attestations()[0].Digest
					if derived {
						digest = listed[0]
					}
					r.request(http.MethodDelete, "/v2/app/manifests/"+digest, nil).want(t, http.StatusAccepted)
					if list := r.referrers("app", image); len(list.Manifests) != 0 {
						t.Errorf("after the delete: %v", list)
					}
					for _, gone := range []string{"manifests/" + tree.Attestations()[0].Digest, "manifests/" + listed[0], "blobs/" + tree.Statements()[0].Digest} {
						if to == config.StoreToReferrers && gone[:5] == "blobs" {
							continue // it is upstream's, which collects its garbage itself
						}
						r.request(http.MethodGet, "/v2/app/"+gone, nil, acceptAll...).want(t, http.StatusNotFound)
					}
					if repo := inRegistry[to]; repo != "" {
						if list := r.listedUpstream(repo, image); len(list.Manifests) != 0 {
							t.Errorf("after the delete %s lists %v", repo, list)
						}
					}
				})
			}
		}
	}
}
