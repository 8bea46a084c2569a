//go:build include_azure

package main

import (
	"cmp"
	"context"
	"fmt"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	azuredriver "github.com/distribution/distribution/v3/registry/storage/driver/azure"

	"sluice/proxy/config"
)

const hasAzure = true

func openAzure(ctx context.Context, s config.Azure) (storagedriver.StorageDriver, error) {
	// The driver knows no default type of credentials.
	otherwise := azuredriver.CredentialsTypeDefault
	if s.AccountKey != "" || s.ConnectionString != "" {
		otherwise = azuredriver.CredentialsTypeSharedKey
	}
	credentials := parameters{"type": cmp.Or(s.Credentials.Type, otherwise)}
	credentials.text("clientid", s.Credentials.ClientID)
	credentials.text("tenantid", s.Credentials.TenantID)
	credentials.text("secret", s.Credentials.Secret.Reveal())
	p := parameters{"accountname": s.AccountName, "container": s.Container, "skipverify": s.SkipVerify, "credentials": map[string]any(credentials)}
	p.text("accountkey", s.AccountKey.Reveal())
	p.text("connectionstring", s.ConnectionString.Reveal())
	p.text("realm", s.Realm)
	p.text("rootdirectory", s.RootDirectory)
	p.text("serviceurl", s.ServiceURL)
	p.text("retry_delay", s.RetryDelay)
	if s.MaxRetries != 0 {
		p["max_retries"] = s.MaxRetries
	}
	params, err := azuredriver.NewParameters(p)
	if err != nil {
		return nil, err
	}
	d, err := azuredriver.New(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("container %s: %w", s.Container, err)
	}
	return d, nil
}
