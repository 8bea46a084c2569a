package proxy_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// serving writes a server's certificate where a test can replace it.
func serving(t *testing.T, cert proxytest.Cert) config.TLS {
	t.Helper()
	dir := t.TempDir()
	files := config.TLS{Certificate: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key")}
	proxytest.Replace(t, files.Certificate, cert.CertPEM)
	proxytest.Replace(t, files.Key, cert.KeyPEM)
	return files
}

// secureGet is one request on a connection of its own.
func secureGet(config *tls.Config, url string) (*http.Response, error) {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

func TestACertificateIsReadAgainWhenItChanges(t *testing.T) {
	first, second := proxytest.NewCA(t, "first"), proxytest.NewCA(t, "second")
	files := serving(t, first.Server())
	r := run(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New(), func(c *config.Config) { c.TLS = files })
	url := "https://" + r.config.Listen + "/v2/"
	trusts := func(ca *proxytest.CA, want bool) {
		t.Helper()
		if _, err := secureGet(&tls.Config{RootCAs: ca.Pool()}, url); (err == nil) != want {
			t.Errorf("trusted %t, want %t: %v", err == nil, want, err)
		}
	}
	trusts(first, true)
	next := second.Server()
	proxytest.Replace(t, files.Certificate, next.CertPEM) // the key does not fit yet
	trusts(first, true)
	proxytest.Replace(t, files.Key, next.KeyPEM)
	trusts(second, true)
	trusts(first, false)
	proxytest.Replace(t, files.Key, []byte("garbage"))
	trusts(second, true)
	if err := os.Remove(files.Key); err != nil {
		t.Fatal(err)
	}
	trusts(second, true)
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(r.log.String(), "changed files cannot be used"); n < 2 {
		t.Errorf("the log has %d complaints:\n%s", n, r.log)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	ca := proxytest.NewCA(t, "ca")
	files := serving(t, ca.Server())
	r := run(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New(), func(c *config.Config) { c.TLS = files })
	defer r.end()
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		_, err := secureGet(&tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS10, MaxVersion: version}, "https://"+r.config.Listen+"/v2/")
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

func TestAClientCertificateDecides(t *testing.T) {
	ca, clients, others := proxytest.NewCA(t, "server"), proxytest.NewCA(t, "clients"), proxytest.NewCA(t, "others")
	files := serving(t, ca.Server())
	files.ClientCA = filepath.Join(filepath.Dir(files.Key), "ca.crt")
	proxytest.Replace(t, files.ClientCA, clients.PEM)
	r := run(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), inmemory.New(), func(c *config.Config) {
		c.TLS, c.Access.Mode = files, config.AccessMTLS
		c.Access.Permissions = []config.Permission{{Identity: "alice", Repositories: []string{"alice/**"}, Actions: []string{"pull", "push"}}}
	})
	defer r.end()
	get := func(path string, certs ...proxytest.Cert) (int, error) {
		t.Helper()
		c := &tls.Config{RootCAs: ca.Pool()}
		for _, crt := range certs {
			crt := crt.TLS
			c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &crt, nil }
		}
		resp, err := secureGet(c, "https://"+r.config.Listen+path)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, nil
	}
	alice := clients.Client("alice")
	for _, tt := range []struct {
		name, path string
		certs      []proxytest.Cert
		want       int
	}{
		{"alice at the version check", "/v2/", []proxytest.Cert{alice}, 200},
		{"alice at home", "/v2/alice/app/manifests/1", []proxytest.Cert{alice}, 404},
		{"alice elsewhere", "/v2/bob/app/manifests/1", []proxytest.Cert{alice}, 403},
		{"bob, who has no permission", "/v2/alice/app/manifests/1", []proxytest.Cert{clients.Client("bob")}, 403},
		{"no certificate", "/v2/", nil, 0},
		{"another authority's", "/v2/", []proxytest.Cert{others.Client("alice")}, 0},
		{"a server's certificate", "/v2/", []proxytest.Cert{clients.Server()}, 0},
	} {
		if got, err := get(tt.path, tt.certs...); got != tt.want {
			t.Errorf("%s: %d %v, want %d", tt.name, got, err, tt.want)
		}
	}
	// A connection that is open when the authority goes is no longer worth anything.
	kept := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{alice.TLS}}}}
	defer kept.CloseIdleConnections()
	ask := func() int {
		t.Helper()
		resp, err := kept.Get("https://" + r.config.Listen + "/v2/")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := ask(); got != 200 {
		t.Errorf("alice: %d", got)
	}
	proxytest.Replace(t, files.ClientCA, others.PEM)
	if got := ask(); got != 403 {
		t.Errorf("on a connection of the authority that was taken out: %d", got)
	}
	if got, err := get("/v2/", alice); got != 0 {
		t.Errorf("a new connection of it: %d %v", got, err)
	}
	if got, err := get("/v2/", others.Client("alice")); got != 200 {
		t.Errorf("the new authority: %d %v", got, err)
	}
	// Plain http at the TLS port is no way around.
	conn, err := net.Dial("tcp", r.config.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if b, _ := io.ReadAll(conn); !strings.Contains(string(b), "400") {
		t.Errorf("plain http is answered %q", b)
	}
}
