package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"syscall"
	"time"

	"sluice/proxy/access"
)

const (
	headerTimeout = 30 * time.Second // slow headers hold a connection no longer; bodies may take their time
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	cutTime       = 5 * time.Second // for handlers to notice that their connection is gone
)

// Run serves until ctx ends, then lets running requests finish within shutdown_timeout. It closes p.
func (p *Proxy) Run(ctx context.Context) error {
	ln, err := p.listen()
	if err != nil {
		return errors.Join(err, p.Close())
	}
	s := &site{proxy: p}
	handler := s.serve((*Proxy).Handler)
	servers := []*http.Server{p.server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.quiet.requests.Add(1)
		handler.ServeHTTP(w, r)
	}))}
	listeners := []net.Listener{ln}
	if p.cfg.Admin != "" {
		admin, err := net.Listen("tcp", p.cfg.Admin)
		if err != nil {
			_ = ln.Close()
			_ = p.Close()
			return fmt.Errorf("listen on admin address %s: %w (set admin to another address, or to \"\")", p.cfg.Admin, err)
		}
		handler := s.serve(func(p *Proxy) http.Handler { return p.adminHandler })
		if a, ok := admin.Addr().(*net.TCPAddr); ok && a.IP.IsLoopback() {
			handler = access.OnlyLocal(handler)
		}
		servers, listeners = append(servers, p.server(handler)), append(listeners, admin)
	}
	ctx, cancel := context.WithCancel(ctx)
	// What a configuration that was replaced still has to do ends with the requests, not with ctx.
	rest, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var background sync.WaitGroup
	background.Go(func() { s.housekeeping(ctx) })
	background.Go(func() { s.quiet.giveBack(ctx, quietTime) })
	failed := make(chan error, len(servers))
	for i, server := range servers {
		background.Go(func() { failed <- server.Serve(listeners[i]) })
	}
	p.log.Info("serving", "listen", ln.Addr().String(), "admin", adminAddress(listeners), "upstream", p.upstreamNames(), "version", p.version)
	serving := p.options.Serving
	if serving == nil {
		serving = func() {}
	}
	for {
		serving()
		select {
		case cfg := <-p.options.Changes:
			s.change(rest, cfg)
			continue
		case <-ctx.Done():
		case err = <-failed:
		}
		break
	}
	p = s.proxy
	p.closing.Store(true)
	cancel()
	err = errors.Join(err, p.shutdown(servers))
	background.Wait()
	cut()
	s.awaitHandlers()
	return errors.Join(err, p.Close())
}

// awaitHandlers waits for handlers whose connections shutdown has cut: http.Server.Close does not, and
// they use what Close releases. One that does not notice is left behind.
func (s *site) awaitHandlers() {
	p, done := s.proxy, make(chan struct{})
	go func() {
		p.handlers.Wait()
		s.retired.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(cutTime):
		p.log.Warn("requests that were cut have not ended")
	}
}

// adminAddress is where the admin server really listens, "" for off.
func adminAddress(listeners []net.Listener) string {
	if len(listeners) < 2 {
		return ""
	}
	return listeners[1].Addr().String()
}

func (p *Proxy) upstreamNames() []string {
	var names []string
	for _, u := range p.cfg.Upstreams {
		names = append(names, u.URL)
	}
	return names
}

// server has no read timeout: a layer takes as long as it takes.
func (p *Proxy) server(h http.Handler) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true) // HTTP/2 windows and framing cost CPU on layers, and no client needs it
	return &http.Server{
		Handler: h, Protocols: protocols, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelDebug), // clients that go away, bad TLS handshakes
	}
}

// listenAdvice is what to do about an address that cannot be listened on.
func listenAdvice(err error) string {
	switch {
	case errors.Is(err, syscall.EACCES):
		return "this user may not have a port below 1024: choose another with --listen, or give the process CAP_NET_BIND_SERVICE"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine has no such address: choose another with --listen"
	}
	return "another program may have the port; on macOS port 5000 is taken by AirPlay: use --listen"
}

func (p *Proxy) listen() (net.Listener, error) {
	ln, err := net.Listen("tcp", p.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w (%s)", p.cfg.Listen, err, listenAdvice(err))
	}
	if p.cfg.TLS.Certificate == "" {
		return ln, nil
	}
	secure, err := p.secure()
	if err != nil {
		_ = ln.Close()
		return nil, err
	}
	return tls.NewListener(ln, secure), nil
}

func (p *Proxy) shutdown(servers []*http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(p.cfg.ShutdownTimeout))
	defer cancel()
	var errs []error
	for _, s := range servers {
		if err := s.Shutdown(ctx); errors.Is(err, context.DeadlineExceeded) {
			p.log.Warn("requests were still running after shutdown_timeout and are cut", "shutdown_timeout", time.Duration(p.cfg.ShutdownTimeout).String())
			_ = s.Close()
		} else if err != nil && !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	if p.events != nil {
		p.events.Drain(ctx) // what the last pushes told, also by a configuration before this one
		p.events.Close(ctx)
	}
	return errors.Join(errs...)
}

// admin answers health checks and metrics, on an address of its own.
func (p *Proxy) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", p.readyz)
	mux.Handle("GET /metrics", p.observe.Handler())
	if p.cfg.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}
