package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"sluice/proxy/access"
	"sluice/proxy/internal/reread"
)

// secure is the server's side of TLS. Every handshake sees the certificate, its key and the authorities of clients as
// they are in their files now; ones that cannot be used leave those before.
func (p *Proxy) secure() (*tls.Config, error) {
	c := p.cfg.TLS
	expiry := &expiryWarner{log: p.log, file: c.Certificate}
	certificate, err := reread.Open(p.log, func(contents [][]byte) (*tls.Certificate, error) {
		pair, err := keyPair(c, contents[0], contents[1])
		if err == nil {
			expiry.look(pair, p.now())
		}
		return pair, err
	}, c.Certificate, c.Key)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	base := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate.Get(), nil },
	}
	if c.ClientCA == "" {
		return base, nil
	}
	authorities, err := access.OpenClientCA(c.ClientCA, p.log)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	base.ClientAuth = tls.RequireAndVerifyClientCert
	// A session that is resumed brings the verdict of its first handshake, also of an authority that is no longer there.
	base.SessionTicketsDisabled = true
	base.GetConfigForClient = clientsOf(base.Clone(), authorities)
	return base, nil
}

func clientsOf(base *tls.Config, authorities *reread.Files[*x509.CertPool]) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.ClientCAs = authorities.Get()
		return c, nil
	}
}
