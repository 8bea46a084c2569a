package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// What is left when a rule that converted images is changed or taken back.

// The rule is taken back: what clients do not send again, since they are told that it exists, is sent
// as it was pushed.
func TestAfterTheRuleIsTakenBackImagesGoUpstreamAsTheyWerePushed(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, act := range []filters.Action{filters.Strip, filters.Store} {
			shared, up := inmemory.New(), newUpstream(t, proxytest.UpstreamOptions{Delete: true})
			tree, plain := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}), proxytest.Synthetic(proxytest.SyntheticOptions{})
			newRig(t, up, action(act), storage(shared), mediaTypes(filters.MediaTypesDocker)).push(proxytest.BuildKit, "app", "1", tree)
			r := newRig(t, up, action(act), storage(shared))
			r.push(proxytest.BuildKit, "app", "1", tree)
			if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
				t.Errorf("%s: upstream has %s, want %s", act, got, plain.Digest())
			}
			proxytest.AssertClean(t, up)
			proxytest.AssertComplete(t, up)
			// It is what everybody pulls, so it can be signed, and a delete is about it.
			image := plain.Images()[0]
			sig := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`, ociManifest, image.Config.Digest, image.Config.Size))
			r.request(http.MethodPut, "/v2/app/manifests/"+filters.FallbackTag(image.Digest)+".sig", sig, "Content-Type", ociManifest).want(t, http.StatusCreated)
			r.request(http.MethodDelete, "/v2/app/manifests/"+image.Digest, nil).want(t, http.StatusAccepted)
			r.direct(http.MethodHead, "/v2/app/manifests/"+image.Digest, nil, acceptAll...).want(t, http.StatusNotFound)
			r.request(http.MethodHead, "/v2/app/manifests/"+image.Digest, nil, acceptAll...).want(t, http.StatusNotFound)
		}
	})
}

// The same of one image, which takes the place of its index. oras and crane send nothing but the tag when they are told that
// the index exists.
func TestAfterTheRuleIsTakenBackAnImageTakesThePlaceOfItsIndex(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, act := range []filters.Action{filters.Strip, filters.Store} {
			for _, byDigest := range []bool{false, true} {
				shared, up := inmemory.New(), newUpstream(t, proxytest.UpstreamOptions{})
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
				image := tree.Images()[0].Digest
				newRig(t, up, action(act), storage(shared), mediaTypes(filters.MediaTypesDocker)).push(proxytest.BuildKit, "app", "1", tree)
				r := newRig(t, up, action(act), storage(shared))
				r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
				ref, at := "1", "1"
				if byDigest {
					ref, at = tree.Digest(), image
				}
				r.request(http.MethodPut, "/v2/app/manifests/"+ref, tree.Root.Bytes(), "Content-Type", ociIndex).want(t, http.StatusCreated)
				if got := r.upstreamDigest("app", at); got != image {
					t.Errorf("%s: upstream has %s, want the image %s", act, got, image)
				}
				proxytest.AssertClean(t, up)
				proxytest.AssertComplete(t, up)
			}
		}
	})
}

// A tag holds Docker's list, and the rule that made it one forwards everything now. distribution does not know the `*/*` with
// which BuildKit asks what the tag holds, and answers 400.
func TestATagThatWasConvertedIsPushedUnderForward(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		up, tree := newUpstream(t, proxytest.UpstreamOptions{}), proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
		newRig(t, up, mediaTypes(filters.MediaTypesDocker)).push(proxytest.BuildKit, "app", "1", tree)
		r := newRig(t, up, action(filters.Forward))
		r.push(proxytest.BuildKit, "app", "1", tree)
		if got := r.upstreamDigest("app", "1"); got != tree.Digest() {
			t.Errorf("upstream has %s, want what was pushed", got)
		}
	})
}

// strip, and then store: what strip kept for a while is kept for good once an index that is stored lists it.
func TestStoreKeepsTheImagesThatStripConvertedBefore(t *testing.T) {
	now, shared, up := time.Now(), inmemory.New(), proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	at := clock(func() time.Time { return now })
	newRig(t, up, at, storage(shared), action(filters.Strip), mediaTypes(filters.MediaTypesDocker)).push(proxytest.BuildKit, "app", "1", tree)
	r := newRig(t, up, at, storage(shared), action(filters.Store), mediaTypes(filters.MediaTypesDocker))
	r.push(proxytest.BuildKit, "app", "1", tree)
	for range 5 {
		now = now.Add(24 * time.Hour)
		r.proxy.Sweep(context.Background())
	}
	back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
	if err != nil {
		t.Fatal(err)
	}
	if err := back.Equal(tree); err != nil {
		t.Error(err)
	}
}

func TestTheTagShowsTheOriginalOfAConversionOnlyUnderTheRuleThatMadeIt(t *testing.T) {
	up, shared := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New()
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	docker := proxytest.Synthetic(proxytest.SyntheticOptions{DockerTypes: true})
	r := newRig(t, up, storage(shared), view(config.ViewOriginal), mediaTypes(filters.MediaTypesDocker))
	r.push(proxytest.BuildKit, "app", "1", tree)
	if got := r.request(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).Header.Get("Docker-Content-Digest"); got != tree.Digest() {
		t.Errorf("view: original shows %s, want %s", got, tree.Digest())
	}
	r = newRig(t, up, storage(shared), view(config.ViewOriginal))
	if got := r.request(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).Header.Get("Docker-Content-Digest"); got != docker.Digest() {
		t.Errorf("without the rule the tag shows %s, want what is upstream, %s", got, docker.Digest())
	}
}
