package ecrsim_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
)

// wantCode holds an error of the SDK to the exception's name.
func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var api smithy.APIError
	if !errors.As(err, &api) || api.ErrorCode() != code {
		t.Errorf("%s: %v, want %s", what, err, code)
	}
}

func TestWhoMayCallTheControlPlane(t *testing.T) {
	s := ecrsimtest.New(t, ecrsim.Options{Principals: []ecrsim.Principal{{AccessKey: "AKIAREADER", Name: "reader", Allow: []string{"ecr:Describe*"}}}})
	c := sdk(t, s)
	name := "app"
	_, err := c.CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: &name})
	wantCode(t, "without the right", err, "AccessDeniedException")
	if err == nil || !strings.Contains(err.Error(), "user/reader is not authorized to perform: ecr:CreateRepository on resource: arn:aws:ecr:eu-central-1:123456789012:repository/app") {
		t.Error(err)
	}
	if _, err := c.DescribeRepositories(t.Context(), nil); err != nil {
		t.Error(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIANOBODY")
	_, err = again(t).DescribeRepositories(t.Context(), nil)
	wantCode(t, "another key", err, "UnrecognizedClientException")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAREADER")
	t.Setenv("AWS_REGION", "us-east-1")
	_, err = again(t).DescribeRepositories(t.Context(), nil)
	wantCode(t, "another region", err, "InvalidSignatureException")
}

func TestTheTokenSaysWhenItExpires(t *testing.T) {
	r := newRig(t, func(s *ecrsim.Switches) { s.TokenLife = time.Hour })
	out, err := sdk(t, r.Server).GetAuthorizationToken(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d := out.AuthorizationData[0]
	if !d.ExpiresAt.Equal(r.clock.Now().Add(time.Hour)) || !strings.HasPrefix(*d.ProxyEndpoint, "https://127.0.0.1:") {
		t.Errorf("expires %s, endpoint %s", d.ExpiresAt, *d.ProxyEndpoint)
	}
}

func TestRepositoriesByTheSDK(t *testing.T) {
	s := ecrsimtest.New(t, ecrsim.Options{})
	c, ctx := sdk(t, s), t.Context()
	name := "team/app"
	out, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{
		RepositoryName: &name, ImageTagMutability: types.ImageTagMutabilityImmutableWithExclusion,
		ImageTagMutabilityExclusionFilters: []types.ImageTagMutabilityExclusionFilter{{Filter: aws.String("latest*"), FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard}},
		EncryptionConfiguration:            &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeKms, KmsKey: aws.String("key")},
		Tags:                               []types.Tag{{Key: aws.String("team"), Value: aws.String("a")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	arn := out.Repository.RepositoryArn
	described, err := c.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
	if err != nil {
		t.Fatal(err)
	}
	r := described.Repositories[0]
	if r.ImageTagMutability != types.ImageTagMutabilityImmutableWithExclusion || *r.ImageTagMutabilityExclusionFilters[0].Filter != "latest*" ||
		r.EncryptionConfiguration.EncryptionType != types.EncryptionTypeKms || *r.RepositoryArn != "arn:aws:ecr:eu-central-1:123456789012:repository/team/app" {
		t.Errorf("described as %+v", r)
	}
	if tags, err := c.ListTagsForResource(ctx, &ecr.ListTagsForResourceInput{ResourceArn: arn}); err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "team" {
		t.Errorf("tags %+v, %v", tags, err)
	}
	_, err = c.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: &name})
	wantCode(t, "no lifecycle policy", err, "LifecyclePolicyNotFoundException")
	policy := `{"rules":[{"rulePriority":1}]}`
	if _, err := c.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: &name, LifecyclePolicyText: &policy}); err != nil {
		t.Error(err)
	}
	if got, err := c.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: &name}); err != nil || *got.LifecyclePolicyText != policy {
		t.Errorf("%+v, %v", got, err)
	}
	_, err = c.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: &name})
	wantCode(t, "no policy", err, "RepositoryPolicyNotFoundException")
	if _, err := c.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: &name, PolicyText: &policy}); err != nil {
		t.Error(err)
	}
	if got, err := c.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: &name}); err != nil || *got.PolicyText != policy {
		t.Errorf("%+v, %v", got, err)
	}
	for bad, param := range map[string]string{"App": "repositoryName", "1app": "repositoryName", "a..b": "repositoryName"} {
		_, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &bad})
		wantCode(t, bad, err, "InvalidParameterException")
		if err != nil && !strings.Contains(err.Error(), param) {
			t.Error(err)
		}
	}
	_, err = c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: aws.String("other"), ImageTagMutability: types.ImageTagMutabilityImmutableWithExclusion})
	wantCode(t, "exclusions without filters", err, "InvalidParameterException")
	// The other way of turning blob mounting on, and of creating on push.
	if _, err := c.PutAccountSetting(ctx, &ecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("ENABLED")}); err != nil {
		t.Error(err)
	}
	if got, err := c.GetAccountSetting(ctx, &ecr.GetAccountSettingInput{Name: aws.String("BLOB_MOUNTING")}); err != nil || *got.Value != "ENABLED" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.CreateRepositoryCreationTemplate(ctx, &ecr.CreateRepositoryCreationTemplateInput{Prefix: aws.String("ROOT"), AppliedFor: []types.RCTAppliedFor{types.RCTAppliedForCreateOnPush}}); err != nil {
		t.Error(err)
	}
	rig := &rig{Server: s, t: t}
	rig.want("POST", rig.do("POST", "/v2/any/blobs/uploads/", nil), 202)
}

