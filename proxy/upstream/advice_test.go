package upstream

import (
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
