package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
)

// ecrRepositories makes repositories in a private registry of Amazon ECR, with AWS's default credentials whatever the registry's
// are: an authorization token opens the registry, not the API.
type ecrRepositories struct {
	upstream string // for messages
	host     ECRHost
	client   aws.HTTPClient // nil: the SDK's own
	settings RepositorySettings
	log      *slog.Logger
}

var _ creator = (*ecrRepositories)(nil)

// create makes everything that CreateRepository takes in one call, so that no tag is ever mutable that should not be. The
// policies are calls of their own.
func (c *ecrRepositories) create(ctx context.Context, name string) (exists bool, err error) {
	cfg, err := awsConfig(ctx, c.upstream, c.host, c.client)
	if err != nil {
		return false, c.failed(name, "ecr:CreateRepository", err)
	}
	api := ecr.NewFromConfig(cfg, c.host.endpoint)
	_, err = api.CreateRepository(ctx, c.input(name))
	var already *types.RepositoryAlreadyExistsException
	switch {
	case errors.As(err, &already):
		c.log.Info("repository is there already", "upstream", c.upstream, "repository", name)
	case err != nil:
		return false, c.failed(name, "ecr:CreateRepository", err)
	default:
		c.log.Info("repository made", "upstream", c.upstream, "repository", name)
	}
	made := already == nil
	if err := c.putLifecycle(ctx, api, name, made); err != nil {
		return true, err
	}
	return true, c.putPolicy(ctx, api, name, made)
}

func (c *ecrRepositories) input(name string) *ecr.CreateRepositoryInput {
	in := &ecr.CreateRepositoryInput{
		RepositoryName: &name, RegistryId: &c.host.Account,
		ImageTagMutability: types.ImageTagMutability(c.settings.TagMutability),
	}
	for _, tag := range c.settings.TagExclusions {
		in.ImageTagMutabilityExclusionFilters = append(in.ImageTagMutabilityExclusionFilters,
			types.ImageTagMutabilityExclusionFilter{Filter: &tag, FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard})
	}
	if c.settings.Encryption != "" {
		in.EncryptionConfiguration = &types.EncryptionConfiguration{EncryptionType: types.EncryptionType(c.settings.Encryption)}
		if c.settings.KMSKey != "" {
			in.EncryptionConfiguration.KmsKey = &c.settings.KMSKey
		}
	}
	for _, k := range slices.Sorted(maps.Keys(c.settings.Tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: &k, Value: aws.String(c.settings.Tags[k])})
	}
	return in
}

// putLifecycle sets the lifecycle policy. In a repository that somebody else made it replaces none: a
// policy can delete images.
func (c *ecrRepositories) putLifecycle(ctx context.Context, api *ecr.Client, name string, made bool) error {
	if c.settings.LifecyclePolicy == "" {
		return nil
	}
	if !made {
		_, err := api.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: &name, RegistryId: &c.host.Account})
		var none *types.LifecyclePolicyNotFoundException
		if !errors.As(err, &none) {
			return c.failed(name, "ecr:GetLifecyclePolicy", err)
		}
	}
	_, err := api.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{
		RepositoryName: &name, RegistryId: &c.host.Account, LifecyclePolicyText: &c.settings.LifecyclePolicy,
	})
	return c.failed(name, "ecr:PutLifecyclePolicy", err)
}

func (c *ecrRepositories) putPolicy(ctx context.Context, api *ecr.Client, name string, made bool) error {
	if c.settings.RepositoryPolicy == "" {
		return nil
	}
	if !made {
		_, err := api.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: &name, RegistryId: &c.host.Account})
		var none *types.RepositoryPolicyNotFoundException
		if !errors.As(err, &none) {
			return c.failed(name, "ecr:GetRepositoryPolicy", err)
		}
	}
	_, err := api.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{
		RepositoryName: &name, RegistryId: &c.host.Account, PolicyText: &c.settings.RepositoryPolicy,
	})
	return c.failed(name, "ecr:SetRepositoryPolicy", err)
}

// deniedAction is what IAM says is missing. Making a repository with tags needs ecr:TagResource too, and
// one with a key of one's own actions of KMS.
var deniedAction = regexp.MustCompile(`not authorized to perform: ([a-z0-9-]+:[A-Za-z]+)`)

// failed explains an error of a call; nil is nil.
func (c *ecrRepositories) failed(name, action string, err error) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf("upstream %s lacks repository %s, and Sluice cannot make it as configured", c.upstream, name)
	var api smithy.APIError
	if errors.As(err, &api) {
		said := clean(fmt.Sprintf("%s: %s", api.ErrorCode(), api.ErrorMessage()))
		switch code := api.ErrorCode(); {
		case strings.HasPrefix(code, "AccessDenied"):
			if m := deniedAction.FindStringSubmatch(api.ErrorMessage()); m != nil {
				action = m[1]
			}
			return errorf(ErrCreate, nil, "%s: allow %s on it in the IAM policy of Sluice's principal, or make it beforehand (AWS says %s)", what, action, said)
		case code == "LimitExceededException": // the quota of repositories, which the SDK counts among the throttles
		case strings.Contains(code, "Throttl"), code == "TooManyRequestsException", code == "RequestLimitExceeded":
			return errorf(ErrThrottled, nil, "%s now: AWS throttles %s (%s)", what, action, said)
		case api.ErrorFault() == smithy.FaultServer:
			return errorf(ErrUnreachable, nil, "%s now: AWS fails at %s (%s)", what, action, said)
		}
		return errorf(ErrCreate, nil, "%s: AWS refuses %s: %s", what, action, said)
	}
	if !errors.Is(err, ErrCredentials) {
		err = awsError(c.upstream, c.host.Region, action, err)
	}
	if errors.Is(err, ErrUnreachable) {
		return err
	}
	return errorf(ErrCreate, nil, "%s: %v", what, err)
}
