package access

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
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
