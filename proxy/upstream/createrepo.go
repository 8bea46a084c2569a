package upstream

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"golang.org/x/sync/singleflight"

	"sluice/proxy/internal/contain"
)

// createTimeout bounds the making of one repository. A client that is less patient gives up and comes
// again; the making goes on for whoever is next.
const createTimeout = 30 * time.Second

// RepositorySettings are what a repository gets that is made on push. Zero values are Amazon ECR's defaults.
type RepositorySettings struct {
	Repositories     []string // globs of the names that may be made, as upstream has them; none: all, but with Passthrough
	TagMutability    string   // MUTABLE, IMMUTABLE, or either with _WITH_EXCLUSION
	TagExclusions    []string // tags to which the opposite applies, with * for anything
	Encryption       string   // AES256, KMS, KMS_DSSE
	KMSKey           string   // for the two KMS kinds; "": the key that AWS manages
	Tags             map[string]string
	LifecyclePolicy  string // JSON
	RepositoryPolicy string // JSON
}

// A creator makes repositories in one registry. It is safe for concurrent use.
type creator interface {
	// create makes a repository with its settings. One that is there already is a success and keeps what it
	// has; it is given only those policies that it lacks, since the answer to an earlier try may have been
	// lost between the two. exists may be true beside an error: the repository is there, and a policy missing.
	create(ctx context.Context, name string) (exists bool, err error)
}

// sender is one way to send a request: Registry.once, and what is put around it.
type sender func(ctx context.Context, q Request) (*http.Response, error)

// creating makes the repository that a push is for when the registry says that it is missing, and sends the request
// again. Everybody who pushes there meanwhile waits for the same creation.
//
// Who may cause that? With Sluice's own credentials, whoever Sluice lets push. With Passthrough the registry
// has told the client itself that the repository is missing, so it knows the client; but Amazon ECR knows every principal of
// every account, and whether it looks at rights or at names first is not documented. So names must then be listed.
type creating struct {
	r       *Registry
	next    sender
	creator creator
	names   []string
	log     *slog.Logger

	flight  singleflight.Group
	life    context.Context
	stop    context.CancelFunc
	flights sync.WaitGroup // added to with mu held, and only while there is life

	mu   sync.Mutex
	half map[string]bool // made, with policies missing: to be finished before anybody pushes there
}

func newCreating(r *Registry, next sender, c creator, names []string) *creating {
	life, stop := context.WithCancel(context.Background())
	return &creating{r: r, next: next, creator: c, names: names, log: r.log, life: life, stop: stop, half: map[string]bool{}}
}

// close gives up what is being made, and waits for it; nothing is begun any more.
func (c *creating) close() {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	c.flights.Wait()
}

// begin is false when nothing may be begun any more. Otherwise flights.Done follows.
func (c *creating) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		return false
	}
	c.flights.Add(1)
	return true
}

func (c *creating) send(ctx context.Context, q Request) (*http.Response, error) {
	if !c.concerns(q) {
		return c.next(ctx, q)
	}
	if c.unfinished(q.Repository) {
		if err := c.ensure(ctx, q.Repository); err != nil {
			return nil, err
		}
	}
	resp, err := c.next(ctx, q)
	if err != nil || !nameUnknown(resp, q.Repository) {
		return resp, err
	}
	Discard(resp)
	if err := c.ensure(ctx, q.Repository); err != nil {
		return nil, err
	}
	// What was just made may be unknown for a while (read-after-create gap).
	for try := c.r.newRetry(); ; {
		q.Header = q.Header.Clone() // the one before may be in use for a moment
		resp, err := c.next(ctx, q)
		if err != nil || !nameUnknown(resp, q.Repository) || !try.again(ctx) {
			return resp, err
		}
		Discard(resp)
	}
}

