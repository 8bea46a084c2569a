package upstream

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/proxy/internal/h1"
)

// Whoever reads why a push failed is told what to do about it, and nothing that leads elsewhere.
func TestWhatIsWrongWithTLSSaysWhatToDo(t *testing.T) {
	good, ca := authority(t, "one")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(good.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, issuer, &key.PublicKey, good.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tls  *tls.Config
		want string
	}{
		"an old certificate":   {&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, "certificate renewed or mended"},
		"no HTTP/1.1":          {&tls.Config{Certificates: []tls.Certificate{good}, NextProtos: []string{"h3"}}, "refuses TLS as Sluice speaks it"}, // for "h2" alone Go makes an exception
		"a client certificate": {&tls.Config{Certificates: []tls.Certificate{good}, ClientAuth: tls.RequireAnyClientCert}, "no client certificate"},
		"TLS 1.1":              {&tls.Config{Certificates: []tls.Certificate{good}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := tls.Listen("tcp", "127.0.0.1:0", c.tls)
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
			defer srv.Close()
			go srv.Serve(ln)
			r, _ := open(t, Options{URL: "https://" + ln.Addr().String(), Credentials: Anonymous, CA: file})
			if _, err := r.Do(t.Context(), Request{}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestARegistryThatDoesNotAnswerSaysHowFarItWent(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"no connection": {&dialError{&net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}}, "nothing answers at this address"},
		"as a context":  {&dialError{&net.OpError{Op: "dial", Net: "tcp", Err: context.DeadlineExceeded}}, "nothing answers at this address"},
		"no handshake":  {&dialError{fmt.Errorf("TLS handshake: %w", context.DeadlineExceeded)}, "accepted the connection and stopped"},
		"no answer":     {errHeaderTimeout, "accepted the connection and stopped"},
		"half of one":   {h1.ErrStalled, "accepted the connection and stopped"},
		"no time":       {context.DeadlineExceeded, "gave up waiting"},
	} {
		if err := unreachable("registry.example.com", c.err); !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// through sends everything by way of a proxy of the environment, which net/http reads once for the whole process.
func through(r *Registry, proxy string) {
	named := func(*http.Request) (*url.URL, error) { return url.Parse(proxy) }
	quick := r.quick.(*h1.Client)
	quick.Proxy = named
	quick.Other.(steady).over.(*http.Transport).Proxy = named
	r.transport.(*http.Transport).Proxy = named
}

func TestAProxyOfTheEnvironmentThatRefusesIsNamed(t *testing.T) {
	requests := map[string]Request{
		"read":   {Repository: "app", Path: "tags/list"},
		"stream": {Method: "PATCH", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true, Body: zeros{}, ContentLength: layerSize},
	}
	for status, c := range map[int]struct {
		want  string
		tries int
	}{407: {"user and password into HTTP_PROXY", 1}, 403: {"check the proxy", 1}, 503: {"check the proxy", retryAttempts}} {
		for name, q := range requests {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				connects := 0
				proxy := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
					connects++
					if req.Method != http.MethodConnect || req.Header.Get("Proxy-Authorization") == "" {
						t.Errorf("%s %s with %v", req.Method, req.Host, req.Header)
					}
					fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status)
					return false
				})
				r, _ := open(t, Options{URL: "https://registry.example.com", Credentials: Anonymous})
				through(r, strings.Replace(proxy, "://", "://user:geheim@", 1))
				_, err := r.Do(t.Context(), q)
				if !errors.Is(err, ErrUnreachable) {
					t.Fatalf("%v", err)
				}
				for _, want := range []string{c.want, strings.TrimPrefix(proxy, "http://"), fmt.Sprint(status), "registry.example.com:443"} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("no %q in %v", want, err)
					}
				}
				if strings.Contains(err.Error(), "geheim") {
					t.Errorf("the password is in %v", err)
				}
				if connects != c.tries {
					t.Errorf("asked %d times", connects)
				}
			})
		}
	}
}

func TestAProxyOfTheEnvironmentThatIsNotThereIsNamed(t *testing.T) {
	srv := httptest.NewServer(nil)
	gone := srv.URL
	srv.Close()
	for _, u := range []string{"https://registry.example.com", "http://registry.example.com"} {
		r, _ := open(t, Options{URL: u, Credentials: Anonymous})
		through(r, gone)
		if _, err := r.Do(t.Context(), Request{Repository: "app", Path: "tags/list"}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "check the proxy") {
			t.Errorf("%s: %v", u, err)
		}
	}
}
