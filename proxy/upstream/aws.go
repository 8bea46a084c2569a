package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
)

// publicRegion is the one that ECR Public has (amazon-ecr-credential-helper, ecr-login/api/factory.go).
const publicRegion = "us-east-1"

// awsConfig is AWS's own default chain: environment, profile, SSO, web identity (IRSA, GitHub), container
// and instance roles. It is read at every sign-in, which is some times a day, so that a profile or a
// token file that was replaced counts. The region is the registry's own when its host names one.
func awsConfig(ctx context.Context, host string, h ECRHost, client aws.HTTPClient) (aws.Config, error) {
	o := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
	switch {
	case h.Public:
		o = append(o, config.WithRegion(publicRegion))
	case h.Region != "":
		o = append(o, config.WithRegion(h.Region))
	}
	if client != nil {
		o = append(o, config.WithHTTPClient(client))
	}
	cfg, err := config.LoadDefaultConfig(ctx, o...)
	if err != nil {
		return cfg, errorf(ErrCredentials, nil, "upstream %s: the AWS configuration cannot be used: %s; correct AWS_PROFILE, AWS_CONFIG_FILE or what they name", host, awsText(err))
	}
	if cfg.Region == "" {
		return cfg, errorf(ErrCredentials, nil, "upstream %s: this host name does not tell its AWS region; set AWS_REGION, or `region` in the AWS profile", host)
	}
	return cfg, nil
}

// awsError is a call of the ECR API that failed, with AWS's own reason and what to do about it. The cause
// is not wrapped: it may hold what a credential process printed.
func awsError(host, region, action string, err error) error {
	var api smithy.APIError
	if errors.As(err, &api) {
		return awsRefusal(host, region, action, api)
	}
	text := awsText(err)
	var dns *net.DNSError
	var dial *net.OpError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return errorf(ErrUnreachable, nil, "upstream %s: gave up waiting for AWS to answer %s in %s: %s", host, action, region, text)
	case strings.Contains(text, "get credentials") || strings.Contains(text, "failed to retrieve credentials") || strings.Contains(text, "failed to refresh cached credentials"):
		// aws-sdk-go-v2 tries the instance role last, so that its failure is what remains when there is nothing at all.
		advice := "correct the AWS profile, role or token that it names"
		if strings.Contains(text, "no EC2 IMDS role found") {
			advice = "there are none where the AWS SDK looks: set AWS_PROFILE (after `aws sso login`) or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine, pod or task a role"
		}
		return errorf(ErrCredentials, nil, "upstream %s: no AWS credentials for %s: %s; %s", host, action, text, advice)
	case errors.As(err, &dns) && dns.IsNotFound:
		return errorf(ErrUnreachable, nil, "upstream %s: the ECR API of %s cannot be found for %s: %s; check the region in the upstream's url, AWS_ENDPOINT_URL_ECR if it is set, and this machine's name server", host, region, action, text)
	case errors.As(err, &dns), errors.As(err, &dial):
		return errorf(ErrUnreachable, nil, "upstream %s: the ECR API of %s cannot be reached for %s: %s; allow the way to it, or make a VPC endpoint for ecr.api", host, region, action, text)
	}
	return errorf(ErrCredentials, nil, "upstream %s: %s failed: %s; check the AWS credentials of Sluice and the region %s", host, action, text, region)
}

func awsRefusal(host, region, action string, api smithy.APIError) error {
	said := clean(fmt.Sprintf("%s: %s", api.ErrorCode(), api.ErrorMessage()))
	switch code := api.ErrorCode(); {
	case strings.HasPrefix(code, "AccessDenied"):
		return errorf(ErrCredentials, nil, "upstream %s: AWS refuses %s: %s; allow it in the IAM policy of Sluice's principal", host, action, said)
	case strings.Contains(code, "Throttl"), code == "TooManyRequestsException", code == "RequestLimitExceeded", api.ErrorFault() == smithy.FaultServer:
		return errorf(ErrUnreachable, nil, "upstream %s: AWS does not answer %s now: %s; try again later", host, action, said)
	case strings.HasPrefix(code, "ExpiredToken"):
		return errorf(ErrCredentials, nil, "upstream %s: AWS refuses %s: %s; renew Sluice's AWS credentials (aws sso login, or new keys in its environment)", host, action, said)
	case code == "UnrecognizedClientException", code == "InvalidClientTokenId", strings.HasPrefix(code, "InvalidSignature"), strings.HasPrefix(code, "SignatureDoesNotMatch"):
		return errorf(ErrCredentials, nil, "upstream %s: AWS refuses %s: %s; check Sluice's AWS keys, that they are of %s's partition, and the clock", host, action, said, region)
	}
	return errorf(ErrCredentials, nil, "upstream %s: AWS refuses %s: %s", host, action, said)
}

// awsText is an error of the SDK as it may be shown.
func awsText(err error) string {
	var process *processcreds.ProviderError
	if errors.As(err, &process) {
		return "the profile's credential_process failed (its output is not shown)" // which may be the credentials
	}
	var u *url.Error
	if errors.As(err, &u) {
		if c := clean(err.Error()); !strings.Contains(c, u.URL) {
			return c
		}
		return clean(u.Err.Error())
	}
	return clean(err.Error())
}

// queries of URLs may hold a token: pre-signed requests to STS, container credentials.
var queries = regexp.MustCompile(`\?[^\s"]+`)

// clean is the text on one line, without queries and of bounded length. The reason stands at its end.
func clean(s string) string {
	s = strings.Join(strings.Fields(queries.ReplaceAllString(s, "?...")), " ")
	if len(s) > 500 {
		s = s[:100] + " ... " + s[len(s)-395:]
	}
	return s
}
