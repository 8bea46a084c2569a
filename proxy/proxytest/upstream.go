package proxytest

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the storage of NewDistribution
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/sirupsen/logrus"
)

// Upstream is a registry in this process with its storage laid open.
type Upstream struct {
	Kind    string       // distribution or olareg
	URL     string       // http://127.0.0.1:port, through UpstreamOptions.Wrap
	Handler http.Handler // the registry itself, without Wrap
	Server  *httptest.Server

	running atomic.Int64
	root    string // folder of the storage
	read    func(u *Upstream) (*Contents, error)
	seed    func(u *Upstream, repository string, blobs []*Blob) error
}

// UpstreamOptions of a registry double; the zero value is the strict registry over http.
type UpstreamOptions struct {
	Wrap        func(http.Handler) http.Handler // recorders and failing wrappers between the server and the registry
	TLS         bool                            // the certificate is Server.Certificate()
	Delete      bool                            // DELETE works
	NoReferrers bool                            // olareg without its referrers API; distribution never has one
	Root        string                          // storage folder, an existing one is served again; default a new one that goes with the test
	Disk        bool                            // the new folder is t.TempDir(), for layers too big for /dev/shm

	// NoValidation lets distribution take a manifest or an index although what it refers to is missing, as a registry
	// with validation.disabled does: what dangles there, whoever pushed it let dangle.
	NoValidation bool
}

// NewDistribution serves distribution's registry with full validation over a filesystem storage: no referrers API, an
// index whose manifests or a manifest whose blobs are missing is refused.
func NewDistribution(t testing.TB, o UpstreamOptions) *Upstream {
	t.Helper()
	u := &Upstream{Kind: "distribution", root: folder(t, o), read: readDistribution, seed: seedDistribution}
	c := &configuration.Configuration{}
	c.Storage = configuration.Storage{
		"filesystem":  {"rootdirectory": u.root},
		"delete":      {"enabled": o.Delete},
		"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}
	c.HTTP.Secret = "the same in every process of a test"
	c.Validation.Manifests.Indexes.Platforms = "all"
	c.Validation.Disabled = o.NoValidation
	c.Catalog.MaxEntries = 1000 // what a configuration file that does not say comes to
	c.Log.Level = "error"
	quiet()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	u.Handler = handlers.NewApp(ctx, c)
	u.serve(t, o)
	return u
}

// NewOlareg serves olareg over a folder: full OCI 1.1 with referrers, passes the conformance suite whole. Its garbage
// collection is off, so that what was sent is still there to be looked at.
func NewOlareg(t testing.TB, o UpstreamOptions) *Upstream {
	t.Helper()
	u := &Upstream{Kind: "olareg", root: folder(t, o), read: readOlareg, seed: seedOlareg}
	off, on, referrers := false, true, !o.NoReferrers
	server := olareg.New(config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreDir, RootDir: u.root, GC: config.ConfigGC{
			Frequency: -1, GracePeriod: -1, RepoUploadMax: -1, Untagged: &off, EmptyRepo: &off, ReferrersDangling: &off, ReferrersWithSubj: &off,
		}},
		API: config.ConfigAPI{
			DeleteEnabled: &o.Delete, PushEnabled: &on, Blob: config.ConfigAPIBlob{DeleteEnabled: &o.Delete},
			Referrer: config.ConfigAPIReferrer{Enabled: &referrers},
		},
		Log: slog.New(slog.DiscardHandler),
	})
	u.Handler = &settled{
		next: server, repos: map[string]*settling{},
		create: func(repository string) error { return seedOlareg(u, repository, nil) },
	}
	u.serve(t, o)
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Logf("close olareg: %v", err)
		}
	})
	return u
}

// Upstreams are the constructors by name, for tests that run over both.
func Upstreams() map[string]func(testing.TB, UpstreamOptions) *Upstream {
	return map[string]func(testing.TB, UpstreamOptions) *Upstream{"distribution": NewDistribution, "olareg": NewOlareg}
}

func (u *Upstream) serve(t testing.TB, o UpstreamOptions) {
	h := u.Handler
	if o.Wrap != nil {
		h = o.Wrap(h)
	}
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.running.Add(1)
		defer u.running.Add(-1)
		h.ServeHTTP(w, r)
	}))
	u.Server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // cut connections are meant
	if o.TLS {
		u.Server.StartTLS()
	} else {
		u.Server.Start()
	}
	t.Cleanup(u.Server.Close)
	u.URL = u.Server.URL
}

// Running is how many requests are being answered: some go on for a while whose client has gone.
func (u *Upstream) Running() int { return int(u.running.Load()) }

// folder is in memory where the machine has such a file system: distribution syncs every small file to disk, and a test
// that pushes for every n would wait for nothing else.
func folder(t testing.TB, o UpstreamOptions) string {
	t.Helper()
	if o.Root != "" {
		return o.Root
	}
	if !o.Disk {
		if dir, err := os.MkdirTemp("/dev/shm", "sluice-proxytest-"); err == nil {
			t.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Errorf("remove the storage of a test: %v", err)
				}
			})
			return filepath.Join(dir, "storage")
		}
	}
	return filepath.Join(t.TempDir(), "storage")
}

// Inspect reads the whole storage: what is there, not what the registry says is there.
func (u *Upstream) Inspect(t testing.TB) *Contents {
	t.Helper()
	c, err := u.read(u)
	if err != nil {
		t.Fatalf("inspect the storage of %s: %v", u.Kind, err)
	}
	return c
}

// Seed puts the tree's missing blobs into a repository's storage, as zeroes of the right size: the registry has them
// ("already there" for a push), though nobody could verify them. Do it before the first request for the repository.
func (u *Upstream) Seed(t testing.TB, repository string, trees ...*Tree) {
	t.Helper()
	var missing []*Blob
	for _, tree := range trees {
		missing = append(missing, tree.Missing()...)
	}
	if err := u.seed(u, repository, missing); err != nil {
		t.Fatalf("seed the repository %s of %s: %v", repository, u.Kind, err)
	}
}

// driver opens the storage of distribution beside the running registry.
func (u *Upstream) driver() (storagedriver.StorageDriver, error) {
	return factory.Create(context.Background(), "filesystem", map[string]any{"rootdirectory": u.root})
}

// isSeeded tells content put there by Seed.
func isSeeded(b []byte) bool { return len(b) > 0 && len(bytes.Trim(b, "\x00")) == 0 }

// quiet turns distribution's logger off; it is logrus' global one, and the level in the configuration does not stop it.
func quiet() { logrus.SetOutput(io.Discard) }
