package demo

import (
	"strings"
	"testing"
)

func TestTheDemoSendsNoTokenToARegistryThatIsNotECR(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL_ECR", "")
	t.Setenv("AWS_ENDPOINT_URL", "")
	for registry, want := range map[string]string{
		"https://registry.example.com":                             "not Amazon ECR",
		"http://localhost:5000":                                    "not Amazon ECR",
		"https://public.ecr.aws":                                   "ECR Public",
		"localhost:5000":                                           "no URL",
		"https://123456789012.dkr.ecr.eu-west-1.amazonaws.com":     "",
		"https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn": "",
	} {
		_, err := openAccount(t.Context(), registry)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", registry, err, want)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL_ECR", "http://127.0.0.1:5100")
	t.Setenv("AWS_REGION", "eu-west-1")
	if _, err := openAccount(t.Context(), "http://127.0.0.1:5100"); err != nil {
		t.Errorf("a double: %v", err)
	}
}
