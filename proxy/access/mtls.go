package access

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"sluice/proxy/internal/reread"
)

// Sources of an identity in a certificate.
const (
	CommonName = "common_name"
	DNS        = "dns"
	URI        = "uri"
)

// MTLSOptions are for mode MTLS.
type MTLSOptions struct {
	ClientCA string // file, PEM
	Identity string // CommonName, DNS or URI
}

// certificates takes the identity from the client's certificate. The TLS listener has asked for one of the same
// authorities; it is verified here again, because a connection may live longer than the certificate, and than the
// authority's place in the file.
type certificates struct {
	ca       *reread.Files[*x509.CertPool]
	identity string
	now      func() time.Time

	mu       sync.Mutex
	pool     *x509.CertPool // that the following were verified with
	verified map[[sha256.Size]byte]time.Time
}

func newCertificates(o MTLSOptions, log *slog.Logger, now func() time.Time) (*certificates, error) {
	switch o.Identity {
	case CommonName, DNS, URI:
	default:
		return nil, fmt.Errorf("identity %q of client certificates is not known: use common_name, dns or uri", o.Identity)
	}
	ca, err := OpenClientCA(o.ClientCA, log)
	if err != nil {
		return nil, err
	}
	return &certificates{ca: ca, identity: o.Identity, now: now}, nil
}

// OpenClientCA reads the authorities of client certificates, again whenever the file changes.
func OpenClientCA(file string, log *slog.Logger) (*reread.Files[*x509.CertPool], error) {
	ca, err := reread.Open(log, parseAuthorities, file)
	if err != nil {
		return nil, fmt.Errorf("client_ca: %w", err)
	}
	return ca, nil
}

func parseAuthorities(contents [][]byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for rest := contents[0]; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is a %s, not a certificate", n+1, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		pool.AddCert(c)
	}
	if n == 0 {
		return nil, errors.New("file of certificate authorities holds no PEM certificate")
	}
	return pool, nil
}

func (c *certificates) authenticate(r *http.Request) (Identity, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return Identity{}, fmt.Errorf("%w: this registry wants a client certificate", ErrDenied)
	}
	leaf := r.TLS.PeerCertificates[0]
	if err := c.verify(leaf, r.TLS.PeerCertificates[1:]); err != nil {
		return Identity{}, fmt.Errorf("%w: client certificate %q is not accepted: %w", ErrDenied, printable(leaf.Subject.CommonName), err)
	}
	name, err := c.name(leaf)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: client certificate %q names nobody: %w", ErrDenied, printable(leaf.Subject.CommonName), err)
	}
	// Only the name, so that a certificate may be renewed while a push runs.
	return Identity{Name: name, Key: hash("certificate", c.identity, name)}, nil
}

func (c *certificates) verify(leaf *x509.Certificate, chain []*x509.Certificate) error {
	now, pool := c.now(), c.ca.Get()
	fingerprint := sha256.Sum256(leaf.Raw)
	if c.remembered(pool, fingerprint, now) {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, i := range chain {
		intermediates.AddCert(i)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return errors.New("it has expired, or no authority of tls.client_ca has signed it for clients")
	}
	until := leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	c.remember(pool, fingerprint, until)
	return nil
}

func (c *certificates) remembered(pool *x509.CertPool, fingerprint [sha256.Size]byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pool == pool && now.Before(c.verified[fingerprint])
}

func (c *certificates) remember(pool *x509.CertPool, fingerprint [sha256.Size]byte, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pool != pool || len(c.verified) >= maxVerified {
		c.pool, c.verified = pool, map[[sha256.Size]byte]time.Time{}
	}
	c.verified[fingerprint] = until
}

// name wants exactly one: of several it would be a guess which of them permissions are about.
func (c *certificates) name(leaf *x509.Certificate) (string, error) {
	var names []string
	switch c.identity {
	case CommonName:
		if leaf.Subject.CommonName != "" {
			names = []string{leaf.Subject.CommonName}
		}
	case DNS:
		names = leaf.DNSNames
	case URI:
		for _, u := range leaf.URIs {
			names = append(names, u.String())
		}
	}
	if len(names) != 1 {
		return "", fmt.Errorf("it has %d of what access.mtls.identity: %s asks for, and needs one", len(names), c.identity)
	}
	if name := names[0]; printable(name) == name && strings.TrimSpace(name) == name {
		return name, nil
	}
	return "", errors.New("its name cannot be printed, or is longer than 100 characters")
}

func (c *certificates) challenge(Scope, bool) []string { return nil }
