//go:build soak

package soak

import (
	"cmp"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const bucketKey, bucketSecret = "sluice-access", "sluice-secret"

// A gateway is a bucket behind faults.
type gateway struct {
	*peer
	direct string // its address without faults
	faulty *faulty
}

func startGateway(t *testing.T, d *dice) *gateway {
	t.Helper()
	cache, _ := os.UserCacheDir()
	program := filepath.Join(cmp.Or(os.Getenv("SLUICE_CACHE"), filepath.Join(cache, "sluice")), "tools/versitygw/versitygw")
	if _, err := os.Stat(program); err != nil {
		t.Fatal("make setup builds what is missing: ", err)
	}
	dir, address := t.TempDir(), freeAddress(t)
	for _, sub := range []string{"buckets/state", "meta"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The sidecar keeps metadata in files: not every file system has extended attributes.
	cmd := exec.CommandContext(t.Context(), program, "--port", address, "--region", "us-east-1", "--quiet", "posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "buckets"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+bucketKey, "ROOT_SECRET_KEY="+bucketSecret)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	target := &url.URL{Scheme: "http", Host: address}
	for deadline := time.Now().Add(startTime); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(target.String()); err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the gateway does not start")
		}
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	f := &faulty{
		name: "bucket", dice: d,
		next: &httputil.ReverseProxy{
			Transport: transport, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
			Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(target)
				r.Out.Host = r.In.Host // it is signed
			},
		},
		faults: append([]fault{
			{"403", status(403)},
			{"500", status(500)},
			{"503", status(503)},
			{"503 with Retry-After", status(503, "Retry-After", "1")},
		}, connections...),
		steps: []func(*http.Request) bool{every, every, is(http.MethodPut, "/"), is(http.MethodGet, "/"), is(http.MethodHead, "/")},
	}
	return &gateway{peer: startPeer(t, f), direct: target.String(), faulty: f}
}
