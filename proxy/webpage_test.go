package proxy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// A page of evil.example whose name leads to 127.0.0.1 now is of one origin with Sluice. With the defaults Sluice has no
// users, and credentials of its own.
func TestAWebPageInTheDevelopersBrowserGetsNothing(t *testing.T) {
	var asked atomic.Int32
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			next.ServeHTTP(w, r)
		})
	}})
	r := run(t, up, inmemory.New(), nil)
	defer r.end()
	r.push("1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}))
	opened := request(t, http.MethodPost, r.base()+"/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	port := r.config.Listen[strings.LastIndex(r.config.Listen, ":"):]
	digest := "sha256:" + strings.Repeat("0", 64)

	asked.Store(0)
	for _, line := range []string{
		"GET /v2/", "GET /v2/_catalog", "GET /v2/app/tags/list", "GET /v2/app/manifests/1", "HEAD /v2/app/manifests/1", "PUT /v2/app/manifests/1",
		"DELETE /v2/app/manifests/" + digest, "GET /v2/app/blobs/" + digest, "DELETE /v2/app/blobs/" + digest, "GET /v2/app/referrers/" + digest,
		"POST /v2/app/blobs/uploads/", "POST /v2/app/blobs/uploads/?mount=" + digest + "&from=other",
		"GET " + opened, "PATCH " + opened, "PUT " + put(opened, digest), "DELETE " + opened,
	} {
		method, path, _ := strings.Cut(line, " ")
		for _, tt := range []string{
			"HTTP/1.1\r\nHost: evil.example" + port, "HTTP/1.0", // which need not name a host
			"HTTP/1.1\r\nHost: localhost" + port + "\r\nOrigin: http://evil.example",
			"HTTP/1.1\r\nHost: localhost" + port + "\r\nSec-Fetch-Site: cross-site",
		} {
			status, body := bare(t, r.config.Listen, method, path+" "+tt)
			var said struct {
				Errors []struct{ Code, Message string } `json:"errors"`
			}
			if status != http.StatusForbidden {
				t.Errorf("%s, %q: %d %.200s", line, tt, status, body)
			} else if method != http.MethodHead && (json.Unmarshal(body, &said) != nil || len(said.Errors) != 1 || said.Errors[0].Code != "DENIED" ||
				!strings.Contains(said.Errors[0].Message, "access.insecure: true")) {
				t.Errorf("%s, %q: %s", line, tt, body)
			}
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("the registry was asked %d times", n)
	}
	if _, metrics := r.admin("/metrics"); !strings.Contains(metrics, `reason="denied"} 64`) {
		t.Errorf("the refusals are not counted:\n%s", metrics)
	}

	byName := func(host string) int {
		status, _ := bare(t, r.config.Listen, http.MethodGet, "/v2/app/manifests/1 HTTP/1.1\r\nAccept: "+ociIndex+"\r\nHost: "+host+port)
		return status
	}
	for _, host := range []string{"localhost", "127.0.0.1", "host.docker.internal"} {
		if got := byName(host); got != http.StatusOK {
			t.Errorf("by %s the image is %d", host, got)
		}
	}
	// It can be switched off, and on, without a restart.
	r.change(func(c *config.Config) { c.Access.Insecure = true })
	if got := byName("sluice"); got != http.StatusOK {
		t.Errorf("under insecure the image is %d by another name", got)
	}
	r.change(func(*config.Config) {})
	if got := byName("sluice"); got != http.StatusForbidden {
		t.Errorf("without insecure again it is %d by another name", got)
	}
}

// bare sends a request as it is written, without a body, and reads the answer.
func bare(t *testing.T, address, method, rest string) (status int, body []byte) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "%s %s\r\nConnection: close\r\n\r\n", method, rest); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %q: %v", method, rest, err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatalf("%s %q: %v", method, rest, err)
	}
	return resp.StatusCode, body
}
