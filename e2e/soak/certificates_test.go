//go:build soak

package soak

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

// certificates are the files of a process, of an authority that clients trust.
type certificates struct {
	ca               *proxytest.CA
	certificate, key string
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
