package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

type upstreamFunc = func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream

type referrersIndex struct {
	Manifests []struct {
		Digest, ArtifactType string
		Annotations          map[string]string
	}
}

func (r *rig) referrers(repo, digest string) (list referrersIndex) {
	r.t.Helper()
	a := r.request(http.MethodGet, "/v2/"+repo+"/referrers/"+digest, nil).want(r.t, http.StatusOK)
	if err := json.Unmarshal(a.body, &list); err != nil {
		r.t.Fatal(err)
	}
	return list
}

func TestStoredAttestationsAreReferrersOfTheirImage(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, form := range forms {
			t.Run(string(form), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true})
				r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}))
				r.push(proxytest.BuildKit, "app", "1", tree)
				r.restart()
				for _, image := range tree.Images() {
					list := r.referrers("app", image.Digest)
					if len(list.Manifests) != 1 {
						t.Fatalf("%d referrers of %s, want 1", len(list.Manifests), image.Name)
					}
					d := list.Manifests[0]
					if d.ArtifactType != filters.ArtifactTypeAttestation {
						t.Errorf("artifactType %q", d.ArtifactType)
					}
					a := r.request(http.MethodGet, "/v2/app/manifests/"+d.Digest, nil, acceptAll...).want(t, http.StatusOK)
					doc, err := ocidoc.Parse(a.body, a.Header.Get("Content-Type"))
					if err != nil {
						t.Fatal(err)
					}
					if doc.Digest() != d.Digest || doc.Subject == nil || doc.Subject.Digest != image.Digest {
						t.Errorf("referrer %s is %s about %v", d.Digest, doc.Digest(), doc.Subject)
					}
					for _, b := range append(slices.Clone(doc.Layers), *doc.Config) {
						a := r.request(http.MethodGet, "/v2/app/blobs/"+b.Digest, nil).want(t, http.StatusOK)
						if ocidoc.DigestOf(a.body) != b.Digest {
							t.Errorf("blob %s has other bytes", b.Digest)
						}
					}
					a = r.request(http.MethodGet, "/v2/app/referrers/"+image.Digest+"?artifactType=text/plain", nil).want(t, http.StatusOK)
					if strings.Contains(string(a.body), d.Digest) || a.Header.Get("OCI-Filters-Applied") != "artifactType" {
						t.Errorf("filter: %q %s", a.Header.Get("OCI-Filters-Applied"), a.body)
					}
				}
			})
		}
	})
}

