package proxy_test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

// byName leads the host name of a registry to its double.
type byName struct{ to string }

func (b byName) RoundTrip(req *http.Request) (*http.Response, error) {
	to, err := url.Parse(b.to)
	if err != nil {
		return nil, err
	}
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host = to.Scheme, to.Host
	resp, err := transport.RoundTrip(out)
	if err == nil {
		resp.Request = req
	}
	return resp, err
}

func newCreatingRig(t *testing.T, change func(*config.Config)) (*rig, *ecrAccount) {
	t.Helper()
	a := newECRAccount(t, ecrsim.Switches{})
	r := newRig(t, &proxytest.Upstream{URL: "https://" + ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion)}, with(func(c *config.Config) {
		c.Upstreams[0].Credentials = config.CredentialsAuto
		c.Upstreams[0].CreateRepositories.Enabled = true
		change(c)
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
	}))
	if err := r.proxy.Reach(byName{a.URL}); err != nil {
		t.Fatal(err)
	}
	return r, a
}

func (a *ecrAccount) repositories() map[string]string {
	a.t.Helper()
	out, err := a.api.DescribeRepositories(a.t.Context(), &ecr.DescribeRepositoriesInput{})
	if err != nil {
		a.t.Fatal(err)
	}
	all := map[string]string{}
	for _, r := range out.Repositories {
		all[*r.RepositoryName] = string(r.ImageTagMutability)
	}
	return all
}

func TestAFirstPushMakesItsRepository(t *testing.T) {
	const lifecycle = `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
	file := filepath.Join(t.TempDir(), "lifecycle.json")
	if err := os.WriteFile(file, []byte(lifecycle), 0o600); err != nil {
		t.Fatal(err)
	}
	r, a := newCreatingRig(t, func(c *config.Config) {
		c.Access.Permissions = []config.Permission{
			{Identity: "*", Repositories: []string{"team/**"}, Actions: []string{"pull", "push"}},
			{Identity: "*", Repositories: []string{"read/**"}, Actions: []string{"pull"}},
		}
		c.Upstreams[0].CreateRepositories.TagMutability = config.Immutable
		c.Upstreams[0].CreateRepositories.LifecyclePolicyFile = file
	})
	for _, c := range proxytest.Clients() {
		if c.Name == "imagetools" {
			continue // reads its source from a registry
		}
		t.Run(c.Name, func(t *testing.T) {
			repo := "team/" + c.Name
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{SBOM: true, Form: proxytest.FormArtifact})
			if _, err := c.Push(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: repo, Tags: []string{"v1"}, Tree: tree}); err != nil {
				t.Fatal(err)
			}
			if got := a.repositories()[repo]; got != "IMMUTABLE" {
				t.Errorf("made as %q", got)
			}
			p, err := a.api.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: &repo})
			if err != nil || *p.LifecyclePolicyText != lifecycle {
				t.Errorf("lifecycle policy %+v, %v", p, err)
			}
		})
	}
	before := len(a.repositories())
	r.request(http.MethodPost, "/v2/read/app/blobs/uploads/", nil).want(t, http.StatusForbidden, "DENIED")
	r.request(http.MethodGet, "/v2/read/app/manifests/1", nil).want(t, http.StatusNotFound)
	r.request(http.MethodHead, "/v2/team/none/manifests/1", nil).want(t, http.StatusNotFound)
	if all := a.repositories(); len(all) != before {
		t.Errorf("who may not push, or only looks, made a repository: %v", all)
	}
}

// The repository that store.to names is missing as well, and so is made on the way to it. What may not be made is named in
// the refusal, and leaves no tag behind.
func TestAFirstPushMakesTheRepositoryOfItsAttestations(t *testing.T) {
	for _, docker := range []bool{false, true} {
		for _, form := range forms {
			r, a := newCreatingRig(t, func(c *config.Config) {
				c.Store.To = config.StoreToRepository
				if docker {
					c.MediaTypes = filters.MediaTypesDocker
				}
			})
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{SBOM: true, Form: form})
			r.push(proxytest.BuildKit, "team/app", "1", tree)
			if all := a.repositories(); len(all) != 2 || all["team/app-attestations"] == "" {
				t.Errorf("made %v", all)
			}
			for _, image := range proxytest.Synthetic(proxytest.SyntheticOptions{DockerTypes: docker}).Images() {
				if list := r.referrers("team/app", image.Digest); len(list.Manifests) != 1 {
					t.Errorf("docker %t, %s: sluice lists %v about %s", docker, form, list, image.Name)
				}
			}
			out, err := a.api.ListImages(t.Context(), &ecr.ListImagesInput{RepositoryName: aws.String("team/app-attestations")})
			if err != nil || len(out.ImageIds) != len(tree.Images()) {
				t.Errorf("docker %t, %s: the repository holds %v, %v", docker, form, out, err)
			}
		}
	}
	r, a := newCreatingRig(t, func(c *config.Config) {
		c.Store.To = config.StoreToRepository
		c.Upstreams[0].CreateRepositories.Repositories = []string{"team/app"}
	})
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	_, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "team/app", Tags: []string{"1"}, Tree: tree})
	if err == nil || !strings.Contains(err.Error(), "team/app-attestations") || !strings.Contains(err.Error(), "create the repository") {
		t.Errorf("got %v", err)
	}
	r.request(http.MethodHead, "/v2/team/app/manifests/1", nil).want(t, http.StatusNotFound)
	if all := a.repositories(); len(all) != 1 {
		t.Errorf("made %v", all)
	}
}

func TestADeniedCreationTellsTheClientWhichRightIsMissing(t *testing.T) {
	r, a := newCreatingRig(t, func(*config.Config) {})
	a.Update(func(s *ecrsim.Switches) { s.Deny = []string{"ecr:CreateRepository"} })
	got := r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusForbidden, "DENIED")
	for _, part := range []string{"lacks repository app", "allow ecr:CreateRepository on it", "or make it beforehand"} {
		if !strings.Contains(string(got.body), part) {
			t.Errorf("no %q in %s", part, got.body)
		}
	}
	a.Update(func(s *ecrsim.Switches) { s.Deny = nil })
	r.push(proxytest.BuildKit, "app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{}))
}

// With the client's own credentials Sluice makes, with its own, only what is listed, and only after ECR let the client know
// that it is missing.
func TestWithPassthroughOnlyListedRepositoriesAreMade(t *testing.T) {
	r, a := newCreatingRig(t, func(c *config.Config) {
		c.Access.Mode = config.AccessPassthrough
		c.Upstreams[0].CreateRepositories.Repositories = []string{"team/**"}
	})
	user, password := a.Password(a.AccessKey)
	r.request(http.MethodPost, "/v2/team/app/blobs/uploads/", nil).want(t, http.StatusUnauthorized)
	r.request(http.MethodPost, "/v2/team/app/blobs/uploads/", nil, "Authorization", basic(user, "wrong"))
	r.request(http.MethodPost, "/v2/other/app/blobs/uploads/", nil, "Authorization", basic(user, password)).want(t, http.StatusNotFound, "NAME_UNKNOWN")
	if all := a.repositories(); len(all) != 0 {
		t.Fatalf("made %v", all)
	}
	r.request(http.MethodPost, "/v2/team/app/blobs/uploads/", nil, "Authorization", basic(user, password)).want(t, http.StatusAccepted)
	if all := a.repositories(); len(all) != 1 {
		t.Errorf("made %v", all)
	}
}
