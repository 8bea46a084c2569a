package main

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

func TestAnImageThatCannotBeReadSaysHowToWriteIt(t *testing.T) {
	for image, want := range map[string]string{
		"http://localhost:5000/app:1":               "without http://",
		"localhost:5000/App:1":                      "lower case",
		"localhost:5000/app:":                       "write HOST/NAME:TAG",
		"localhost:5000":                            "without the name of an image: write localhost:5000/NAME:TAG",
		"a:b:c":                                     "write HOST/NAME:TAG",
		"localhost/app@sha256:abc":                  "sha256: with 64 hex digits",
		"localhost/app:" + strings.Repeat("a", 129): "at most 128 letters",
		"app:1":    "localhost:5000/app:1",
		"team/app": "localhost:5000/team/app",
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

func TestWhatIsWrongWithACertificateSaysWhatToDo(t *testing.T) {
	for want, err := range map[string]error{
		"renewed":       x509.CertificateInvalidError{Reason: x509.Expired},
		"another name":  x509.HostnameError{Certificate: &x509.Certificate{}, Host: "localhost"},
		"SSL_CERT_FILE": x509.UnknownAuthorityError{},
	} {
		err := notARegistry(&url.Error{Op: "Get", URL: "https://localhost/v2/", Err: &tls.CertificateVerificationError{Err: err}})
		if !strings.Contains(err.Error(), want) || want != "SSL_CERT_FILE" && strings.Contains(err.Error(), "SSL_CERT_FILE") {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Go-containerregistry prints the details of an error as Go does.
func TestARefusalIsWithoutGosMaps(t *testing.T) {
	body := `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Action":"pull"}]},{"code":"DENIED","message":"no","detail":"not yours"}]}`
	request := httptest.NewRequest(http.MethodGet, "https://registry.example/v2/app/manifests/1", nil)
	resp := &http.Response{StatusCode: http.StatusUnauthorized, Request: request, Body: io.NopCloser(strings.NewReader(body))}
	text := checkStatus(resp, http.StatusOK).Error()
	if strings.Contains(text, "map[") || !strings.Contains(text, "not yours") || !strings.HasSuffix(text, "; log in with: docker login registry.example") {
		t.Error(text)
	}
}
