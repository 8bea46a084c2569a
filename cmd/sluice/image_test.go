package main

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

func TestAnImageThatCannotBeReadSaysHowToWriteIt(t *testing.T) {
	for image, want := range map[string]string{
		"http://localhost:5000/app:1": "without http://",
		"localhost:5000/App:1":        "lower case",
		"localhost:5000/app:":         "could not parse",
		"app:1":                       "localhost:5000/app:1",
		"team/app":                    "localhost:5000/team/app",
	} {
		_, err := parseImage(image, false)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "name.Insecure") {
			t.Errorf("%s: %v", image, err)
		}
	}
}

func TestAnImageOfDockerHubIsNamedInFull(t *testing.T) {
	ref, err := parseImage("docker.io/library/alpine:3", false)
	if err != nil || ref.Context().RegistryStr() != name.DefaultRegistry {
		t.Errorf("%v, %v", ref, err)
	}
}

func TestARegistryInPlainHTTPIsSaidToNeedAFlag(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	resp, err := http.Get("https://" + server.Listener.Addr().String() + "/v2/")
	if err == nil {
		resp.Body.Close()
		t.Fatal("it speaks TLS")
	}
	if err := notARegistry(err); !strings.Contains(err.Error(), "--insecure") {
		t.Error(err)
	}
}

// As go-containerregistry asks a registry on this machine in plain http too, Go's server answers that with 400.
func TestARegistryWhoseCertificateIsNotTrustedIsSaidToNeedItsAuthority(t *testing.T) {
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	ref, err := parseImage(server.Listener.Addr().String()+"/app:1", false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openRepository(t.Context(), ref, false, transport.PullScope)
	if err == nil || !strings.Contains(err.Error(), "failed to verify certificate") || !strings.Contains(err.Error(), "SSL_CERT_FILE") ||
		strings.Contains(err.Error(), "is this the address") {
		t.Error(err)
	}
}
