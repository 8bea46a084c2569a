package proxy

import (
	"fmt"
	"strings"

	"sluice/proxy/config"
)

// storageAtStart says which storage it was that could not be opened, and what to do about it. The S3 driver hands on
// what Amazon's SDK writes, which names neither the bucket nor the setting.
func storageAtStart(s config.Storage, err error) error {
	err = fmt.Errorf("storage (%s): %w", s.Where(), err)
	if advice := storageAdvice(err.Error()); s.S3 != nil && advice != "" {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return err
}

func storageAdvice(text string) string {
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("NoCredentialProviders", "EC2RoleRequestError"):
		return "there are no AWS credentials where the driver looks: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine, pod or task a role"
	case has("NoSuchBucket"):
		return "make the bucket, or correct storage.s3.bucket, region or regionendpoint"
	case has("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "RequestTimeTooSkewed"):
		return "check the access key that Sluice has (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or its role), storage.s3.region and this machine's clock"
	case has("AccessDenied", "Forbidden", "status code: 403"):
		return "allow Sluice's principal what README lists under \"More than one\", on this bucket and its objects"
	case has("server gave HTTP response to HTTPS client"):
		return "it speaks plain http: write http:// before the host in storage.s3.regionendpoint"
	case has("AuthorizationHeaderMalformed", "BucketRegionError", "PermanentRedirect", "status code: 301"):
		return "the bucket is in another region: correct storage.s3.region"
	case has("x509:"):
		return "its certificate is not trusted: name the file of its authority with SSL_CERT_FILE"
	case has("connection refused", "no such host", "i/o timeout"):
		return "check storage.s3.regionendpoint and region, and that the store can be reached from here"
	}
	return ""
}
