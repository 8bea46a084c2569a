//go:build soak

package soak

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A peer is a server in this process, on an address that stays when it is restarted. It closes connections that nobody uses
// for a second, now and then one that Sluice is about to use, and after five those that never were.
type peer struct {
	address string
	handler http.Handler
	mu      sync.Mutex
	server  *http.Server
}

func startPeer(t *testing.T, h http.Handler) *peer {
	t.Helper()
	p := &peer{address: freeAddress(t), handler: h}
	if err := p.serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.server.Close() })
	return p
}

func (p *peer) serve() error {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", p.address)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: p.handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	p.server = s
	go func() { _ = s.Serve(ln) }() // ends with Close
	return nil
}

// restart cuts every connection, is away for a moment, and comes back.
func (p *peer) restart(away time.Duration) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.server.Close()
	time.Sleep(away)
	return p.serve()
}

func (p *peer) restarts(ctx context.Context, t *testing.T, d *dice, did func()) {
	for ctx.Err() == nil {
		d.pause(ctx, 15*time.Second)
		if err := p.restart(d.duration(500 * time.Millisecond)); err != nil {
			t.Errorf("it does not start again: %v", err)
		}
		did()
	}
}

// freeAddress is one that nobody listens on, below those that the kernel gives to connections, one of which would otherwise
// have it while its owner is away.
func freeAddress(t *testing.T) string {
	t.Helper()
	const first, ports = 20000, 12000
	for range ports {
		address := fmt.Sprintf("127.0.0.1:%d", first+int(portsGiven.Add(1))%ports)
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err == nil {
			ln.Close()
			return address
		}
	}
	t.Fatal(errors.New("no free port"))
	return ""
}

var portsGiven = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(uint32(os.Getpid()) * 61) // where another run of the tests does not begin
	return &n
}()
