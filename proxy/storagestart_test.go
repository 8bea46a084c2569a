package proxy

import (
	"errors"
	"strings"
	"testing"

	"sluice/proxy/config"
)

// The texts are what Amazon's SDK, Amazon S3 and versitygw write.
func TestAStorageThatCannotBeOpenedIsNamedWithWhatToDo(t *testing.T) {
	bucket := config.Storage{S3: &config.S3{Bucket: "acme"}}
	folder := config.Storage{Filesystem: &config.Filesystem{RootDirectory: "/var/lib/sluice"}}
	for _, tt := range []struct {
		name    string
		storage config.Storage
		text    string
		want    []string
	}{
		{"no bucket", bucket, "NoSuchBucket: The specified bucket does not exist.\n\tstatus code: 404", []string{"(s3, bucket acme)", "storage.s3.bucket"}},
		{"no credentials", bucket, "NoCredentialProviders: no valid providers in chain. Deprecated.", []string{"AWS_ACCESS_KEY_ID", "role"}},
		{"a wrong key", bucket, "SignatureDoesNotMatch: The request signature we calculated does not match\n\tstatus code: 403", []string{"check the access key"}},
		{"no rights", bucket, "AccessDenied: Access Denied\n\tstatus code: 403", []string{`"More than one"`}},
		{"nobody there", bucket, `RequestError: send request failed; caused by: dial tcp 127.0.0.1:7071: connect: connection refused`, []string{"regionendpoint"}},
		{"http", bucket, `Get "https://127.0.0.1:7070/sluice/format": http: server gave HTTP response to HTTPS client`, []string{"write http:// before the host"}},
		{"another region", bucket, "AuthorizationHeaderMalformed: The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'", []string{"storage.s3.region"}},
		{"a folder", folder, "/format in the storage does not say \"sluice 1\"", []string{"(folder /var/lib/sluice)"}},
	} {
		cause := errors.New(tt.text)
		err := storageAtStart(tt.storage, cause)
		if !errors.Is(err, cause) {
			t.Errorf("%s: lost its cause: %v", tt.name, err)
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q does not say %s", tt.name, err, want)
			}
		}
	}
}