// concerns is true for what begins a push and can be sent twice. Nothing else may make a repository: a
// read must not, and a body that streams cannot come again.
func (c *creating) concerns(q Request) bool {
	begins := q.Method == http.MethodPost && q.Path == "blobs/uploads/" ||
		q.Method == http.MethodPut && strings.HasPrefix(q.Path, "manifests/")
	return begins && q.Push && q.Location == "" && (q.Body == nil || q.Replay != nil) && c.allowed(q.Repository)
}

func (c *creating) allowed(name string) bool {
	if name == "" {
		return false
	}
	for _, g := range c.names {
		if doublestar.MatchUnvalidated(g, name) {
			return true
		}
	}
	return len(c.names) == 0
}

func (c *creating) unfinished(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.half[name]
}

// ensure makes the repository, or waits for whoever is making it.
func (c *creating) ensure(ctx context.Context, name string) error {
	ch := c.flight.DoChan(name, func() (any, error) {
		if !c.begin() {
			return nil, unreachable(c.r.base.Host, fmt.Errorf("repository %s is to be made, and Sluice is shutting down: %w", name, c.life.Err()))
		}
		defer c.flights.Done()
		ctx, cancel := context.WithTimeout(c.life, createTimeout) // not one client's: others wait, too
		defer cancel()
		exists, err := contain.Call(func() (bool, error) { return c.creator.create(ctx, name) })
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err == nil:
			delete(c.half, name)
		case exists && len(c.half) < maxGrants:
			c.half[name] = true
		}
		if err != nil {
			c.log.Error("repository not made as configured", "upstream", c.r.base.Host, "repository", name, "exists", exists, "error", err)
		}
		return nil, err
	})
	select {
	case res := <-ch:
		return res.Err
	case <-ctx.Done():
		return unreachable(c.r.base.Host, ctx.Err())
	}
}

// EnsureRepository makes a repository (upstream's name of it) that is missing, as a push to it would. It does nothing
// on a registry without Options.CreateRepositories, and for a name that these do not allow: there the push itself tells.
// Errors: ErrCreate, ErrThrottled, ErrUnreachable.
func (r *Registry) EnsureRepository(ctx context.Context, name string) error {
	if r.creating == nil || !r.creating.allowed(name) {
		return nil
	}
	return r.creating.ensure(ctx, name)
}

// newCreator is the one for the registry's kind.
func (r *Registry) newCreator(s *RepositorySettings) (creator, error) {
	h, ok := ParseECRHost(r.base.Host)
	switch {
	case !ok:
		return nil, fmt.Errorf("upstream %s: repositories can be made in Amazon ECR only, and the host is none of its names", r.base.Host)
	case h.Public:
		return nil, fmt.Errorf("upstream %s: repositories cannot be made in ECR Public, only in a private registry; use aws ecr-public create-repository", r.base.Host)
	case r.mode == Passthrough && len(s.Repositories) == 0:
		return nil, fmt.Errorf("upstream %s: with credentials passthrough, name the repositories that may be made", r.base.Host)
	}
	for _, g := range s.Repositories {
		if !doublestar.ValidatePattern(g) {
			return nil, fmt.Errorf("upstream %s: %q is not a glob", r.base.Host, g)
		}
	}
	return &ecrRepositories{upstream: r.base.Host, host: h, settings: *s, log: r.log}, nil
}

// nameUnknown is true for a registry's word that it has no such repository. The answer stays readable. ECR
// names the repository; another one than ours is the source of a mount.
func nameUnknown(resp *http.Response, name string) bool {
	if resp.StatusCode != http.StatusNotFound {
		return false
	}
	body, err := readAhead(resp, 64<<10)
	var answer struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err != nil || json.Unmarshal(body, &answer) != nil {
		return false
	}
	for _, e := range answer.Errors {
		_, quoted, other := strings.Cut(e.Message, "repository with name '")
		if e.Code == "NAME_UNKNOWN" && (!other || strings.HasPrefix(quoted, name+"'")) {
			return true
		}
	}
	return false
}
