package access

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

func presenting(c proxytest.Cert) *http.Request {
	r := request("")
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf}}
	return r
}

func TestACertificateOfTheAuthoritySaysWhoItIs(t *testing.T) {
	ca, other := proxytest.NewCA(t, "ours"), proxytest.NewCA(t, "other")
	file := proxytest.File(t, "ca.pem", ca.PEM)
	dns := func(names ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = names }
	}
	spiffe := proxytest.URI(t, "spiffe://acme/ci/build")
	for _, tt := range []struct {
		name, identity string
		cert           proxytest.Cert
		want           string
	}{
		{"the common name", CommonName, ca.Client("ci"), "ci"},
		{"no common name", CommonName, ca.Client(""), ""},
		{"a common name that breaks the log's line", CommonName, ca.Client("a\nb"), ""},
		{"the DNS name", DNS, ca.Client("ci", dns("ci.acme.example")), "ci.acme.example"},
		{"two DNS names", DNS, ca.Client("ci", dns("a.example", "b.example")), ""},
		{"no DNS name", DNS, ca.Client("ci"), ""},
		{"the URI", URI, ca.Client("ci", spiffe), "spiffe://acme/ci/build"},
		{"another authority's", CommonName, other.Client("ci"), ""},
		{"for servers only", CommonName, ca.Server(), ""},
		{"expired", CommonName, ca.Client("ci", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := mustNew(t, Options{Mode: MTLS, MTLS: MTLSOptions{ClientCA: file, Identity: tt.identity}})
			id, err := a.Authenticate(presenting(tt.cert))
			if tt.want == "" && !errors.Is(err, ErrDenied) {
				t.Errorf("got %+v, %v", id, err)
			}
			if tt.want != "" && (err != nil || id.Name != tt.want || id.Key == "") {
				t.Errorf("got %+v, %v", id, err)
			}
		})
	}
	a := mustNew(t, Options{Mode: MTLS, MTLS: MTLSOptions{ClientCA: file, Identity: CommonName}})
	if _, err := a.Authenticate(request(basicAuth("ci", "x"))); !errors.Is(err, ErrDenied) {
		t.Errorf("without a certificate: %v", err)
	}
	one, _ := a.Authenticate(presenting(ca.Client("ci")))
	renewed, _ := a.Authenticate(presenting(ca.Client("ci")))
	if one.Key == "" || one.Key != renewed.Key {
		t.Error("a renewed certificate cuts off running uploads")
	}
}

// A connection outlives the handshake that let it in.
func TestAnAuthorityThatIsTakenOutLetsNobodyInAnyMore(t *testing.T) {
	first, second := proxytest.NewCA(t, "first"), proxytest.NewCA(t, "second")
	file := proxytest.File(t, "ca.pem", first.PEM)
	now := time.Now()
	a := mustNew(t, Options{Mode: MTLS, MTLS: MTLSOptions{ClientCA: file, Identity: CommonName}, Now: func() time.Time { return now }})
	client := first.Client("ci")
	in := func(want bool, c proxytest.Cert) {
		t.Helper()
		if _, err := a.Authenticate(presenting(c)); (err == nil) != want {
			t.Errorf("let in %t, want %t: %v", err == nil, want, err)
		}
	}
	in(true, client)
	in(true, client)
	in(false, second.Client("ci"))
	proxytest.Replace(t, file, []byte("no certificate, for a moment"))
	in(true, client)
	proxytest.Replace(t, file, append(append([]byte{}, first.PEM...), second.PEM...))
	in(true, client)
	in(true, second.Client("ci"))
	proxytest.Replace(t, file, second.PEM)
	in(false, client)
	proxytest.Replace(t, file, first.PEM)
	in(true, client)
	now = now.Add(2 * time.Hour)
	in(false, client)
}
