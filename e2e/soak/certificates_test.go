//go:build soak

package soak

import (
	"context"
	"crypto/tls"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

// certificates are the files of a process, of an authority that clients trust.
type certificates struct {
	ca               *proxytest.CA
	certificate, key string
	last             *big.Int // serial number of what is in the files
}

func newCertificates(t *testing.T, dir string) *certificates {
	t.Helper()
	c := &certificates{ca: proxytest.NewCA(t, "soak"), certificate: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
	c.replace(t)
	return c
}

func (c *certificates) replace(t *testing.T) {
	t.Helper()
	crt := c.ca.Server()
	proxytest.Replace(t, c.certificate, crt.CertPEM)
	proxytest.Replace(t, c.key, crt.KeyPEM) // between the two, the files do not fit together
	c.last = crt.Leaf.SerialNumber
}

func (c *certificates) trusted() *tls.Config { return &tls.Config{RootCAs: c.ca.Pool()} }

// rotate replaces the certificate, now and then after a file that is none.
func (c *certificates) rotate(ctx context.Context, t *testing.T, d *dice, n *tally) {
	for ctx.Err() == nil {
		d.pause(ctx, 4*time.Second)
		if d.n(3) == 0 {
			proxytest.Replace(t, c.certificate, []byte("no certificate"))
			d.pause(ctx, 4*time.Second)
		}
		c.replace(t)
		n.did("certificates replaced")
	}
}

// shown says that the last certificate is the one that clients see, soon.
func (c *certificates) shown(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		conn, err := (&tls.Dialer{Config: c.trusted()}).DialContext(t.Context(), "tcp", address)
		if err == nil {
			serial := conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber
			conn.Close()
			if serial.Cmp(c.last) == 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Errorf("a minute after it was replaced, %s shows another certificate than the last: %v", address, err)
			return
		}
	}
}
