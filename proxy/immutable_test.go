package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"sluice/filters"
	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
	"sluice/proxy/proxytest"
)

// ecrAccount is a double of Amazon ECR and the SDK's way to look at it.
type ecrAccount struct {
	*ecrsimtest.Server
	t   *testing.T
	api *ecr.Client
}

func newECRAccount(t *testing.T, s ecrsim.Switches) *ecrAccount {
	t.Helper()
	s.NoThrottling = true
	a := &ecrAccount{Server: ecrsimtest.New(t, ecrsim.Options{Switches: s}), t: t}
	a.SetEnv(t)
	none := filepath.Join(t.TempDir(), "none")
	for k, v := range map[string]string{"AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none} {
		t.Setenv(k, v)
	}
	cfg, err := awsconfig.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.api = ecr.NewFromConfig(cfg)
	return a
}

func (a *ecrAccount) create(in *ecr.CreateRepositoryInput) {
	a.t.Helper()
	if _, err := a.api.CreateRepository(a.t.Context(), in); err != nil {
		a.t.Fatal(err)
	}
}

// images are digests by tag, and "" for how many have no tag.
func (a *ecrAccount) images(repo string) (byTag map[string]string, untagged int) {
	a.t.Helper()
	out, err := a.api.DescribeImages(a.t.Context(), &ecr.DescribeImagesInput{RepositoryName: &repo})
	if err != nil {
		a.t.Fatal(err)
	}
	byTag = map[string]string{}
	for _, i := range out.ImageDetails {
		if len(i.ImageTags) == 0 {
			untagged++
		}
		for _, tag := range i.ImageTags {
			byTag[tag] = *i.ImageDigest
		}
	}
	return byTag, untagged
}

// A rebuild whose images did not change is a success on an immutable tag, although its provenance, and so the digest that the
// client pushes, changed. Another image is refused in upstream's own words.
func TestARebuildOfTheSameImagesIsASuccessOnAnImmutableTag(t *testing.T) {
	type mutability struct {
		name       string
		mutability types.ImageTagMutability
		exclusions []string
	}
	kinds := []mutability{
		{"immutable", types.ImageTagMutabilityImmutable, nil},
		{"immutable with exclusion", types.ImageTagMutabilityImmutableWithExclusion, []string{"latest", "dev-*"}},
		{"mutable with exclusion", types.ImageTagMutabilityMutableWithExclusion, []string{"v*"}},
	}
	shapes := map[string][]string{"unwrapped": {"linux/amd64"}, "index": nil}
	for _, sw := range []ecrsim.Switches{{}, {OldImmutableText: true}, {AcceptSameImage: true}} {
		for _, kind := range kinds {
			for shape, platforms := range shapes {
				for _, act := range []filters.Action{filters.Store, filters.Strip} {
					name := fmt.Sprintf("%s/%s/%s/old text %v/accepts the same %v", kind.name, shape, act, sw.OldImmutableText, sw.AcceptSameImage)
					t.Run(name, func(t *testing.T) {
						a := newECRAccount(t, sw)
						repo := "app"
						in := &ecr.CreateRepositoryInput{RepositoryName: &repo, ImageTagMutability: kind.mutability}
						for _, e := range kind.exclusions {
							in.ImageTagMutabilityExclusionFilters = append(in.ImageTagMutabilityExclusionFilters,
								types.ImageTagMutabilityExclusionFilter{Filter: &e, FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard})
						}
						a.create(in)
						r := newRig(t, &proxytest.Upstream{URL: a.URL}, action(act), with(ecrCredentials))
						build := func(seed uint64, n int) *proxytest.Tree {
							return proxytest.Synthetic(proxytest.SyntheticOptions{Seed: seed, Build: n, Platforms: platforms, SBOM: true, Form: proxytest.FormArtifact})
						}
						plain := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: platforms})
						untagged := 0
						for n := range 2 {
							tree := build(0, n)
							r.push(proxytest.BuildKit, repo, "v1", tree)
							tags, without := a.images(repo)
							if tags["v1"] != plain.Digest() {
								t.Fatalf("build %d: v1 is %s, want %s", n, tags["v1"], plain.Digest())
							}
							if n == 0 {
								untagged = without
							} else if without != untagged {
								t.Errorf("%d untagged images after a rebuild, %d before", without, untagged)
							}
							// The records were written after the refusal, too (I6): what this build pushed leads to what is there.
							got := r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
							if f := got.Header.Get("Sluice-Forwarded-Digest"); f != plain.Digest() {
								t.Errorf("build %d: forwarded digest %q", n, f)
							}
							if act == filters.Store {
								if list := r.referrers(repo, tree.Images()[0].Digest); len(list.Manifests) != n+1 {
									t.Errorf("build %d: %d attestations are kept", n, len(list.Manifests))
								}
							}
						}

						_, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: repo, Tags: []string{"v1"}, Tree: build(7, 0)})
						because := "because the tag is immutable."
						if sw.OldImmutableText {
							because = "because the repository is immutable."
						}
						if err == nil || !strings.Contains(err.Error(), "400 Bad Request") ||
							!strings.Contains(err.Error(), "tag invalid: The image tag 'v1' already exists in the 'app' repository and cannot be overwritten "+because) {
							t.Errorf("another image under v1: %v", err)
						}
						if tags, _ := a.images(repo); tags["v1"] != plain.Digest() {
							t.Errorf("v1 became %s", tags["v1"])
						}
						if kind.exclusions == nil {
							return
						}
						for seed := range uint64(2) { // a tag that may be overwritten is
							r.push(proxytest.BuildKit, repo, "latest", build(seed, 0))
							want := proxytest.Synthetic(proxytest.SyntheticOptions{Seed: seed, Platforms: platforms}).Digest()
							if tags, _ := a.images(repo); tags["latest"] != want {
								t.Errorf("latest is %s, want %s", tags["latest"], want)
							}
						}
					})
				}
			}
		}
	}
}

// What needs no rewrite is pushed again, too: CI jobs that run twice do it.
func TestTheSameImageAgainIsASuccessOnAnImmutableTag(t *testing.T) {
	for _, accepts := range []bool{false, true} {
		for _, act := range []filters.Action{filters.Store, filters.Forward} {
			t.Run(fmt.Sprintf("%s, accepted by upstream: %v", act, accepts), func(t *testing.T) {
				a := newECRAccount(t, ecrsim.Switches{AcceptSameImage: accepts})
				repo := "app"
				a.create(&ecr.CreateRepositoryInput{RepositoryName: &repo, ImageTagMutability: types.ImageTagMutabilityImmutable})
				r := newRig(t, &proxytest.Upstream{URL: a.URL}, action(act), with(ecrCredentials))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{})
				for range 2 {
					body := tree.Root.Bytes()
					r.push(proxytest.BuildKit, repo, "v1", tree)
					// BuildKit leaves the PUT out when HEAD shows the digest already; others send it.
					got := r.request(http.MethodPut, "/v2/app/manifests/v1", body, "Content-Type", tree.Root.MediaType).want(t, http.StatusCreated)
					if d := got.Header.Get("Docker-Content-Digest"); d != tree.Digest() {
						t.Errorf("digest %s", d)
					}
				}
			})
		}
	}
}
