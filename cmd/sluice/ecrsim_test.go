package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/proxy/ecrsim"
)

// startECRSim runs the command in this process until the test ends, and returns what it prints.
func startECRSim(t *testing.T, arguments ...string) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int)
	go func() {
		code <- execute(ctx, append([]string{"ecrsim", "--listen", "127.0.0.1:0"}, arguments...), w, io.Discard)
	}()
	t.Cleanup(func() {
		cancel()
		if c := <-code; c != 0 {
			t.Errorf("ended with %d", c)
		}
	})
	lines, out := bufio.NewScanner(r), []string{}
	for len(out) < 3 && lines.Scan() {
		out = append(out, lines.Text())
	}
	if len(out) != 3 {
		t.Fatalf("printed only %q", out)
	}
	return out
}

// In a container it has ECR's names as aliases: one port serves the registry, the control plane and the layers.
func TestECRSimUnderItsRealNames(t *testing.T) {
	dir := t.TempDir()
	const layers = "layers.s3.eu-central-1.amazonaws.com"
	out := startECRSim(t, "--tls", "--ca-out", dir, "--blob-listen", "", "--blob-url", "https://"+layers, "--control-listen", "127.0.0.1:0")
	address := regexp.MustCompile(`https://(\S+)`).FindStringSubmatch(out[0])[1]
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}}
	host := ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion)
	for _, c := range []struct {
		name, url, target, say string
		status                 int
	}{
		{"the registry", "https://" + host + "/v2/", "", `realm="https://` + host + `/"`, 401},
		{"the control plane", "https://api.ecr.eu-central-1.amazonaws.com/", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", "MissingAuthenticationTokenException", 400},
		{"the layers", "https://" + layers + "/x", "", "AccessDenied", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			method := http.MethodGet
			if c.target != "" {
				method = http.MethodPost
			}
			req, err := http.NewRequestWithContext(t.Context(), method, c.url, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			if c.target != "" {
				req.Header.Set("X-Amz-Target", c.target)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if said := resp.Header.Get("Www-Authenticate") + string(b); resp.StatusCode != c.status || !strings.Contains(said, c.say) {
				t.Errorf("%s %s, want %d %s", resp.Status, said, c.status, c.say)
			}
		})
	}
	// The control plane on its own is plain http, so that an SDK needs no authority.
	endpoint := regexp.MustCompile(`AWS_ENDPOINT_URL_ECR=(http://\S+)`).FindStringSubmatch(out[1])
	if endpoint == nil {
		t.Fatalf("%q names no plain http endpoint", out[1])
	}
	resp, err := http.Post(endpoint[1], "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("the control plane answers %s", resp.Status)
	}
}
