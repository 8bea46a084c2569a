package ecrsim_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
)

// sdk is aws-sdk-go-v2 as a program uses it: everything from the environment.
func sdk(t *testing.T, s *ecrsimtest.Server) *ecr.Client {
	t.Helper()
	s.SetEnv(t)
	return again(t)
}

// again reads the environment as it is now. Nothing is tried twice: every refusal is meant.
func again(t *testing.T) *ecr.Client {
	t.Helper()
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRetryMaxAttempts(1))
	if err != nil {
		t.Fatal(err)
	}
	return ecr.NewFromConfig(cfg)
}

func create(t *testing.T, c *ecr.Client, name string) {
	t.Helper()
	if _, err := c.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &name}); err != nil {
		t.Fatal(err)
	}
}

func signIn(t *testing.T, c *ecr.Client) authn.Authenticator {
	t.Helper()
	out, err := c.GetAuthorizationToken(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := base64.StdEncoding.DecodeString(*out.AuthorizationData[0].AuthorizationToken)
	if err != nil {
		t.Fatal(err)
	}
	user, password, _ := strings.Cut(string(token), ":")
	return &authn.Basic{Username: user, Password: password}
}

// go-containerregistry pushes as crane does, with a token from aws-sdk-go-v2, and reads back through the redirect.
func TestPushAndPullWithTheSDKsToken(t *testing.T) {
	s := ecrsimtest.New(t, ecrsim.Options{})
	c := sdk(t, s)
	create(t, c, "team/app")
	idx, err := random.Index(1<<10, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(s.URL, "http://") + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithAuth(signIn(t, c))
	if err := remote.WriteIndex(ref, idx, auth); err != nil {
		t.Fatal(err)
	}
	got, err := remote.Index(ref, auth)
	if err != nil {
		t.Fatal(err)
	}
	children, err := got.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := got.Image(children.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := layers[0].Uncompressed(); err != nil {
		t.Errorf("read a layer through the redirect: %v", err)
	}
	repo := "team/app"
	out, err := c.DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: &repo})
	if err != nil {
		t.Fatal(err)
	}
	var untagged, tagged int
	for _, d := range out.ImageDetails {
		if slices.Equal(d.ImageTags, []string{"1"}) {
			tagged++
		} else if len(d.ImageTags) == 0 {
			untagged++
		}
	}
	if tagged != 1 || untagged != 2 {
		t.Errorf("DescribeImages lists %d tagged and %d untagged images, want 1 and 2: %+v", tagged, untagged, out.ImageDetails)
	}
}

func TestTheSDKKnowsTheErrors(t *testing.T) {
	s := ecrsimtest.New(t, ecrsim.Options{})
	c := sdk(t, s)
	create(t, c, "app")
	repo, missing := "app", "missing"
	_, err := c.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &repo})
	if exists := new(types.RepositoryAlreadyExistsException); !errors.As(err, &exists) {
		t.Errorf("CreateRepository twice: %v", err)
	}
	_, err = c.DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: &missing})
	if absent := new(types.RepositoryNotFoundException); !errors.As(err, &absent) {
		t.Errorf("DescribeImages of a missing repository: %v", err)
	}
}

func deleteRepository(t *testing.T, c *ecr.Client, name string) {
	t.Helper()
	if _, err := c.DeleteRepository(t.Context(), &ecr.DeleteRepositoryInput{RepositoryName: &name, Force: true}); err != nil {
		t.Fatal(err)
	}
}

func setMutability(t *testing.T, c *ecr.Client, name, mutability string, exclusions []string) {
	t.Helper()
	in := &ecr.PutImageTagMutabilityInput{RepositoryName: &name, ImageTagMutability: types.ImageTagMutability(mutability)}
	for _, e := range exclusions {
		in.ImageTagMutabilityExclusionFilters = append(in.ImageTagMutabilityExclusionFilters, types.ImageTagMutabilityExclusionFilter{
			Filter: &e, FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard,
		})
	}
	if _, err := c.PutImageTagMutability(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}
