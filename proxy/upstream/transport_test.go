package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// authority is a certificate for 127.0.0.1 that signs itself.
func authority(t testing.TB, name string) (cert tls.Certificate, file []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, certificatePEM(der)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestAnOwnAuthorityIsTrustedAndReadAgainWhenItChanges(t *testing.T) {
	var current atomic.Pointer[tls.Certificate]
	first, firstPEM := authority(t, "one")
	second, secondPEM := authority(t, "two")
	current.Store(&first)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*current.Load()}, SessionTicketsDisabled: true}, nil
	}}
	srv.StartTLS()
	defer srv.Close()
	srv.Config.SetKeepAlivesEnabled(false)

	file := filepath.Join(t.TempDir(), "ca.pem")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(firstPEM)
	bare, _ := open(t, Options{URL: srv.URL, Credentials: Anonymous})
	if _, err := bare.Do(context.Background(), Request{}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "`ca`") {
		t.Errorf("without the authority: %v", err)
	}
	r, _ := open(t, Options{URL: srv.URL, Credentials: Anonymous, CA: file})
	do(t, r, 200, Request{})

	write([]byte("no certificate, for a moment"))
	do(t, r, 200, Request{})

	current.Store(&second)
	if _, err := r.Do(context.Background(), Request{}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("an authority nobody named: %v", err)
	}
	write(append(secondPEM, firstPEM...)) // of another size
	do(t, r, 200, Request{})
}

func TestPlainHTTPBehindAnHTTPSURLSaysSo(t *testing.T) {
	f := newFake(t, &fake{})
	r, _ := open(t, Options{URL: strings.Replace(f.URL, "http://", "https://", 1), Credentials: Anonymous})
	if _, err := r.Do(context.Background(), Request{}); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "check http or https") {
		t.Errorf("error = %v", err)
	}
}

func TestBytesArriveUnchangedOverTLS(t *testing.T) {
	cert, ca := authority(t, "one")
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		io.Copy(h, r.Body)
		got <- hex.EncodeToString(h.Sum(nil))
		w.WriteHeader(201)
	}))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	srv.StartTLS()
	defer srv.Close()
	r, _ := open(t, Options{URL: srv.URL, Credentials: Anonymous, CA: file})
	for _, length := range []int64{layerSize, -1} {
		h := sha256.New()
		q := upload(io.TeeReader(io.LimitReader(rand.Reader, layerSize), h))
		q.ContentLength = length
		do(t, r, 201, q)
		if want := hex.EncodeToString(h.Sum(nil)); <-got != want {
			t.Errorf("length %d: the bytes changed", length)
		}
	}
}
