//go:build soak

package soak

import (
	"context"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"

	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/quarantine"
)

const sweepTime = 2 * time.Minute

func open(t *testing.T, kind string, parameters map[string]any) storagedriver.StorageDriver {
	t.Helper()
	d, err := factory.Create(t.Context(), kind, parameters)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sweptEmpty starts Sluice over the same data ten days later, by its own clock, and waits until its sweeper has left
// nothing in quarantine.
func sweptEmpty(t *testing.T, name string, driver storagedriver.StorageDriver, up *registry) {
	t.Helper()
	later := func() time.Time { return time.Now().Add(10 * 24 * time.Hour) }
	q, err := quarantine.New(driver, quarantine.Options{Retention: 2, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	before, bytes, err := q.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("quarantine in the %s holds %d objects with %d bytes", name, before, bytes)
	if before == 0 {
		t.Error("quarantine is empty before it is swept, so this shows nothing")
	}
	c := config.Default()
	c.Listen, c.Admin = "127.0.0.1:0", ""
	c.Upstreams = []config.Upstream{{URL: "http://" + up.address, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
	p, err := proxy.New(proxy.Options{Config: c, Storage: driver, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	began := time.Now()
	for deadline := began.Add(sweepTime + time.Duration(before)*20*time.Millisecond); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		// Looking at everything would take longer than sweeping it.
		if generations, err := q.Generations(t.Context()); err == nil && len(generations) == 0 {
			t.Logf("swept in %s", time.Since(began).Round(100*time.Millisecond))
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if left, _, err := q.Usage(context.WithoutCancel(t.Context())); left > 0 || err != nil {
		t.Errorf("of %d objects in quarantine %d are left after its time: %v", before, left, err)
	}
}
