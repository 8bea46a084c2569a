package conformance

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory" // named in the configuration below
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/sirupsen/logrus"
)

// serve puts a handler on a loopback port until the test ends.
func serve(t *testing.T, h http.Handler) Target {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // olareg panics on ?n=0, which the profile says
	s.Start()
	t.Cleanup(s.Close)
	return Target{URL: s.URL, Client: s.Client()}
}

// olaregTarget is olareg with deletion of everything and short pages of referrers.
func olaregTarget(t *testing.T) Target {
	t.Helper()
	yes := true
	h := olareg.New(config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem},
		API: config.ConfigAPI{
			DeleteEnabled: &yes, Blob: config.ConfigAPIBlob{DeleteEnabled: &yes},
			Referrer: config.ConfigAPIReferrer{Limit: 4096},
		},
		Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { _ = h.Close() })
	target := serve(t, h)
	target.Profile = Profile{}
	return target
}

// distributionTarget is the registry that Sluice embeds.
func distributionTarget(t *testing.T) Target {
	t.Helper()
	var c configuration.Configuration
	c.Version = "0.1"
	c.Log.Level = "panic"
	c.Log.AccessLog.Disabled = true
	c.Storage = configuration.Storage{"inmemory": {}, "delete": {"enabled": true}}
	c.HTTP.Secret = "the same for all sessions of this test"
	logrus.SetOutput(io.Discard)
	app := handlers.NewApp(context.Background(), &c)
	t.Cleanup(func() { _ = app.Shutdown() })
	target := serve(t, app)
	target.Profile = Profile{}
	return target
}

func TestOlaregConforms(t *testing.T)       { Run(t, olaregTarget(t)) }
func TestDistributionConforms(t *testing.T) { Run(t, distributionTarget(t)) }
