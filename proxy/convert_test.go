package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func mediaTypes(m filters.MediaTypes) setting {
	return with(func(c *config.Config) { c.MediaTypes = m })
}

// The promise with media_types: docker: upstream holds exactly what the same build sends with
// --provenance=false and oci-mediatypes=false.
func TestWithDockerMediaTypesUpstreamHoldsWhatADockerPushWouldHaveSent(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, client := range proxytest.Clients() {
			if !client.Indexes {
				continue
			}
			for i, form := range append([]proxytest.Form{proxytest.FormNone}, forms...) {
				for _, act := range []filters.Action{filters.Strip, filters.Store}[i%2 : i%2+1] {
					for _, platforms := range [][]string{{"linux/amd64"}, {"linux/amd64", "linux/arm64"}} {
						t.Run(fmt.Sprintf("%s %s %q %d platforms", client.Name, act, form, len(platforms)), func(t *testing.T) {
							o := proxytest.SyntheticOptions{Platforms: platforms, Layers: 2}
							o.DockerTypes = true
							docker := proxytest.Synthetic(o)
							o.DockerTypes, o.Form, o.SBOM = false, form, form != proxytest.FormNone
							tree := proxytest.Synthetic(o)
							r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), action(act), mediaTypes(filters.MediaTypesDocker))
							reference := newUpstream(t, proxytest.UpstreamOptions{})
							if _, err := client.Push(context.Background(), proxytest.Options{BaseURL: reference.URL, Repository: "app", Tags: []string{"1"}, Tree: docker}); err != nil {
								t.Fatal(err)
							}
							want := reference.Inspect(t).Repository("app")
							check := func(when string) {
								t.Helper()
								if got := r.upstreamDigest("app", "1"); got != docker.Digest() {
									a := r.direct(http.MethodGet, "/v2/app/manifests/1", nil, acceptAll...)
									t.Fatalf("%s: upstream's tag is %s %s, want %s %s", when, got, a.body, docker.Digest(), docker.Root.Bytes())
								}
								got := r.upstream.Inspect(t).Repository("app")
								if len(got.Manifests) != len(want.Manifests) {
									t.Errorf("%s: %d manifests upstream, the reference push makes %d", when, len(got.Manifests), len(want.Manifests))
								}
								proxytest.AssertClean(t, r.upstream)
								proxytest.AssertComplete(t, r.upstream)
							}
							r.push(client.Push, "app", "1", tree)
							check("first push")
							r.restart()
							r.push(client.Push, "app", "1", tree)
							check("the same again")
							o.Build = 7
							r.push(client.Push, "app", "1", proxytest.Synthetic(o))
							check("a rebuild")
							back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
							if err != nil {
								t.Fatal(err)
							}
							if err := back.Equal(tree); err != nil {
								t.Errorf("the original by its digest: %v", err)
							}
						})
					}
				}
			}
		}
	})
}