// Where upstream has no referrers API, Sluice keeps the tag that clients no longer write.
func TestReferrersAreTakenOver(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{NoReferrers: true, Delete: true}))
		image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
		r.push(proxytest.BuildKit, "app", "1", image)
		var digests []string
		for i := range 3 {
			blob := []byte(fmt.Sprint("note ", i))
			r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(blob)), blob).want(t, http.StatusCreated)
			r.request(http.MethodPut, put(r.upload("app"), filters.EmptyDigest), []byte("{}")).want(t, http.StatusCreated)
			m := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":"text/note","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"text/plain","digest":%q,"size":%d}],"subject":{"mediaType":%q,"digest":%q,"size":%d},"annotations":{"n":"%d"}}`,
				ociManifest, filters.EmptyDigest, ocidoc.DigestOf(blob), len(blob), ociManifest, image.Root.Digest, image.Root.Size, i))
			a := r.request(http.MethodPut, "/v2/app/manifests/"+ocidoc.DigestOf(m), m, "Content-Type", ociManifest).want(t, http.StatusCreated)
			if got := a.Header.Get("OCI-Subject"); got != image.Root.Digest {
				t.Errorf("OCI-Subject %q", got)
			}
			digests = append(digests, ocidoc.DigestOf(m))
		}
		check := func(want []string) {
			t.Helper()
			list := r.referrers("app", image.Root.Digest)
			if len(list.Manifests) != len(want) {
				t.Errorf("%d referrers, want %d", len(list.Manifests), len(want))
			}
			a := r.direct(http.MethodGet, "/v2/app/manifests/"+filters.FallbackTag(image.Root.Digest), nil, acceptAll...).want(t, http.StatusOK)
			for _, d := range want {
				if !strings.Contains(string(a.body), d) {
					t.Errorf("upstream's referrers tag lacks %s: %s", d, a.body)
				}
			}
		}
		check(digests)
		r.request(http.MethodDelete, "/v2/app/manifests/"+digests[1], nil).want(t, http.StatusAccepted)
		check([]string{digests[0], digests[2]})
	})
}

func TestSigningAnOriginalIsRefusedWithTheDigestToSign(t *testing.T) {
	for _, mode := range []config.SignedOriginals{config.SignedRefuse, config.SignedWarn, config.SignedForward} {
		t.Run(string(mode), func(t *testing.T) {
			o := proxytest.SyntheticOptions{Form: proxytest.FormLegacy}
			tree := proxytest.Synthetic(o)
			plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) { c.SignedOriginals = mode }))
			r.push(proxytest.BuildKit, "app", "1", tree)
			r.request(http.MethodPut, put(r.upload("app"), filters.EmptyDigest), []byte("{}")).want(t, http.StatusCreated)
			manifest := func(subject string) []byte {
				return []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]%s}`, ociManifest, filters.EmptyDigest, subject))
			}
			subject := func(d string) []byte {
				return manifest(fmt.Sprintf(`,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json","subject":{"mediaType":%q,"digest":%q,"size":%d}`, ociIndex, d, tree.Root.Size))
			}
			for name, m := range map[string][2]string{
				"cosign 2": {filters.FallbackTag(tree.Digest()) + ".sig", string(manifest(""))},
				"cosign 3": {ocidoc.DigestOf(subject(tree.Digest())), string(subject(tree.Digest()))},
			} {
				a := r.request(http.MethodPut, "/v2/app/manifests/"+m[0], []byte(m[1]), "Content-Type", ociManifest)
				if mode != config.SignedRefuse {
					a.want(t, http.StatusCreated)
					if warned := strings.Contains(strings.Join(a.Header.Values("Warning"), " "), plain.Digest()); warned != (mode == config.SignedWarn) {
						t.Errorf("%s: Warning %q", name, a.Header.Values("Warning"))
					}
					continue
				}
				a.want(t, http.StatusForbidden, "DENIED")
				if !strings.Contains(string(a.body), tree.Digest()+" was forwarded as "+plain.Digest()+": sign that") {
					t.Errorf("%s: %s", name, a.body)
				}
			}
			// The forwarded digest is signed as ever.
			r.request(http.MethodPut, "/v2/app/manifests/"+filters.FallbackTag(plain.Digest())+".sig", manifest(""), "Content-Type", ociManifest).want(t, http.StatusCreated)
		})
	}
}

// As a build with a job per platform does it: push-by-digest in each, then imagetools create.
func TestMatrixBuildsAreCombinedByTheirOriginalDigests(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, act := range []filters.Action{filters.Store, filters.Strip} {
			for _, form := range forms {
				t.Run(string(act)+" "+string(form), func(t *testing.T) {
					r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{}), action(act))
					var sources []proxytest.Source
					for _, p := range []string{"linux/amd64", "linux/arm64"} {
						tree := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{p}, Form: form})
						if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", ByDigest: true, Tree: tree}); err != nil {
							t.Fatal(err)
						}
						sources = append(sources, proxytest.Source{BaseURL: r.url(), Repository: "app", Reference: tree.Digest()})
					}
					if _, err := proxytest.ImagetoolsCreate(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1", "latest"}, Sources: sources}); err != nil {
						t.Fatal(err)
					}
					proxytest.AssertClean(t, r.upstream)
					proxytest.AssertComplete(t, r.upstream)
					back, err := proxytest.PullAll(context.Background(), r.upstream.URL, "app", "latest")
					if err != nil {
						t.Fatal(err)
					}
					if n := len(back.Images()); n != 2 {
						t.Errorf("%d images under the combined tag, want 2", n)
					}
				})
			}
		}
	})
}

// Attestations that were upstream before Sluice was in the way, and are not sent in this session at all.
func TestChildrenThatWereNeverSentAreFetched(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for _, act := range []filters.Action{filters.Store, filters.Strip} {
			t.Run(string(act), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
				up := newUpstream(t, proxytest.UpstreamOptions{})
				if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: up.URL, Repository: "app", Tags: []string{"0"}, Tree: tree}); err != nil {
					t.Fatal(err)
				}
				r := newRig(t, up, action(act))
				r.push(proxytest.Oras, "app", "1", tree)
				if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
					t.Errorf("upstream has %s, want %s", got, plain.Digest())
				}
				for _, image := range tree.Images() {
					if n := len(r.referrers("app", image.Digest).Manifests); act == filters.Store && n != 1 {
						t.Errorf("%d stored referrers of %s, want 1", n, image.Name)
					}
				}
			})
		}
	})
}