func TestImagesByTheSDK(t *testing.T) {
	r := newRig(t)
	c, ctx := sdk(t, r.Server), t.Context()
	repo := aws.String("app")
	child := r.image("app", "", "x")
	r.want("PUT", r.put("app", "1", index(child)), 201)
	pushed := r.clock.Now()
	r.clock.pass(time.Minute)
	signature := r.manifest("app", "{}", []string{"signature"}, func(m *v1.Manifest) {
		m.ArtifactType, m.Config.MediaType = "application/signature", v1.MediaTypeEmptyJSON
		m.Subject = &v1.Descriptor{MediaType: v1.MediaTypeImageIndex, Digest: digestOf(index(child)), Size: int64(len(index(child)))}
	})
	r.want("PUT", r.put("app", sum(signature), signature), 201)

	details, err := c.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: repo})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]types.ImageDetail{}
	for _, d := range details.ImageDetails {
		by[*d.ImageDigest] = d
	}
	if len(by) != 3 {
		t.Fatalf("%d images, want the index, its child and the signature", len(by))
	}
	if d := by[sum(index(child))]; !slices.Equal(d.ImageTags, []string{"1"}) || *d.ImageManifestMediaType != v1.MediaTypeImageIndex || !d.ImagePushedAt.Equal(pushed) {
		t.Errorf("the index is %+v", d)
	}
	if d := by[sum(child)]; len(d.ImageTags) != 0 || *d.ImageSizeInBytes == 0 || *d.ArtifactMediaType != v1.MediaTypeImageConfig {
		t.Errorf("the child is %+v", d)
	}
	if d := by[sum(signature)]; *d.ArtifactMediaType != "application/signature" || *d.SubjectManifestDigest != sum(index(child)) || !d.ImagePushedAt.Equal(pushed.Add(time.Minute)) {
		t.Errorf("the signature is %+v", d)
	}
	untagged, err := c.ListImages(ctx, &ecr.ListImagesInput{RepositoryName: repo, Filter: &types.ListImagesFilter{TagStatus: types.TagStatusUntagged}})
	if err != nil || len(untagged.ImageIds) != 2 {
		t.Errorf("untagged: %+v, %v", untagged, err)
	}
	pages, n := ecr.NewListImagesPaginator(c, &ecr.ListImagesInput{RepositoryName: repo, MaxResults: aws.Int32(1)}), 0
	for pages.HasMorePages() {
		p, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		n += len(p.ImageIds)
	}
	if n != 3 {
		t.Errorf("pages of one list %d images", n)
	}
	_, err = c.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: repo, ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("2")}}})
	wantCode(t, "another tag", err, "ImageNotFoundException")

	referrers, err := c.ListImageReferrers(ctx, &ecr.ListImageReferrersInput{RepositoryName: repo, SubjectId: &types.SubjectIdentifier{ImageDigest: aws.String(sum(index(child)))}})
	if err != nil || len(referrers.Referrers) != 1 || *referrers.Referrers[0].Digest != sum(signature) || *referrers.Referrers[0].ArtifactType != "application/signature" {
		t.Errorf("referrers %+v, %v", referrers, err)
	}
	got, err := c.BatchGetImage(ctx, &ecr.BatchGetImageInput{RepositoryName: repo, ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("1")}, {ImageTag: aws.String("2")}}})
	if err != nil || len(got.Images) != 1 || *got.Images[0].ImageManifest != index(child) || got.Failures[0].FailureCode != types.ImageFailureCodeImageNotFound {
		t.Errorf("BatchGetImage: %+v, %v", got, err)
	}
	remove := func(id types.ImageIdentifier) *ecr.BatchDeleteImageOutput {
		out, err := c.BatchDeleteImage(ctx, &ecr.BatchDeleteImageInput{RepositoryName: repo, ImageIds: []types.ImageIdentifier{id}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out := remove(types.ImageIdentifier{ImageDigest: aws.String(sum(child))}); len(out.Failures) != 1 || out.Failures[0].FailureCode != types.ImageFailureCodeImageReferencedByManifestList {
		t.Errorf("what an index lists: %+v", out)
	}
	if out := remove(types.ImageIdentifier{ImageTag: aws.String("1")}); len(out.ImageIds) != 1 {
		t.Errorf("the index: %+v", out)
	}
	if out := remove(types.ImageIdentifier{ImageDigest: aws.String(sum(child))}); len(out.ImageIds) != 1 {
		t.Errorf("the child after it: %+v", out)
	}
}

// A tag is moved with put-image as AWS's documentation does it, and only with the media type.
func TestPutImageByTheSDK(t *testing.T) {
	r := newRig(t)
	c, ctx := sdk(t, r.Server), t.Context()
	repo := aws.String("app")
	m := r.image("app", "1", "x")
	in := &ecr.PutImageInput{RepositoryName: repo, ImageManifest: &m, ImageTag: aws.String("2")}
	if _, err := c.PutImage(ctx, in); err != nil {
		t.Error(err)
	}
	_, err := c.PutImage(ctx, in)
	wantCode(t, "again", err, "ImageAlreadyExistsException")
	untyped := r.manifest("app", "{ }", nil, func(m *v1.Manifest) { m.MediaType = "" })
	_, err = c.PutImage(ctx, &ecr.PutImageInput{RepositoryName: repo, ImageManifest: &untyped, ImageTag: aws.String("3")})
	wantCode(t, "without a media type", err, "InvalidParameterException")
	if err != nil && !strings.Contains(err.Error(), "Invalid JSON syntax") {
		t.Error(err)
	}
	if _, err := c.PutImage(ctx, &ecr.PutImageInput{RepositoryName: repo, ImageManifest: &untyped, ImageTag: aws.String("3"), ImageManifestMediaType: aws.String(v1.MediaTypeImageManifest)}); err != nil {
		t.Error(err)
	}
	missing := missingLayer(r)
	_, err = c.PutImage(ctx, &ecr.PutImageInput{RepositoryName: repo, ImageManifest: &missing, ImageTag: aws.String("4")})
	wantCode(t, "a missing layer", err, "LayersNotFoundException")
	children := index("gone")
	_, err = c.PutImage(ctx, &ecr.PutImageInput{RepositoryName: repo, ImageManifest: &children, ImageTag: aws.String("4")})
	wantCode(t, "a missing child", err, "ReferencedImagesNotFoundException")
}
