package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
)

// ecrSource signs in to Amazon ECR. The token of a private registry is what Basic wants and lives for 12
// hours. ECR Public refuses it as Basic ("Your Authorization Token is invalid"); there it is the
// password for the token service that its challenge names, as for docker login.
type ecrSource struct {
	host   string // for messages
	ecr    ECRHost
	client aws.HTTPClient // nil: the SDK's own
	now    func() time.Time
	jitter func() float64 // [0,1)

	mu   sync.Mutex
	kept credential // of ECR Public, whose Bearer tokens live for minutes
}

func (s *ecrSource) credential(ctx context.Context) (credential, error) {
	if s.ecr.Public {
		s.mu.Lock()
		c := s.kept
		s.mu.Unlock()
		if s.now().Before(c.renew) {
			return c, nil
		}
	}
	cfg, err := awsConfig(ctx, s.host, s.ecr, s.client)
	if err != nil {
		return credential{}, err
	}
	token, expires, err := s.token(ctx, cfg)
	if err != nil {
		return credential{}, err
	}
	c, err := s.read(token, expires)
	if err == nil && s.ecr.Public {
		s.mu.Lock()
		s.kept = c
		s.mu.Unlock()
	}
	return c, err
}

// refused forgets a password that the token service did not take.
func (s *ecrSource) refused() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept = credential{}
}

func (s *ecrSource) token(ctx context.Context, cfg aws.Config) (token string, expires time.Time, err error) {
	if s.ecr.Public {
		// The two actions are needed: GetAuthorizationToken's API reference says so.
		const action = "ecr-public:GetAuthorizationToken (and sts:GetServiceBearerToken)"
		out, err := ecrpublic.NewFromConfig(cfg).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil {
			return "", expires, awsError(s.host, cfg.Region, action, err)
		}
		if out.AuthorizationData == nil {
			return "", expires, s.noToken()
		}
		return aws.ToString(out.AuthorizationData.AuthorizationToken), aws.ToTime(out.AuthorizationData.ExpiresAt), nil
	}
	out, err := ecr.NewFromConfig(cfg, s.ecr.endpoint).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", expires, awsError(s.host, cfg.Region, "ecr:GetAuthorizationToken", err)
	}
	if len(out.AuthorizationData) == 0 {
		return "", expires, s.noToken()
	}
	return aws.ToString(out.AuthorizationData[0].AuthorizationToken), aws.ToTime(out.AuthorizationData[0].ExpiresAt), nil
}

// endpoint chooses the API that belongs to the registry's host: FIPS for FIPS, dual stack for dual
// stack. One of the operator's own (AWS_ENDPOINT_URL_ECR) is taken as it is; the SDK refuses both at once.
func (h ECRHost) endpoint(o *ecr.Options) {
	if o.BaseEndpoint != nil {
		o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateDisabled
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateDisabled
		return
	}
	if h.FIPS {
		o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if h.DualStack {
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
}

func (s *ecrSource) noToken() error {
	return errorf(ErrCredentials, nil, "upstream %s: AWS answered without an authorization token; check AWS_ENDPOINT_URL_ECR if it is set", s.host)
}

// read takes the user and the password out of a token, and decides when to renew it: after five to six
// eighths of its life, at another moment in every replica.
func (s *ecrSource) read(token string, expires time.Time) (credential, error) {
	raw, err := base64.StdEncoding.DecodeString(token)
	user, password, ok := strings.Cut(string(raw), ":")
	if err != nil || !ok || password == "" {
		return credential{}, errorf(ErrCredentials, errors.New("not base64 of user:password"), "upstream %s: AWS answered an authorization token that cannot be read", s.host)
	}
	now := s.now()
	left := expires.Sub(now)
	if left <= 0 {
		// A clock is wrong, or the answer took longer than the token lives. It is tried, since a token for every request
		// would not set a clock right, and replaced whenever it is refused.
		return credential{username: user, password: password, renew: now.Add(time.Minute), expires: now}, nil
	}
	margin := left/4 + time.Duration(s.jitter()*float64(left)/8)
	return credential{username: user, password: password, renew: expires.Add(-margin), expires: expires}, nil
}