// I5 for each document: the answer has the digest of what was sent, and names the other.
func TestAConvertedImageAnswersToItsOwnDigest(t *testing.T) {
	for _, act := range []filters.Action{filters.Strip, filters.Store} {
		t.Run(string(act), func(t *testing.T) {
			o := proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}}
			tree := proxytest.Synthetic(o)
			o.DockerTypes = true
			docker := proxytest.Synthetic(o)
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act), mediaTypes(filters.MediaTypesDocker))
			image := tree.Root
			for _, b := range image.Blobs() {
				r.request(http.MethodPut, put(r.upload("app"), b.Digest), b.Bytes()).want(t, http.StatusCreated)
			}
			for _, ref := range []string{image.Digest, "1"} {
				a := r.request(http.MethodPut, "/v2/app/manifests/"+ref, image.Bytes(), "Content-Type", ociManifest).want(t, http.StatusCreated)
				if got := a.Header.Get("Docker-Content-Digest"); got != image.Digest {
					t.Errorf("%s: Docker-Content-Digest %s", ref, got)
				}
				if got := a.Header.Get("Sluice-Forwarded-Digest"); got != docker.Digest() {
					t.Errorf("%s: Sluice-Forwarded-Digest %s, want %s", ref, got, docker.Digest())
				}
				if !strings.Contains(a.Header.Get("Warning"), docker.Digest()) {
					t.Errorf("%s: Warning %q", ref, a.Header.Get("Warning"))
				}
			}
			for _, method := range []string{http.MethodHead, http.MethodGet} {
				a := r.request(method, "/v2/app/manifests/"+image.Digest, nil, acceptAll...).want(t, http.StatusOK)
				if a.Header.Get("Content-Type") != ociManifest || a.Header.Get("Docker-Content-Digest") != image.Digest || a.Header.Get("Sluice-Forwarded-Digest") != docker.Digest() {
					t.Errorf("%s by digest: %v", method, a.Header)
				}
				if method == http.MethodGet && string(a.body) != string(image.Bytes()) {
					t.Errorf("other bytes: %s", a.body)
				}
				a = r.request(method, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
				if a.Header.Get("Docker-Content-Digest") != docker.Digest() || a.Header.Get("Sluice-Forwarded-Digest") != docker.Digest() {
					t.Errorf("%s by tag: %v", method, a.Header)
				}
			}
			r.direct(http.MethodHead, "/v2/app/manifests/"+image.Digest, nil, acceptAll...).want(t, http.StatusNotFound)
			// A signature for it would protect nobody.
			sig := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[]}`, ociManifest, image.Config.Digest, image.Config.Size))
			a := r.request(http.MethodPut, "/v2/app/manifests/"+filters.FallbackTag(image.Digest)+".sig", sig, "Content-Type", ociManifest).want(t, http.StatusForbidden, "DENIED")
			if !strings.Contains(string(a.body), docker.Digest()) {
				t.Errorf("%s", a.body)
			}
		})
	}
}

// Images that were upstream in OCI's form before the rule, and are not sent again.
func TestImagesThatAreUpstreamAlreadyAreConvertedWithTheirIndex(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, form := range append([]proxytest.Form{proxytest.FormNone}, forms...) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form})
			docker := proxytest.Synthetic(proxytest.SyntheticOptions{DockerTypes: true})
			up := newUpstream(t, proxytest.UpstreamOptions{})
			if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: up.URL, Repository: "app", Tags: []string{"0"}, Tree: tree}); err != nil {
				t.Fatal(err)
			}
			r := newRig(t, up, mediaTypes(filters.MediaTypesDocker))
			r.push(proxytest.Oras, "app", "1", tree)
			if got := r.upstreamDigest("app", "1"); got != docker.Digest() {
				t.Errorf("%q: upstream has %s, want %s", form, got, docker.Digest())
			}
			proxytest.AssertComplete(t, up)
		}
	})
}

// I10, with conversions.
func TestConversionsNeedNothingOfOneProcess(t *testing.T) {
	for _, client := range proxytest.Clients() {
		if !client.Indexes {
			continue
		}
		up, shared := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New()
		var replicas []*rig
		for range 3 {
			replicas = append(replicas, newRig(t, up, storage(shared), mediaTypes(filters.MediaTypesDocker)))
		}
		var next atomic.Uint32
		balancer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			replicas[int(next.Add(1))%len(replicas)].proxy.Handler().ServeHTTP(w, r)
		}))
		t.Cleanup(balancer.Close)
		docker := proxytest.Synthetic(proxytest.SyntheticOptions{DockerTypes: true})
		tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact})
		for range 2 {
			if _, err := client.Push(context.Background(), proxytest.Options{BaseURL: balancer.URL, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
				t.Fatal(err)
			}
		}
		if got := replicas[0].upstreamDigest("app", "1"); got != docker.Digest() {
			t.Errorf("%s: upstream's tag is %s, want %s", client.Name, got, docker.Digest())
		}
		proxytest.AssertClean(t, up)
		proxytest.AssertComplete(t, up)
	}
}

func TestStoredAttestationsAreFoundByTheConvertedImage(t *testing.T) {
	for _, to := range []config.StoreTo{config.StoreToStorage, config.StoreToReferrers, config.StoreToRepository} {
		for _, form := range forms {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form})
			docker := proxytest.Synthetic(proxytest.SyntheticOptions{DockerTypes: true})
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), mediaTypes(filters.MediaTypesDocker), with(func(c *config.Config) { c.Store.To = to }))
			r.push(proxytest.BuildKit, "app", "1", tree)
			for _, image := range docker.Images() {
				list := r.referrers("app", image.Digest)
				if len(list.Manifests) != 1 {
					t.Errorf("%s %s: %d stored referrers of %s, want 1", to, form, len(list.Manifests), image.Name)
					continue
				}
				a := r.request(http.MethodGet, "/v2/app/manifests/"+list.Manifests[0].Digest, nil, acceptAll...).want(t, http.StatusOK)
				if !strings.Contains(string(a.body), image.Digest) {
					t.Errorf("%s %s: the referrer is about something else: %s", to, form, a.body)
				}
				for _, repo := range inRegistry {
					if n := len(r.listedUpstream(repo, image.Digest).Manifests); (n == 1) != (inRegistry[to] == repo) {
						t.Errorf("%s %s: %s lists %d referrers of %s", to, form, repo, n, image.Name)
					}
				}
			}
			for i, image := range tree.Images() {
				if n := len(r.referrers("app", image.Digest).Manifests); n != 1 {
					t.Errorf("%s %s: %d stored referrers by the digest of image %d before its conversion, want 1", to, form, n, i)
				}
			}
		}
	}
}

// One manifest of a registry that takes no subject is listed for both: the image as it went there first, and as it was
// converted to later. A delete leaves nothing behind.
func TestADeleteFindsAnAttestationUnderBothDigestsOfItsImage(t *testing.T) {
	for to, repo := range inRegistry {
		t.Run(string(to), func(t *testing.T) {
			one := []string{"linux/amd64"}
			shared, f := inmemory.New(), &refusing{text: `"subject"`, status: http.StatusMethodNotAllowed, code: "UNSUPPORTED"}
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, Wrap: f.wrap})
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: one})
			docker := proxytest.Synthetic(proxytest.SyntheticOptions{DockerTypes: true, Platforms: one})
			newRig(t, up, storage(shared), storeTo(to)).push(proxytest.BuildKit, "app", "1", tree)
			r := newRig(t, up, storage(shared), storeTo(to), mediaTypes(filters.MediaTypesDocker))
			r.push(proxytest.BuildKit, "app", "2", tree)
			second := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: one, Build: 1})
			r.push(proxytest.BuildKit, "app", "3", second) // its list takes the place of one with the same entry as the first image's
			images := []string{tree.Images()[0].Digest, docker.Images()[0].Digest}
			for i, image := range images {
				if n := len(r.listedUpstream(repo, image).Manifests); n != 1+i {
					t.Errorf("%s lists %d attestations of %s, want %d", repo, n, image, 1+i)
				}
			}
			r.request(http.MethodDelete, "/v2/app/manifests/"+tree.Attestations()[0].Digest, nil).want(t, http.StatusAccepted)
			for i, image := range images {
				if n := len(r.listedUpstream(repo, image).Manifests); n != i {
					t.Errorf("after the delete %s lists %d attestations of %s, want %d", repo, n, image, i)
				}
			}
			if n := len(r.referrers("app", images[1]).Manifests); n != 1 {
				t.Errorf("after the delete sluice lists %d attestations of the converted image, want 1", n)
			}
			proxytest.AssertComplete(t, up)
		})
	}
}

func TestAnImageWithZstdLayersIsRefusedUnderDockerMediaTypes(t *testing.T) {
	tree := proxytest.Documents(t, "i-zstd")
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), mediaTypes(filters.MediaTypesDocker))
	r.upstream.Seed(t, "app", tree)
	image := tree.Images()[0]
	a := r.request(http.MethodPut, "/v2/app/manifests/"+image.Digest, image.Bytes(), "Content-Type", ociManifest).want(t, http.StatusBadRequest, "MANIFEST_INVALID")
	if !strings.Contains(string(a.body), "manifest "+image.Digest+" for repository app") || !strings.Contains(string(a.body), "zstd") {
		t.Errorf("%s", a.body)
	}
}

func TestADryRunConvertsNothing(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), mediaTypes(filters.MediaTypesDocker), with(func(c *config.Config) { c.DryRun = true }))
	r.push(proxytest.BuildKit, "app", "1", tree)
	if got := r.upstreamDigest("app", "1"); got != tree.Digest() {
		t.Errorf("upstream has %s, want %s", got, tree.Digest())
	}
	if !strings.Contains(r.log.String(), "dry run: would be rewritten") {
		t.Error("it does not say what it would have done")
	}
}

// An alias says what made it, so that another rule's is not taken for it.
func TestTheAliasOfAConversionIsWrittenOnceForEachDocument(t *testing.T) {
	shared := inmemory.New()
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(shared), mediaTypes(filters.MediaTypesDocker))
	r.push(proxytest.BuildKit, "app", "1", tree)
	var originals []string
	err := shared.Walk(context.Background(), "/aliases/app/_aliases", func(f storagedriver.FileInfo) error {
		if f.IsDir() {
			return nil
		}
		b, err := shared.GetContent(context.Background(), f.Path())
		if err != nil {
			return err
		}
		var a struct{ Original, MediaTypes string }
		if err := json.Unmarshal(b, &a); err != nil {
			return err
		}
		if a.MediaTypes != "docker" {
			t.Errorf("%s", b)
		}
		originals = append(originals, a.Original)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{tree.Digest()}
	for _, image := range tree.Images() {
		want = append(want, image.Digest)
	}
	slices.Sort(want)
	slices.Sort(originals)
	if !slices.Equal(originals, want) {
		t.Errorf("aliases of %v, want %v", originals, want)
	}
}

// on_storage_error where the original of an image cannot be kept. Without its alias nothing that was
// converted may be relied on, so the index finds the image upstream and converts it then.
func TestAFullDiskDoesToAConversionWhatTheOperatorChose(t *testing.T) {
	for _, platforms := range [][]string{{"linux/amd64"}, {"linux/amd64", "linux/arm64"}} {
		tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: platforms})
		docker := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: platforms, DockerTypes: true})
		for choice, want := range map[config.OnStorageError]string{config.StorageErrorReject: "", config.StorageErrorForward: tree.Digest(), config.StorageErrorStrip: docker.Digest()} {
			t.Run(fmt.Sprintf("%s %d platforms", choice, len(platforms)), func(t *testing.T) {
				d := newFullDisk()
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storage(d), onStorageError(choice), mediaTypes(filters.MediaTypesDocker))
				push := func(tag string) error {
					_, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{tag}, Tree: tree})
					r.proxy.Settle()
					return err
				}
				d.fill("")
				switch err := push("1"); {
				case (err != nil) != (want == ""):
					t.Fatalf("push: %v", err)
				case want == "":
					r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusNotFound)
				default:
					if got := r.upstreamDigest("app", "1"); got != want {
						t.Errorf("upstream has %s, want %s", got, want)
					}
				}
				proxytest.AssertComplete(t, r.upstream)
				d.empty()
				if err := push("2"); err != nil { // a tag that holds what a client has is not pushed again
					t.Fatal(err)
				}
				if got := r.upstreamDigest("app", "2"); got != docker.Digest() {
					t.Errorf("when there is room again upstream has %s, want %s", got, docker.Digest())
				}
				proxytest.AssertComplete(t, r.upstream)
				r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
			})
		}
	}
}