func TestAnOuterIndexRefersToTheForwardedInnerOne(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			tree := proxytest.Documents(t, "k-nested-index")
			stripped, err := proxytest.Stripped(tree)
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(act))
			r.upstream.Seed(t, "app", tree)
			for range 2 {
				r.push(proxytest.Crane, "app", "1", tree)
				if got := r.upstreamDigest("app", "1"); got != stripped.Digest() {
					t.Errorf("upstream has %s, want %s", got, stripped.Digest())
				}
				proxytest.AssertClean(t, r.upstream)
				proxytest.AssertComplete(t, r.upstream)
			}
		})
	}
}

func TestDeletingAnOriginalLeavesUpstreamUntouched(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}))
	r.push(proxytest.BuildKit, "app", "1", tree)
	r.request(http.MethodDelete, "/v2/app/manifests/"+tree.Digest(), nil).want(t, http.StatusAccepted)
	r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusNotFound)
	if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
		t.Errorf("upstream has %s", got)
	}
	image := tree.Images()[0]
	list := r.referrers("app", image.Digest)
	if len(list.Manifests) != 1 {
		t.Fatalf("%d referrers after the original was deleted, want 1: what store holds outlives it", len(list.Manifests))
	}
	r.request(http.MethodDelete, "/v2/app/manifests/"+list.Manifests[0].Digest, nil).want(t, http.StatusAccepted)
	if n := len(r.referrers("app", image.Digest).Manifests); n != 0 {
		t.Errorf("%d referrers after the attestation was deleted", n)
	}
	for _, m := range tree.Attestations() {
		if m.Subject == nil && strings.HasSuffix(m.Name, "amd64") {
			r.request(http.MethodGet, "/v2/app/manifests/"+m.Digest, nil, acceptAll...).want(t, http.StatusNotFound)
			for _, l := range m.Layers {
				r.request(http.MethodGet, "/v2/app/blobs/"+l.Digest, nil).want(t, http.StatusNotFound)
			}
		}
	}
	if n := len(r.referrers("app", tree.Images()[1].Digest).Manifests); n != 1 {
		t.Errorf("the other image has %d referrers left, want 1", n)
	}
}

// Under strip the original's bytes go after retention; its digest still leads to the forwarded one.
func TestAStrippedOriginalThatWasForgottenNamesTheForwardedDigest(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), action(filters.Strip))
	r.push(proxytest.BuildKit, "app", "1", tree)
	r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
	if err := r.storage.Delete(context.Background(), "/quarantine"); err != nil { // what the sweeper does to the whole generation
		t.Fatal(err)
	}
	a := r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	if !strings.Contains(string(a.body), plain.Digest()) || a.Header.Get("Sluice-Forwarded-Digest") != plain.Digest() {
		t.Errorf("%q %s", a.Header.Get("Sluice-Forwarded-Digest"), a.body)
	}
	r.push(proxytest.BuildKit, "app", "1", tree)
	r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
}

func TestRulesDecidePerRepository(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
	image := tree.Images()[0].Digest
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), with(func(c *config.Config) {
		c.Rules = []config.Rule{
			{Repositories: []string{"lambda/**"}, Attestations: filters.Strip},
			{Repositories: []string{"raw/*"}, Attestations: filters.Forward},
			{Repositories: []string{"index/*"}, Unwrap: filters.UnwrapNever},
		}
	}))
	for repo, want := range map[string]string{"lambda/a/b": image, "raw/a": tree.Digest(), "other": image} {
		r.push(proxytest.BuildKit, repo, "1", tree)
		if got := r.upstreamDigest(repo, "1"); got != want {
			t.Errorf("%s: upstream has %s, want %s", repo, got, want)
		}
	}
	r.push(proxytest.BuildKit, "index/a", "1", tree)
	a := r.direct(http.MethodGet, "/v2/index/a/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
	if got := a.Header.Get("Content-Type"); got != ociIndex || !strings.Contains(string(a.body), image) {
		t.Errorf("with unwrap: never upstream has %s %s", got, a.body)
	}
	if n := len(r.referrers("lambda/a/b", image).Manifests); n != 0 {
		t.Errorf("strip keeps %d attestations", n)
	}
	if n := len(r.referrers("other", image).Manifests); n != 1 {
		t.Errorf("store keeps %d attestations, want 1", n)
	}
}
