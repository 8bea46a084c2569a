package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"golang.org/x/sync/singleflight"

	"sluice/proxy/access"
	"sluice/proxy/attest"
	"sluice/proxy/config"
	"sluice/proxy/internal/objects"
	"sluice/proxy/observe"
	"sluice/proxy/quarantine"
	"sluice/proxy/session"
	"sluice/proxy/upstream"
)

// sessionTTL is how long an upload URL may be used after it was given out. A layer of 50 GiB at
// 1 MiB/s takes 14 hours.
const sessionTTL = 24 * time.Hour

// Options are what New needs.
type Options struct {
	Config  *config.Config
	Storage storagedriver.StorageDriver // all state
	Logger  *slog.Logger                // nil: none
	Version string
	Now     func() time.Time // nil: time.Now
	Traces  *observe.Traces  // nil: none; its maker closes it

	// Changes are validated configurations, each of which takes the place of the one before while Run runs.
	// One that needs a restart is refused, in the log. nil: none come.
	Changes <-chan *config.Config

	// Serving, if not nil, is called by Run when it listens, and after each of Changes that was taken or refused.
	Serving func()
}

// A Proxy answers clients. All state that outlives a request is in the storage or sealed in the
// upload's URL; what it remembers beyond that are hints that may be lost (I10).
type Proxy struct {
	*carried     // by the next one, when the configuration changes
	options      Options
	cfg          *config.Config
	log          *slog.Logger
	now          func() time.Time
	version      string
	access       *access.Access
	upstreams    []*behind
	transport    http.RoundTripper // to all of them; nil: their own. What tests replace
	quarantine   *quarantine.Store
	attest       *attest.Store
	immediate    bool // the storage answers at once (objects.Storage.Immediate)
	sealer       *session.Sealer
	ring         keyRing
	authority    *authority
	catalogs     singleflight.Group // lists of all repositories that are being read
	heldQuota    *heldQuota
	pushed       lately[inRepo] // manifests that upstream took (gap.go)
	wanted       lately[inRepo] // statements that upstream does not give back (wanted.go)
	legacyForms  lately[*upstream.Registry]
	sent         *sent
	foretold     *foretold
	slowBodies   slowBodies    // those that are being read
	readTime     time.Duration // of downloads
	manifestTime time.Duration
	holdBack     time.Duration
	selfListing  sync.Map        // of *upstream.Registry that were seen to list referrers
	events       *observe.Events // nil: nobody listens
	traces       *observe.Traces // nil: off
	health       []*health       // of upstreams, in their order
	source       string          // the host, for events
	life         context.Context // ends with Close
	die          context.CancelFunc
	handler      http.Handler
	adminHandler http.Handler
	closing      atomic.Bool
	background   sync.WaitGroup // what no request waits for any more, such as cancelling of sessions; Close waits for it
	handlers     sync.WaitGroup // Run waits for those that shutdown cut, and a change of the configuration for all
	closers      []func() error
}

