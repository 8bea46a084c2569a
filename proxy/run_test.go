package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A running is Run itself: listeners, admin, housekeeping and shutdown, as `sluice serve` has them.
type running struct {
	t       *testing.T
	config  *config.Config
	client  *http.Client
	log     *logBuffer
	changes chan *config.Config
	stop    context.CancelFunc
	ended   chan error
}

// run starts Run on free ports and waits until both listen.
func run(t *testing.T, upstream *proxytest.Upstream, driver storagedriver.StorageDriver, change func(*config.Config)) *running {
	t.Helper()
	r := &running{t: t, config: config.Default(), client: &http.Client{Transport: &http.Transport{DisableCompression: true}}, log: &logBuffer{}, changes: make(chan *config.Config), ended: make(chan error, 1)}
	r.config.Listen, r.config.Admin = freeAddress(t), freeAddress(t)
	r.config.Upstreams = []config.Upstream{{URL: upstream.URL, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
	if change != nil {
		change(r.config)
	}
	p, err := proxy.New(proxy.Options{Config: r.config, Storage: driver, Logger: slog.New(slog.NewTextHandler(r.log, nil)), Changes: r.changes})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		r.client.CloseIdleConnections()
	})
	for _, address := range []string{r.config.Listen, r.config.Admin} {
		eventually(t, "listening on "+address, func() bool {
			c, err := net.Dial("tcp", address)
			if err == nil {
				c.Close()
			}
			return err == nil
		})
	}
	return r
}

// admin asks the admin address.
func (r *running) admin(path string) (status int, body string) {
	r.t.Helper()
	a := request(r.t, http.MethodGet, "http://"+r.config.Admin+path, nil, "Connection", "close")
	return a.StatusCode, string(a.body)
}

// end waits until Run has returned.
func (r *running) end() error {
	r.t.Helper()
	r.client.CloseIdleConnections() // net/http gives one that was dialled and not used yet 5 s to say something
	r.stop()
	return receive(r.t, "end of Run", r.ended)
}

// certificate writes a certificate of its own for 127.0.0.1, and gives who trusts it.
func certificate(t *testing.T) (config.TLS, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sluice"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	files := config.TLS{Certificate: writePEM(t, "CERTIFICATE", der), Key: writePEM(t, "PRIVATE KEY", private)}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return files, pool
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), strings.ToLower(kind)+".pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// noneLeft fails the test when goroutines that have come since stay.
func (r *running) noneLeft(before int) {
	r.t.Helper()
	r.client.CloseIdleConnections()
	transport.CloseIdleConnections()
	eventually(r.t, fmt.Sprintf("back to %d goroutines in the proxy", before), func() bool { return ours() <= before })
}

func TestRunServesTLSInFrontOfTLS(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{TLS: true})
	before := settled(t)
	files, trusted := certificate(t)
	r := run(t, up, inmemory.New(), func(c *config.Config) {
		c.TLS = files
		c.Upstreams[0].CA = writePEM(t, "CERTIFICATE", up.Server.Certificate().Raw)
	})
	r.client.Transport = &http.Transport{DisableCompression: true, ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: trusted}}
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	if _, err := proxytest.BuildKit(t.Context(), proxytest.Options{BaseURL: "https://" + r.config.Listen, Repository: "app", Tags: []string{"1"}, Tree: tree, Client: r.client}); err != nil {
		t.Fatal(err)
	}
	if got := up.Inspect(t).Repository("app").Tags["1"]; got != plain.Digest() {
		t.Errorf("upstream has %s, want %s", got, plain.Digest())
	}
	proxytest.AssertClean(t, up)
	proxytest.AssertComplete(t, up)

	_, metrics := r.admin("/metrics")
	for _, want := range []string{
		`sluice_statements_taken_total{action="store",predicate_type="https://slsa.dev/provenance/v1"} 2`,
		`sluice_statements_taken_total{action="store",predicate_type="https://spdx.dev/Document"} 2`,
		`sluice_storage_errors_total 0`,
	} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("metrics lack %s", want)
		}
	}
	for _, zero := range []string{"sluice_streamed_bytes_total 0\n", "sluice_held_bytes_total 0\n"} {
		if strings.Contains(metrics, zero) {
			t.Errorf("metrics say %s", zero)
		}
	}
	if status, body := r.admin("/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("profiles are served unasked: %d %.100s", status, body)
	}
	page, err := http.NewRequest(http.MethodGet, "http://"+r.config.Admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	page.Host = "evil.example"
	if resp, err := r.client.Do(page); err != nil {
		t.Error(err)
	} else if resp.Body.Close(); resp.StatusCode != http.StatusForbidden {
		t.Errorf("a page whose name leads to this machine reads the metrics: %s", resp.Status)
	}
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
	r.noneLeft(before)
}

