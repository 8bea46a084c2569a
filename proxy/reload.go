package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"sluice/proxy/config"
	"sluice/proxy/internal/objects"
	"sluice/proxy/observe"
	"sluice/proxy/upstream"
)

// carried is what outlives a change of the configuration, because there can be only one of it in a process
// or because it tells what has happened in it. Everything else that a proxy remembers is a hint, and a new
// configuration begins without, as a new process does (I10): what an upstream has let somebody do must
// not count for the one that takes its place.
type carried struct {
	observe  *observe.Metrics
	progress *progress // of uploads that go on under the next configuration
	held     *heldLedger
	crowd    *crowd

	// A manifest is held in memory, whichever configuration it is pushed by.
	largeManifests *semaphore.Weighted
	heavyPushes    *semaphore.Weighted // whose children are (judge.go)
	childReads     *semaphore.Weighted
	largeBlobs     *semaphore.Weighted
	lost           *objects.Lost // calls to the storage
	fallbackTags   *keyedMutex
	embedded       *sharedEmbedded
	instance       string
	storedKeys     [][]byte // that seal upload URLs where no configuration has any
}

func newCarried(version string) *carried {
	return &carried{
		observe: observe.New(version), progress: newProgress(), held: newHeldLedger(), crowd: &crowd{}, largeManifests: semaphore.NewWeighted(largeManifests),
		heavyPushes: semaphore.NewWeighted(heavyPushes), childReads: semaphore.NewWeighted(childReads), largeBlobs: semaphore.NewWeighted(largeBlobs), lost: &objects.Lost{}, fallbackTags: &keyedMutex{},
		embedded: &sharedEmbedded{}, instance: newID(),
	}
}

// sharedEmbedded is the embedded registry: opened by the first who needs it, closed by the last. Two of them
// on one folder would purge and cache past each other.
type sharedEmbedded struct {
	mu      sync.Mutex
	users   int
	handler http.Handler
	closer  io.Closer
}

func (s *sharedEmbedded) open(p *Proxy) (http.Handler, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users == 0 {
		var err error
		if s.handler, s.closer, err = upstream.NewEmbedded(context.Background(), p.embeddedRoot(), p.log); err != nil {
			return nil, err
		}
	}
	s.users++
	return s.handler, nil
}

func (s *sharedEmbedded) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users > 0 {
		return nil
	}
	return s.closer.Close()
}

// A site is what listens: it stays, while the proxy behind it may be replaced by one with another configuration.
type site struct {
	mu      sync.RWMutex
	proxy   *Proxy
	quiet   quiet
	retired sync.WaitGroup // proxies that still have requests, or events to deliver
}

// take gives the proxy of now, which is not closed before handlers.Done.
func (s *site) take() *Proxy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	s.proxy.handlers.Add(1) // below the lock, so that retire waits for it
	return s.proxy
}

// serve answers each request by the configuration that it meets, to its end.
func (s *site) serve(handler func(*Proxy) http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := s.take()
		defer p.handlers.Done()
		handler(p).ServeHTTP(w, r)
	})
}

// change puts a configuration in place of the present one, or says in the log why not. Requests that run
// end by the old one, also uploads; the next request of the same upload goes by the new one, as if it came to
// another replica. ctx ends when Run no longer waits for them.
func (s *site) change(ctx context.Context, cfg *config.Config) {
	old := s.proxy // only this goroutine changes it
	if keys := old.cfg.RestartKeys(cfg); len(keys) > 0 {
		old.log.Error("configuration not changed: it has other values of keys that need a restart", "keys", keys)
		return
	}
	next, err := old.successor(cfg)
	if err != nil {
		old.log.Error("configuration not changed", "reason", err)
		return
	}
	s.mu.Lock()
	s.proxy = next
	s.mu.Unlock()
	next.log.Info("configuration changed", "upstream", next.upstreamNames())
	s.retired.Go(func() { old.retire(ctx, next) })
}

// successor is a proxy with another configuration over the same storage, in the same process.
func (p *Proxy) successor(cfg *config.Config) (*Proxy, error) {
	o := p.options
	o.Config = cfg
	next, err := build(o, p.carried)
	if err != nil {
		return nil, err
	}
	if next.events, err = newEvents(next, cfg.Notifications); err != nil {
		return nil, errors.Join(err, next.Close())
	}
	return next, nil
}

// retire closes a proxy when its last request has ended. Webhooks that the next one has no more get what they
// are still to be told within shutdown_timeout.
func (p *Proxy) retire(ctx context.Context, next *Proxy) {
	p.handlers.Wait()
	p.background.Wait()
	if p.events != nil {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(next.cfg.ShutdownTimeout))
		p.events.Close(ctx)
		cancel()
	}
	if err := p.Close(); err != nil {
		p.log.Warn("what the configuration before had open was not closed", "reason", err)
	}
}
