package proxy

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"strings"
	"testing"
	"time"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func TestACertificateThatCannotBeServedSaysWhichFileIsWrong(t *testing.T) {
	one, other := proxytest.NewCA(t, "one").Server(), proxytest.NewCA(t, "other").Server()
	pkcs8 := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("x")})
	for _, tt := range []struct {
		name      string
		cert, key []byte
		want      string
	}{
		{"good", one.CertPEM, one.KeyPEM, ""},
		{"of another pair", one.CertPEM, other.KeyPEM, "tls.certificate c.pem with tls.key k.pem: private key does not match"},
		{"switched", one.KeyPEM, one.CertPEM, "switched"},
		{"empty", nil, one.KeyPEM, "tls.certificate c.pem with tls.key k.pem: failed to find any PEM data in certificate"},
		{"a key with a passphrase", one.CertPEM, pkcs8, "tls.key k.pem is encrypted with a passphrase"},
		{"an old key with a passphrase", one.CertPEM, pkcs1, "tls.key k.pem is encrypted with a passphrase"},
	} {
		pair, err := keyPair(config.TLS{Certificate: "c.pem", Key: "k.pem"}, tt.cert, tt.key)
		if tt.want == "" && (err != nil || pair == nil) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestACertificateThatHasExpiredIsWarnedOfOnce(t *testing.T) {
	server := proxytest.NewCA(t, "ca").Server()
	pair, err := keyPair(config.TLS{}, server.CertPEM, server.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	w := &expiryWarner{log: slog.New(slog.NewTextHandler(&log, nil)), file: "c.pem"}
	for _, tt := range []struct {
		now  time.Time
		want int
	}{
		{pair.Leaf.NotBefore.Add(time.Second), 0},
		{pair.Leaf.NotAfter.Add(time.Second), 1},
		{pair.Leaf.NotAfter.Add(time.Minute), 1},
	} {
		w.look(pair, tt.now)
		if n := strings.Count(log.String(), "has expired or is not valid yet"); n != tt.want {
			t.Errorf("%s: %d warnings, want %d:\n%s", tt.now, n, tt.want, &log)
		}
	}
}