// New builds a proxy from a validated configuration. Close releases what it opened.
func New(o Options) (*Proxy, error) {
	p, err := build(o, newCarried(o.Version))
	if err != nil {
		return nil, err
	}
	if p.events, err = newEvents(p, p.cfg.Notifications); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// build is New without events.
func build(o Options, c *carried) (*Proxy, error) {
	p := &Proxy{carried: c, options: o, cfg: o.Config, log: o.Logger, now: o.Now, version: o.Version, traces: o.Traces}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	if p.now == nil {
		p.now = time.Now
	}
	p.life, p.die = context.WithCancel(context.Background())
	p.source = sourceName(p.cfg.Listen)
	p.authority = newAuthority(p.now)
	p.pushed.now, p.wanted.now, p.legacyForms.now = p.now, p.now, p.now
	p.pushed.ttl, p.wanted.ttl, p.legacyForms.ttl = gapMemory, wantedFor, formTTL
	p.heldQuota = &heldQuota{p.cfg.Access.MaxHeldPerIdentity, p.held}
	p.slowBodies.window, p.readTime, p.manifestTime, p.holdBack = slowTime, slowTime, manifestTime, holdBack
	p.sent, p.foretold = newSent(p.now), newForetold()
	if err := p.open(o.Storage); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	p.handler, p.adminHandler = p.recovering(p.bodies(p.watch(p.routes()))), p.admin()
	return p, nil
}

func (p *Proxy) open(driver storagedriver.StorageDriver) error {
	var err error
	if p.cfg.StorageTimeout > 0 {
		driver = objects.NewPatient(driver, time.Duration(p.cfg.StorageTimeout), p.lost)
	}
	if p.access, err = p.newAccess(); err != nil {
		return fmt.Errorf("access: %w", err)
	}
	if p.quarantine, err = quarantine.New(driver, quarantine.Options{
		Retention: int(p.cfg.Retention), Now: p.now, Copied: func(kind, repo, digest, generation string) {
			p.held.copied(heldThing{kind, repo, digest}, generation)
		},
	}); err != nil {
		return storageAtStart(p.cfg.Storage, err)
	}
	p.attest = attest.New(driver, p.now)
	p.immediate = objects.Storage{Driver: driver}.Immediate()
	keys, err := p.sealKeys()
	if err != nil {
		return fmt.Errorf("seal key: %w", err)
	}
	if p.sealer, err = session.New(keys, sessionTTL, p.now); err != nil {
		return err
	}
	for i := range p.cfg.Upstreams {
		b, err := p.newUpstream(&p.cfg.Upstreams[i])
		if err != nil {
			return fmt.Errorf("upstream %s: %w", p.cfg.Upstreams[i].URL, err)
		}
		p.upstreams = append(p.upstreams, b)
		p.health = append(p.health, newHealth(p, b.registry))
	}
	return nil
}

// behind is one upstream and the names that lead to it.
type behind struct {
	prefix   string
	registry *upstream.Registry
	follow   bool
}

func (b *behind) clientName(name string) string {
	if b.prefix == "" {
		return name
	}
	return b.prefix + "/" + name
}

func (p *Proxy) newUpstream(u *config.Upstream) (*behind, error) {
	o := upstream.Options{
		URL: u.URL, Credentials: upstream.Mode(p.cfg.CredentialsOf(*u)), Username: u.Username, Password: u.ReadPassword,
		CA: u.CA, Hosts: u.Hosts, Redirects: string(u.Redirects), Rates: u.Rates, Logger: p.log, Observer: p.observe.Upstream(hostOf(u.URL)),
		Transport: p.transport,
	}
	if c := u.CreateRepositories; c.Enabled {
		lifecycle, policy, err := c.ReadPolicies()
		if err != nil {
			return nil, err
		}
		o.CreateRepositories = &upstream.RepositorySettings{
			Repositories: c.Repositories, TagMutability: string(c.TagMutability), TagExclusions: c.TagExclusions,
			Encryption: string(c.Encryption), KMSKey: c.KMSKey, Tags: c.Tags, LifecyclePolicy: lifecycle, RepositoryPolicy: policy,
		}
	}
	if p.traces != nil {
		o.Tracer = p.traces
	}
	if u.URL == config.Embedded {
		handler, err := p.embedded.open(p)
		if err != nil {
			return nil, err
		}
		p.closers = append(p.closers, p.embedded.close)
		o.Embedded = handler
	}
	r, err := upstream.New(o)
	if err != nil {
		return nil, err
	}
	p.closers = append(p.closers, r.Close)
	return &behind{prefix: u.Prefix, registry: r, follow: u.Redirects == config.RedirectsFollow}, nil
}

// hostOf names an upstream in metrics: as it is configured, without what is not its address.
func hostOf(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Host != "" {
		return u.Host
	}
	return config.Embedded
}

// embeddedRoot is beside Sluice's own state, under the same data folder.
func (p *Proxy) embeddedRoot() string {
	root := "sluice-data"
	if fs := p.cfg.Storage.Filesystem; fs != nil && fs.RootDirectory != "" {
		root = fs.RootDirectory
	}
	return filepath.Join(root, "registry")
}

// owner is the upstream for a client's name, nil for none, and what it calls that itself.
func (p *Proxy) owner(repo string) (b *behind, name string) {
	u, name, _ := p.cfg.Upstream(repo)
	for i := range p.cfg.Upstreams {
		if &p.cfg.Upstreams[i] == u {
			b = p.upstreams[i]
		}
	}
	return b, name
}

// passthroughUpstream is the upstream whose own version check clients need, if there is only one.
func (p *Proxy) passthroughUpstream() *upstream.Registry {
	if len(p.upstreams) == 1 && p.upstreams[0].registry.Passthrough() {
		return p.upstreams[0].registry
	}
	return nil
}

// Handler answers the registry API.
func (p *Proxy) Handler() http.Handler { return p.handler }

// Close releases connections and the embedded registry.
func (p *Proxy) Close() error {
	p.die()
	p.background.Wait()
	if p.events != nil {
		p.events.Close(p.life) // Run has delivered what it could
	}
	var errs []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		errs = append(errs, p.closers[i]())
	}
	p.closers = nil
	return errors.Join(errs...)
}

// recovering turns a bug into a log entry and a cut connection for one client.
func (p *Proxy) recovering(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.handlers.Add(1)
		defer p.handlers.Done()
		defer func() {
			v := recover()
			if v == nil {
				return
			}
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			p.log.Error("bug: handler panicked", "method", r.Method, "panic", v, "stack", string(debug.Stack()))
			panic(http.ErrAbortHandler)
		}()
		next.ServeHTTP(w, r)
	})
}
