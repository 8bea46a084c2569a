package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"sluice/proxy/internal/h1"
)

// patience is how long the end of an upload may take: registries on object storage copy and check a large layer before they
// answer, which takes minutes.
const patience = 15 * time.Minute

// newTransports connect to a registry over the network: one for bodies that stream, and a quick one for all else, which
// are the most. Nothing limits the connections: a limit would let slow uploads starve manifests. The first one's own
// buffers are small, since bodies go past them (conn.go).
func newTransports(ca string, resolver *net.Resolver, quickTimeout time.Duration, log *slog.Logger) (bulk *http.Transport, quick *h1.Client, err error) {
	t := &tlsDialer{
		dialer: &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Resolver: resolver, ControlContext: keepAway},
		ca:     ca,
		log:    log,
	}
	t.base = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(64),
		NextProtos:         []string{"http/1.1"},
		// Records grow to 16 KiB only after 1 MiB otherwise, and start again after a second's pause.
		DynamicRecordSizingDisabled: true,
	}
	cfg, err := t.config()
	if err != nil {
		return nil, nil, err
	}
	bulk = &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		DialContext:     t.dial,
		DialTLSContext:  t.dialTLS,
		TLSClientConfig: cfg.Clone(), // behind a proxy of the environment, which does not use DialTLSContext

		TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConns:        0, // no limit
		MaxIdleConnsPerHost: maxIdle,
		IdleConnTimeout:     idleTimeout,
		DisableCompression:  true, // digests are of the bytes as they are
		// Only a backstop: what a client waits for is the context's business.
		ResponseHeaderTimeout:  patience,
		ExpectContinueTimeout:  expectTimeout,
		MaxResponseHeaderBytes: maxHeader,
		OnProxyConnectResponse: connectAnswered,
		ForceAttemptHTTP2:      false, // see the package comment
	}
	other := bulk.Clone()
	other.ResponseHeaderTimeout = quickTimeout
	quick = &h1.Client{
		Dial: t.dial, DialTLS: t.dialTLS, HeaderTimeout: quickTimeout, StallTimeout: stallTimeout, StallBytes: stallBytes,
		IdleTimeout: idleTimeout, MaxIdle: maxIdle, MaxHeader: maxHeader, Other: steady{other}, Proxy: http.ProxyFromEnvironment,
	}
	return bulk, quick, nil
}

const (
	maxIdle     = 256 // connections to one host
	idleTimeout = 90 * time.Second
	maxHeader   = 256 << 10 // of an answer
)

// dialError is a connection that could not be made.
type dialError struct{ err error }

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// tlsDialer makes connections whose ReadFrom is fast.
type tlsDialer struct {
	dialer *net.Dialer
	base   *tls.Config
	ca     string
	log    *slog.Logger

	mu      sync.Mutex
	pool    *x509.CertPool // nil: the system's
	stamp   string         // of the file that pool was read from
	refused string         // stamp of a file that could not be used
}

func (t *tlsDialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := t.dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &dialError{err}
	}
	return &conn{Conn: c}, nil
}

func (t *tlsDialer) dialTLS(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := t.dialer.DialContext(ctx, network, addr)
	if err != nil {
		return nil, &dialError{err}
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	cfg, err := t.config()
	if err != nil {
		_ = raw.Close()
		return nil, &dialError{err}
	}
	cfg = cfg.Clone()
	cfg.ServerName, _, _ = strings.Cut(host, "%") // a zone of IPv6 is this machine's own
	below := &gather{Conn: raw}
	tc := tls.Client(below, cfg)
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, &dialError{fmt.Errorf("TLS handshake: %w", err)}
	}
	return &conn{Conn: tc, below: below}, nil
}

// config trusts the system's authorities and those of the CA file, as it is now: a new connection sees a
// rotated file. A file that cannot be read any more leaves what was read before.
func (t *tlsDialer) config() (*tls.Config, error) {
	if t.ca == "" {
		return t.base, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	stamp := "missing"
	if fi, err := os.Stat(t.ca); err == nil {
		stamp = fmt.Sprint(fi.ModTime().UnixNano(), fi.Size())
	}
	if t.pool == nil || stamp != t.stamp && stamp != t.refused {
		pool, err := readCA(t.ca)
		switch {
		case err == nil:
			t.pool, t.stamp = pool, stamp
		case t.pool == nil:
			return nil, err
		default:
			t.refused = stamp
			t.log.Warn("certificate authorities cannot be read again, the earlier ones stay", "file", t.ca, "error", err)
		}
	}
	cfg := t.base.Clone()
	cfg.RootCAs = t.pool
	return cfg, nil
}

func readCA(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read `ca`: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("`ca` %s holds no PEM certificate", file)
	}
	return pool, nil
}
