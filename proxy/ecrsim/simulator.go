package ecrsim

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3"
	"github.com/distribution/distribution/v3/registry/storage"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/distribution/reference"
)

// What the zero Options stand for. The key pair is the one of AWS's own documentation.
const (
	DefaultAccount   = "123456789012"
	DefaultRegion    = "eu-central-1"
	DefaultAccessKey = "AKIAIOSFODNN7EXAMPLE"
	DefaultSecretKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// Options of a registry of one account in one region. The zero value is one that only DefaultAccessKey may use.
type Options struct {
	Account string // 12 digits; "" is DefaultAccount
	Region  string // "" is DefaultRegion
	Host    string // what GetAuthorizationToken and repositoryUri call the registry; "" is <account>.dkr.ecr.<region>.amazonaws.com

	// Principals may sign in; none is one user with DefaultAccessKey who may do everything.
	Principals []Principal

	Storage storagedriver.StorageDriver // for layers, in distribution's layout; nil keeps them in memory. Everything else is always in memory
	BlobURL string                      // scheme and host that Blobs is reached at, another host name than the registry's; "" answers GET of a blob with 200, which ECR never does

	Now      func() time.Time // nil is time.Now. Tokens, quotas, gaps and imagePushedAt follow it
	Logger   *slog.Logger     // one line per request at debug level; nil is none
	Switches Switches         // may be changed later, see Update
}

// Principal is one IAM user, as far as the double cares.
type Principal struct {
	AccessKey string
	Name      string   // in the ARN that a denial names; "" is "sim"
	Allow     []string // actions such as "ecr:PutImage", "ecr:*"; nil allows all
}

// Simulator is one registry: its API, its control plane, and the address that layers are downloaded from.
// All methods may be called concurrently.
type Simulator struct {
	account, region, host, blobURL string

	principals map[string]Principal // by access key
	now        func() time.Time
	log        *slog.Logger
	layers     distribution.BlobStore // of all repositories; which has which is in their own maps
	switches   atomic.Pointer[Switches]
	updating   sync.Mutex
	secret     [32]byte // signs blob addresses and page cursors; the same for all of one account and region, like replicas'

	issued  atomic.Int64 // tokens so far
	expired atomic.Int64 // tokens up to this one have expired, whatever they say
	buckets buckets

	mu           sync.Mutex // of all below
	repositories map[string]*repository
	sessions     map[string]*session
}

var accountPattern = regexp.MustCompile(`^\d{12}$`)

// New makes an empty registry. It starts nothing; the caller serves its three handlers.
func New(o Options) (*Simulator, error) {
	s := &Simulator{
		account: cmp.Or(o.Account, DefaultAccount), region: cmp.Or(o.Region, DefaultRegion),
		blobURL: strings.TrimSuffix(o.BlobURL, "/"),
		now:     o.Now, log: o.Logger,
		principals:   map[string]Principal{},
		repositories: map[string]*repository{}, sessions: map[string]*session{},
	}
	if !accountPattern.MatchString(s.account) {
		return nil, fmt.Errorf("ecrsim: account %q: an AWS account has 12 digits", s.account)
	}
	s.host = cmp.Or(o.Host, Host(s.account, s.region))
	s.secret = sha256.Sum256([]byte("ecrsim " + s.account + " " + s.region))
	if u, err := url.Parse(s.blobURL); err != nil || s.blobURL != "" && (u.Host == "" || strings.Trim(u.Path, "/") != "") {
		return nil, fmt.Errorf("ecrsim: blob URL %q: a scheme and a host, such as https://layers.example", o.BlobURL)
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if len(o.Principals) == 0 {
		o.Principals = []Principal{{AccessKey: DefaultAccessKey}}
	}
	for _, p := range o.Principals {
		if p.AccessKey == "" {
			return nil, fmt.Errorf("ecrsim: principal %q has no access key", p.Name)
		}
		p.Name = cmp.Or(p.Name, "sim")
		s.principals[p.AccessKey] = p
	}
	if o.Storage == nil {
		o.Storage = inmemory.New()
	}
	layers, err := openLayers(o.Storage)
	if err != nil {
		return nil, fmt.Errorf("ecrsim: open the storage of layers: %w", err)
	}
	s.layers = layers
	s.switches.Store(o.Switches.clone())
	return s, nil
}

// openLayers is distribution's store of blobs: its sessions, its digests, its layout.
func openLayers(driver storagedriver.StorageDriver) (distribution.BlobStore, error) {
	// A session stays open in this process, and its hash with it. Resuming one would also go wrong: the writer of the
	// inmemory driver says a size without what it buffers.
	registry, err := storage.NewRegistry(context.Background(), driver, storage.DisableDigestResumption)
	if err != nil {
		return nil, err
	}
	name, err := reference.WithName("layers")
	if err != nil {
		return nil, err
	}
	repo, err := registry.Repository(context.Background(), name)
	if err != nil {
		return nil, err
	}
	return repo.Blobs(context.Background()), nil
}

// Host is the name of the registry of an account in a region of the standard partition.
func Host(account, region string) string {
	return account + ".dkr.ecr." + region + ".amazonaws.com"
}

// Update changes switches and faults. Requests that are running keep those that they started with.
func (s *Simulator) Update(change func(*Switches)) {
	s.updating.Lock()
	defer s.updating.Unlock()
	next := s.switches.Load().clone()
	change(next)
	s.switches.Store(next.clone())
}

// ExpireTokens ends every token that was issued so far, as when a push outlives its 12 hours.
func (s *Simulator) ExpireTokens() { s.expired.Store(s.issued.Load()) }

// ForgetUnreferenced deletes layers that no manifest refers to, which ECR may do at any time
// (LayerInaccessibleException: "Unassociated image layers may be cleaned up at any time").
func (s *Simulator) ForgetUnreferenced() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.repositories {
		for d, l := range r.layers {
			if l.references == 0 {
				delete(r.layers, d)
			}
		}
	}
}

// Close ends the upload sessions that nobody has ended.
func (s *Simulator) Close() error {
	s.mu.Lock()
	left := s.sessions
	s.sessions = map[string]*session{}
	s.mu.Unlock()
	for _, u := range left {
		u.cancel()
	}
	return nil
}