func TestReadyIsNoWhileStorageCannotBeRead(t *testing.T) {
	driver := proxytest.NewFailingDriver(inmemory.New())
	r := run(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), driver, nil)
	for _, broken := range []bool{false, true, false} {
		want := http.StatusOK
		driver.Fail(0, proxytest.FaultDead)
		if broken {
			want = http.StatusServiceUnavailable
			driver.Fail(1, proxytest.FaultDead)
		}
		if status, body := r.admin("/readyz"); status != want || strings.Contains(body, "made to fail") {
			t.Errorf("readyz with storage broken %t: %d %s", broken, status, body)
		}
		if status, _ := r.admin("/healthz"); status != http.StatusOK {
			t.Errorf("healthz with storage broken %t: %d", broken, status)
		}
	}
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
}

func TestAnAddressThatCannotBeHadIsAnErrorThatSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{})
	for _, tt := range []struct {
		name   string
		change func(*config.Config)
		want   []string
	}{
		{"listen", func(c *config.Config) { c.Listen = taken.Addr().String() }, []string{taken.Addr().String(), "address already in use", "another program", "--listen"}},
		{"listen elsewhere", func(c *config.Config) { c.Listen = "192.0.2.1:5000" }, []string{"192.0.2.1:5000", "no such address", "--listen"}}, // RFC 5737: nobody's
		{"admin", func(c *config.Config) { c.Admin = taken.Addr().String() }, []string{taken.Addr().String(), "address already in use", "admin", "another address"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := settled(t)
			c := config.Default()
			c.Listen, c.Admin = freeAddress(t), freeAddress(t)
			c.Upstreams = []config.Upstream{{URL: up.URL, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
			tt.change(c)
			p, err := proxy.New(proxy.Options{Config: c, Storage: inmemory.New()})
			if err != nil {
				t.Fatal(err)
			}
			err = p.Run(t.Context())
			if err == nil {
				t.Fatal("Run serves")
			}
			for _, w := range tt.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in %q", w, err)
				}
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			eventually(t, fmt.Sprintf("back to %d goroutines in the proxy", before), func() bool { return ours() <= before })
			if tt.name != "admin" {
				return
			}
			ln, err := net.Listen("tcp", c.Listen)
			if err != nil {
				t.Fatalf("the other listener is left open: %v", err)
			}
			ln.Close()
		})
	}
}

func TestACertificateThatCannotBeReadIsAnErrorThatNamesIt(t *testing.T) {
	files, _ := certificate(t)
	c := config.Default()
	c.Listen, c.Admin = freeAddress(t), ""
	c.Upstreams = []config.Upstream{{URL: "http://127.0.0.1:1", Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
	c.TLS = config.TLS{Certificate: files.Key, Key: files.Certificate}
	p, err := proxy.New(proxy.Options{Config: c, Storage: inmemory.New()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("tls.certificate %s with tls.key %s:", files.Key, files.Certificate)) {
		t.Errorf("error %v", err)
	}
}
