package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
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
