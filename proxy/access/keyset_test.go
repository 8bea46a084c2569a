package access

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

// An issuer's certificate gets a new authority: the file with it is replaced, and nothing restarted.
func TestAuthoritiesOfAnIssuerAreReadAgain(t *testing.T) {
	issuer := proxytest.NewIssuer(t, nil)
	keys := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(issuer.JWKS()) }))
	defer keys.Close()
	file := proxytest.File(t, "ca.pem", proxytest.NewCA(t, "old").PEM)
	entry := acme(issuer)
	entry.CA, entry.JWKS = file, keys.URL
	now := time.Now()
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{entry}, Now: func() time.Time { return now }})
	authorization := "Bearer " + issuer.Token(github())
	if _, err := a.Authenticate(request(authorization)); err == nil {
		t.Fatal("keys were fetched from a server of an unknown authority")
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: keys.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(keysPause)
	if _, err := a.Authenticate(request(authorization)); err != nil {
		t.Error(err)
	}
}

func TestAnIssuerThatHangsHoldsNoLoginUpWhileItsKeysMayBeUsed(t *testing.T) {
	var hangs atomic.Bool
	release := make(chan struct{})
	issuer := proxytest.NewIssuer(t, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if hangs.Load() {
				select {
				case <-release:
				case <-r.Context().Done():
					return
				}
			}
			next.ServeHTTP(w, r)
		})
	})
	defer close(release)
	var ahead atomic.Int64
	a := mustNew(t, Options{Mode: OIDC, OIDC: []Issuer{acme(issuer)}, Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	token := issuer.Token(github("exp", time.Now().Add(48*time.Hour).Unix()))
	if _, err := a.Authenticate(request("Bearer " + token)); err != nil {
		t.Fatal(err)
	}
	hangs.Store(true)
	ahead.Store(int64(2 * keysFresh))
	if _, err := a.Authenticate(request("Bearer " + token)); err != nil {
		t.Error(err)
	}
	keys := a.mode.(*issuers).all[0].keys
	keys.mu.Lock()
	defer keys.mu.Unlock()
	if keys.failure != nil {
		t.Errorf("the login waited until the fetch was given up: %v", keys.failure)
	}
}
