package main

import (
	"context"
	"fmt"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	s3driver "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"

	"sluice/proxy/config"
)

// regionElsewhere is what stores that are not Amazon's take when no region is set. The driver would sign for the
// region "<nil>".
const regionElsewhere = "us-east-1"

func openS3(ctx context.Context, s config.S3) (storagedriver.StorageDriver, error) {
	p := parameters{
		"bucket":          s.Bucket,
		"region":          regionElsewhere,
		"forcepathstyle":  s.ForcePathStyle,
		"encrypt":         s.Encrypt,
		"secure":          s.Secure,
		"skipverify":      s.SkipVerify,
		"v4auth":          s.V4Auth,
		"usedualstack":    s.UseDualStack,
		"usefipsendpoint": s.UseFIPSEndpoint,
		"accelerate":      s.Accelerate,
	}
	p.text("region", s.Region)
	p.text("regionendpoint", s.RegionEndpoint)
	p.text("rootdirectory", s.RootDirectory)
	p.text("accesskey", s.AccessKey)
	p.text("secretkey", s.SecretKey.Reveal())
	p.text("keyid", s.KeyID)
	p.text("storageclass", s.StorageClass)
	p.text("objectacl", s.ObjectACL)
	p.text("useragent", s.UserAgent)
	p.text("loglevel", s.LogLevel)
	p.number("chunksize", int64(s.ChunkSize))
	p.number("multipartcopychunksize", int64(s.MultipartCopyChunkSize))
	p.number("multipartcopymaxconcurrency", int64(s.MultipartCopyMaxConcurrency))
	p.number("multipartcopythresholdsize", int64(s.MultipartCopyThresholdSize))
	d, err := s3driver.FromParameters(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", s.Bucket, err)
	}
	return d, nil
}
