package demo

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-containerregistry/pkg/authn"

	"sluice/proxy/upstream"
)

// An account is an ECR registry as its owner sees it, by the control plane and not through Sluice.
type account struct {
	host   string // of the registry
	plain  bool   // http
	id     *string
	client *ecr.Client
}

// openAccount finds credentials and region as every AWS tool does; the host name of the registry says more.
func openAccount(ctx context.Context, registry string) (*account, error) {
	u, err := url.Parse(registry)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("upstream %q is no URL: write https://ACCOUNT.dkr.ecr.REGION.amazonaws.com", registry)
	}
	a := &account{host: u.Host, plain: u.Scheme == "http"}
	var options []func(*config.LoadOptions) error
	switch h, ok := upstream.ParseECRHost(u.Host); {
	case ok && h.Public:
		return nil, errors.New("the demo needs a private registry: ECR Public has another API")
	case ok:
		a.id = aws.String(h.Account)
		options = append(options, config.WithRegion(h.Region))
	case os.Getenv("AWS_ENDPOINT_URL_ECR") == "" && os.Getenv("AWS_ENDPOINT_URL") == "":
		// Any other host would be sent a token of the account that the environment has.
		return nil, fmt.Errorf("%s is not Amazon ECR by its name, and the demo shows what ECR lists: write https://ACCOUNT.dkr.ecr.REGION.amazonaws.com, "+
			"set AWS_ENDPOINT_URL_ECR for a double of ECR, or leave --upstream (SLUICE_UPSTREAM) out", u.Host)
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	a.client = ecr.NewFromConfig(cfg)
	return a, nil
}

// authenticator is what `aws ecr get-login-password | docker login` would store.
func (a *account) authenticator(ctx context.Context) (authn.Authenticator, error) {
	out, err := a.client.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return nil, fmt.Errorf("get a token for %s: %w", a.host, err)
	}
	if len(out.AuthorizationData) == 0 {
		return nil, fmt.Errorf("get a token for %s: the answer has none", a.host)
	}
	b, err := base64.StdEncoding.DecodeString(aws.ToString(out.AuthorizationData[0].AuthorizationToken))
	user, password, ok := strings.Cut(string(b), ":")
	if err != nil || !ok {
		return nil, fmt.Errorf("get a token for %s: the answer is no token", a.host)
	}
	return &authn.Basic{Username: user, Password: password}, nil
}

// create makes a repository unless it is there.
func (a *account) create(ctx context.Context, repository string) error {
	_, err := a.client.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repository, RegistryId: a.id})
	var exists *types.RepositoryAlreadyExistsException
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("create repository %s in %s: %w", repository, a.host, err)
	}
	return nil
}

// images lists a repository.
func (a *account) images(ctx context.Context, repository string) ([]types.ImageDetail, error) {
	var all []types.ImageDetail
	pages := ecr.NewDescribeImagesPaginator(a.client, &ecr.DescribeImagesInput{RepositoryName: &repository, RegistryId: a.id})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("list the images of %s in %s: %w", repository, a.host, err)
		}
		all = append(all, page.ImageDetails...)
	}
	return all, nil
}
