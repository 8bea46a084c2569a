package upstream

import (
	"strings"

	"github.com/awslabs/amazon-ecr-credential-helper/ecr-login/api"
)

// ECRHost is what the host name of an Amazon ECR registry says.
type ECRHost struct {
	Account   string // 12 digits; "" for ECR Public
	Region    string // "" for ECR Public
	FIPS      bool
	DualStack bool
	Public    bool // public.ecr.aws: Bearer tokens, other quotas
}

// ParseECRHost reads a host name, of any partition, FIPS, dual stack and China included, as the AWS
// credential helper does (amazon-ecr-credential-helper, ecr-login/api/client.go). A port does not count.
func ParseECRHost(host string) (ECRHost, bool) {
	r, err := api.ExtractRegistry(strings.ToLower(host))
	if err != nil {
		return ECRHost{}, false
	}
	return ECRHost{
		Account: r.ID, Region: r.Region, FIPS: r.FIPS, Public: r.Service == api.ServiceECRPublic,
		DualStack: strings.Contains(host, ".dkr-ecr") || r.Name == "ecr-public.aws.com",
	}, true
}

// ECR tells whether the registry is Amazon ECR, by its host name or because its credentials are ECR's
// (then behind a name of one's own, of which nothing can be read).
func (r *Registry) ECR() (ECRHost, bool) { return r.ecr, r.isECR }
