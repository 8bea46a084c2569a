package upstream

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"
)

const userAgent = "sluice"

// Options describe one registry.
type Options struct {
	URL         string                 // http(s)://host[:port]; "embedded" (or empty) with Embedded
	Credentials Mode                   // one of the modes; there is no default
	Username    string                 // for Basic
	Password    func() (string, error) // read each time; nil: none
	CA          string                 // PEM file, trusted besides the system's authorities; read again when it changes
	Hosts       []string               // other hosts that the registry may name: token realm, upload Location, plain-http redirect; "host" or "host:port"
	Redirects   string                 // of blob reads: "pass" (zero) or "follow"
	Rates       map[string]int         // requests per second by action (put_image, ...), laid over the quotas of an ECR host; 0: no limit
	Logger      *slog.Logger           // nil: none
	Observer    Observer               // nil: none
	Tracer      Tracer                 // nil: none

	CreateRepositories *RepositorySettings // nil: a push to a missing repository fails; for private registries of Amazon ECR

	Embedded  http.Handler      // the registry is this handler, in this process
	Transport http.RoundTripper // nil: one of our own; for tests
	Resolver  *net.Resolver     // nil: the system's; for tests
}

// Registry is one registry. It is safe for concurrent use; nothing but its rates limits how many requests are under way.
type Registry struct {
	base      *url.URL
	hosts     []string
	mode      Mode
	ecr       ECRHost
	isECR     bool
	follow    bool
	log       *slog.Logger
	transport http.RoundTripper
	quick     http.RoundTripper // for requests without a streamed body; nil: transport, under a context that bounds the wait
	closing   http.RoundTripper // quick's, with more patience: for the end of an upload; nil like that
	auth      *authorizer
	pace      *pacer
	send      sender
	creating  *creating // nil: off
	server    io.Closer // the embedded one's
	observer  Observer  // may be nil
	tracer    Tracer    // may be nil

	mutedUntil atomic.Int64 // unix nanoseconds: no Expect: 100-continue until then

	// what tests replace
	now           func() time.Time
	sleep         func(ctx context.Context, d time.Duration) error
	jitter        func() float64 // [0,1)
	headerTimeout time.Duration
	patience      time.Duration // headerTimeout for the end of an upload
}

// New makes a Registry. It opens no connection and asks no credential helper.
func New(o Options) (*Registry, error) {
	r := &Registry{
		hosts:         o.Hosts,
		mode:          o.Credentials,
		log:           o.Logger,
		observer:      o.Observer,
		tracer:        o.Tracer,
		transport:     o.Transport,
		now:           time.Now,
		sleep:         sleep,
		jitter:        rand.Float64,
		headerTimeout: 60 * time.Second,
		patience:      patience,
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	switch o.Redirects {
	case "", "pass":
	case "follow":
		r.follow = true
	default:
		return nil, fmt.Errorf("upstream redirects %q are unknown; use pass or follow", o.Redirects)
	}
	for _, h := range o.Hosts {
		if err := checkHost(h); err != nil {
			return nil, err
		}
	}
	var err error
	if o.Embedded != nil {
		if o.URL != "" && o.URL != "embedded" {
			return nil, fmt.Errorf("upstream url %s: an embedded registry has none; use \"embedded\"", printable(o.URL))
		}
		r.base = &url.URL{Scheme: "http", Host: "embedded"}
	} else if r.base, err = parseURL(o.URL); err != nil {
		return nil, err
	}
	if r.ecr, r.isECR = ParseECRHost(r.base.Host); r.mode == ECR {
		r.isECR = true
	}
	limits, err := rates(r.base.Host, o.Rates)
	if err != nil {
		return nil, err
	}
	r.pace = newPacer(limits, func() time.Time { return r.now() })
	src, err := r.newSource(o)
	if err != nil {
		return nil, err
	}
	switch {
	case r.transport != nil:
	case o.Embedded != nil:
		r.transport, r.server = embeddedTransport(o.Embedded, r.log)
	default:
		bulk, quick, err := newTransports(o.CA, o.Resolver, r.headerTimeout, r.log)
		if err != nil {
			return nil, fmt.Errorf("upstream %s: %w", r.base.Host, err)
		}
		r.transport, r.quick, r.closing = bulk, quick, quick.Within(r.patience, steady{bulk})
	}
	life, stop := context.WithCancel(context.Background())
	r.auth = &authorizer{
		host: r.base.Host, source: src, now: func() time.Time { return r.now() }, life: life, stop: stop,
		fetch: r.fetchToken, realm: r.realm, keeps: r.mode == ECR,
		grants: map[string]*entry{}, wider: map[string][]string{},
	}
	if h, _ := r.ECR(); r.mode == ECR && !h.Public {
		// Every request needs it, so that the first 401 would only cost a round trip, and a streamed body.
		r.auth.service = service{scheme: "basic"}
	}
	r.send = r.once
	if o.CreateRepositories != nil {
		c, err := r.newCreator(o.CreateRepositories)
		if err != nil {
			stop()
			return nil, err
		}
		r.creating = newCreating(r, r.send, c, o.CreateRepositories.Repositories)
		r.send = r.creating.send
	}
	return r, nil
}

// Passthrough is true when the client's own credentials go up.
func (r *Registry) Passthrough() bool { return r.mode == Passthrough }

// Host is the registry's host as it is connected to, for logs and messages.
func (r *Registry) Host() string { return r.base.Host }

// Close ends the making of repositories, ends token fetches and waits for their end, and ends idle connections and the embedded registry's
// server. Requests that are under way to a remote registry are left alone, but get no new credentials. A
// Docker credential helper that is still running is ended; an AWS credential process is not waited for: nothing can end it.
func (r *Registry) Close() error {
	if r.creating != nil {
		r.creating.close()
	}
	r.auth.close()
	for _, t := range []http.RoundTripper{r.transport, r.quick} {
		if t, ok := t.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
	}
	if r.server != nil {
		return r.server.Close()
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
