//go:build soak

package soak

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

// A registry is distribution's, on an address that stays when it is restarted. Its storage is laid open by Upstream.
type registry struct {
	*proxytest.Upstream
	address  string
	restarts atomic.Int64
	server   *http.Server
}

func startRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{Upstream: proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), address: "127.0.0.1:0"}
	r.serve(t)
	t.Cleanup(func() { _ = r.server.Close() })
	return r
}

func (r *registry) serve(t *testing.T) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", r.address)
	if err != nil {
		t.Error(err)
		return
	}
	if r.server == nil {
		r.address = ln.Addr().String()
	}
	s := &http.Server{Handler: r.Handler, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	r.server = s
	go func() { _ = s.Serve(ln) }() // ends with Close
}

// restart cuts every connection, is away for a moment, and comes back.
func (r *registry) restart(t *testing.T) {
	t.Helper()
	_ = r.server.Close()
	time.Sleep(300 * time.Millisecond)
	r.serve(t)
	r.restarts.Add(1)
}
