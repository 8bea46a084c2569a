package conformance

import (
	"context"
	"io"
	"log"
	"log/slog"
	"maps"
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

const unknownTypes = "refuses media types that it does not know"

// newOlareg deletes everything it is asked to and has short pages of referrers.
func newOlareg(t *testing.T) http.Handler {
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
	return h
}

func olaregProfile() Profile {
	return Profile{
		"Push/Pushing Manifests/a document of an unknown type*comes back as it is":           unknownTypes,
		"Push/Pushing Manifests/a document of an unknown type*under several tags":            unknownTypes,
		"Content Management/Deleting Manifests/a document of an unknown type*":               unknownTypes,
		"Push/*/POST then PUT/a body that does not match the digest is DIGEST_INVALID":       "says BLOB_UPLOAD_INVALID",
		"Push/Pushing a blob in chunks/the status of a session that has ended is 404":        "says 400",
		"Push/Cancel a blob upload/the status of a cancelled session is 404":                 "says 400",
		"API/Endpoints/an upload session that never was is 404":                              "says 400",
		"Content Discovery/Listing Tags/n of 0 is an empty list without Link":                "panics",
		"Content Discovery/Listing Tags/a repository that does not exist is 404":             "every repository exists",
		"API/Error Codes/tags of a repository that does not exist is NAME_UNKNOWN":           "every repository exists",
		"Content Discovery/Listing Referrers/a digest that is none is 400":                   "an empty list",
		"API/Error Codes/POST of an upload under a name outside the grammar is NAME_INVALID": "404 without a body",
		"Content Management/Deleting Manifests/an index may go and its images stay":          "forgets the images with their index",
	}
}

func olaregTarget(t *testing.T) Target {
	t.Helper()
	target := serve(t, newOlareg(t))
	target.Profile = olaregProfile()
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
	const (
		referrers = "has no referrers API and does not read subjects"
		elsewhere = "wants every layer, or a configured list of URLs"
	)
	target.Profile = Profile{
		"Push/*/Single POST/is 201 at once":                                                     "opens a session",
		"Push/Pushing Manifests/* named by SHA-512 comes back as it is":                         "digests of manifests are SHA-256",
		"Push/Pushing Manifests/an OCI image with a layer elsewhere*comes back as it is":        elsewhere,
		"Push/Pushing Manifests/an OCI image with a layer elsewhere*under several tags":         elsewhere,
		"Content Management/Deleting Manifests/an OCI image with a layer elsewhere *":           elsewhere,
		"Push/Pushing Manifests/a document of an unknown type*comes back as it is":              unknownTypes,
		"Push/Pushing Manifests/a document of an unknown type*under several tags":               unknownTypes,
		"Content Management/Deleting Manifests/a document of an unknown type*":                  unknownTypes,
		"Push/Pushing Manifests/a manifest of 20 MiB is 413":                                    "says 400",
		"Push/Pushing Manifests/tags in the query are pushed":                                   "ignores the query",
		"Push/Pushing Manifests/Pushing Manifests with Subject/* is answered with OCI-Subject*": referrers,
		"Content Discovery/Listing Referrers/*":                                                 referrers,
		"Content Discovery/Listing Tags/a repository without tags *":                            "says 404",
		"API/Error Codes/PUT to a session that never was is BLOB_UPLOAD_UNKNOWN":                "says BLOB_UPLOAD_INVALID: the URL lacks its state",
		"API/Error Codes/POST of an upload under a name outside the grammar is NAME_INVALID":    "404 in plain text",
	}
	return target
}

// anyTypeTarget is olareg, and takes manifests of any type besides: a proxy forwards what it does not know.
func anyTypeTarget(t *testing.T) Target {
	t.Helper()
	target := serve(t, newAnyType(newOlareg(t)))
	target.Profile = maps.Clone(olaregProfile())
	maps.DeleteFunc(target.Profile, func(_, reason string) bool { return reason == unknownTypes })
	return target
}

// longChunksTarget is olareg, and wants chunks of at least 1000 bytes.
func longChunksTarget(t *testing.T) Target {
	t.Helper()
	target := serve(t, newLongChunks(newOlareg(t), 1000))
	target.Profile = olaregProfile()
	return target
}

func TestLongChunksConforms(t *testing.T)   { Run(t, longChunksTarget(t)) }
func TestAnyTypeConforms(t *testing.T)      { Run(t, anyTypeTarget(t)) }
func TestOlaregConforms(t *testing.T)       { Run(t, olaregTarget(t)) }
func TestDistributionConforms(t *testing.T) { Run(t, distributionTarget(t)) }
