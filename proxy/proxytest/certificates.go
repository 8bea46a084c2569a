package proxytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA signs certificates for tests.
type CA struct {
	t   testing.TB
	crt *x509.Certificate
	key *ecdsa.PrivateKey
	PEM []byte
}

// NewCA makes an authority.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	ca := &CA{t: t, key: newKey(t)}
	template := template(name, time.Now().Add(30*24*time.Hour)) // a soak may take long
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
	ca.crt, ca.PEM = ca.sign(template, template, &ca.key.PublicKey)
	return ca
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func template(name string, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
	}
}

func (ca *CA) sign(template, parent *x509.Certificate, public *ecdsa.PublicKey) (*x509.Certificate, []byte) {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	crt, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Pool trusts this authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.crt)
	return pool
}

// A Cert is what a CA has signed, with its key.
type Cert struct {
	CertPEM, KeyPEM []byte
	TLS             tls.Certificate
	Leaf            *x509.Certificate
}

// Server is a certificate for 127.0.0.1 and localhost; change may add names.
func (ca *CA) Server(change ...func(*x509.Certificate)) Cert {
	ca.t.Helper()
	crt := template("server", time.Now().Add(time.Hour))
	crt.ExtKeyUsage, crt.DNSNames, crt.IPAddresses = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	for _, c := range change {
		c(crt)
	}
	return ca.issue(crt)
}

// Client is a client's certificate; change may add names.
func (ca *CA) Client(name string, change ...func(*x509.Certificate)) Cert {
	ca.t.Helper()
	crt := template(name, time.Now().Add(time.Hour))
	crt.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	for _, c := range change {
		c(crt)
	}
	return ca.issue(crt)
}

func (ca *CA) issue(template *x509.Certificate) Cert {
	ca.t.Helper()
	key := newKey(ca.t)
	leaf, certPEM := ca.sign(template, ca.crt, &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.t.Fatal(err)
	}
	return Cert{
		CertPEM: certPEM, KeyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), Leaf: leaf,
		TLS: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
	}
}

// URI is a name for Client's change.
func URI(t testing.TB, raw string) func(*x509.Certificate) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return func(c *x509.Certificate) { c.URIs = append(c.URIs, u) }
}

// Replace gives a file new content the way secret mounts do: another file takes the name.
func Replace(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// File is content in a file of the test.
func File(t testing.TB, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
