package upstream

import "testing"

func TestECRHosts(t *testing.T) {
	for host, want := range map[string]ECRHost{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":                {Account: "123456789012", Region: "eu-west-1"},
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com:443":            {Account: "123456789012", Region: "eu-west-1"},
		"123456789012.DKR.ECR.eu-west-1.amazonaws.com":                {Account: "123456789012", Region: "eu-west-1"},
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com":       {Account: "123456789012", Region: "us-gov-west-1", FIPS: true},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":            {Account: "123456789012", Region: "cn-north-1"},
		"123456789012.dkr-ecr.eu-west-1.on.aws":                       {Account: "123456789012", Region: "eu-west-1", DualStack: true},
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": {Account: "123456789012", Region: "cn-north-1", DualStack: true},
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu":            {Account: "123456789012", Region: "eusc-de-east-1"},
		"123456789012.dkr.ecr.us-isob-east-1.sc2s.sgov.gov":           {Account: "123456789012", Region: "us-isob-east-1"},
		"public.ecr.aws":     {Public: true},
		"ecr-public.aws.com": {Public: true, DualStack: true},
	} {
		if got, ok := ParseECRHost(host); !ok || got != want {
			t.Errorf("%s: %+v, %v", host, got, ok)
		}
	}
	for _, host := range []string{
		"registry.example.com", "dkr.ecr.eu-west-1.amazonaws.com", "12345.dkr.ecr.eu-west-1.amazonaws.com",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "api.ecr.eu-west-1.amazonaws.com", "", "127.0.0.1:5000",
	} {
		if got, ok := ParseECRHost(host); ok {
			t.Errorf("%s: %+v", host, got)
		}
	}
}
