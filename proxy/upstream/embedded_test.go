package upstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func digestOf(b []byte) string {
	s := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(s[:])
}

// newEmbedded is a registry over a folder of its own, and its log.
func newEmbedded(t *testing.T, dir string) (*Registry, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	h, c, err := NewEmbedded(context.Background(), dir, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{URL: "embedded", Credentials: Anonymous, Embedded: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, log
}

// do asks and checks the status; it returns the response, read and closed, and its body.
func do(t *testing.T, r *Registry, want int, q Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := r.Do(context.Background(), q)
	if err != nil {
		t.Fatalf("%s %s%s: %v", q.Method, q.Path, q.Location, err)
	}
	b, err := io.ReadAll(resp.Body)
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		t.Fatalf("%s %s: body: %v", q.Method, q.Path, err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s %s%s = %d, want %d: %s", q.Method, q.Path, q.Location, resp.StatusCode, want, b)
	}
	return resp, b
}

// pushBlob opens a session and sends the blob as a stream.
func pushBlob(t *testing.T, r *Registry, repo string, blob []byte, length int64) {
	t.Helper()
	resp, _ := do(t, r, 202, Request{Method: "POST", Repository: repo, Path: "blobs/uploads/", Push: true})
	loc, err := r.Location(resp)
	if err != nil {
		t.Fatal(err)
	}
	do(t, r, 201, Request{
		Method: "PUT", Repository: repo, Location: loc, Push: true,
		Query: url.Values{"digest": {digestOf(blob)}}, Body: struct{ io.Reader }{bytes.NewReader(blob)}, ContentLength: length,
		Header: http.Header{"Content-Type": {"application/octet-stream"}},
	})
}

func TestEmbeddedRegistryTakesAndGivesAnImage(t *testing.T) {
	dir := t.TempDir()
	r, log := newEmbedded(t, dir)
	layer := make([]byte, 5<<20)
	rand.Read(layer)
	config := []byte(`{"architecture":"amd64","os":"linux"}`)
	pushBlob(t, r, "team/app", layer, int64(len(layer)))
	pushBlob(t, r, "team/app", layer[1:], -1) // chunked
	pushBlob(t, r, "team/app", config, int64(len(config)))
	manifest := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		digestOf(config), len(config), digestOf(layer), len(layer)))
	resp, _ := do(t, r, 201, Request{
		Method: "PUT", Repository: "team/app", Path: "manifests/1", Push: true, Replay: manifest,
		Header: http.Header{"Content-Type": {"application/vnd.oci.image.manifest.v1+json"}},
	})
	if got := resp.Header.Get("Docker-Content-Digest"); got != digestOf(manifest) {
		t.Errorf("pushed as %s, want %s", got, digestOf(manifest))
	}

	_, got := do(t, r, 200, Request{Method: "GET", Repository: "team/app", Path: "blobs/" + digestOf(layer)})
	if !bytes.Equal(got, layer) {
		t.Error("the layer came back changed")
	}
	_, got = do(t, r, 206, Request{Method: "GET", Repository: "team/app", Path: "blobs/" + digestOf(layer), Header: http.Header{"Range": {"bytes=10-19"}}})
	if !bytes.Equal(got, layer[10:20]) {
		t.Error("a range came back wrong")
	}
	_, got = do(t, r, 200, Request{Method: "GET", Repository: "team/app", Path: "manifests/1", Header: http.Header{"Accept": {"application/vnd.oci.image.manifest.v1+json"}}})
	if !bytes.Equal(got, manifest) {
		t.Error("the manifest came back changed")
	}
	_, got = do(t, r, 200, Request{Path: "_catalog"})
	var catalog struct{ Repositories []string }
	if err := json.Unmarshal(got, &catalog); err != nil || fmt.Sprint(catalog.Repositories) != "[team/app]" {
		t.Errorf("catalog = %s (%v)", got, err)
	}
	do(t, r, 200, Request{})
	do(t, r, 202, Request{Method: "DELETE", Repository: "team/app", Path: "manifests/" + digestOf(manifest), Push: true})
	do(t, r, 404, Request{Method: "HEAD", Repository: "team/app", Path: "manifests/1"})
	if log.String() != "" {
		t.Errorf("a 404 and an ordinary push are worth no log line:\n%s", log)
	}
}

func TestEmbeddedRegistryGoesOnWithAnUploadAfterARestart(t *testing.T) {
	dir := t.TempDir()
	blob := []byte("first half, second half")
	first, _ := newEmbedded(t, dir)
	resp, _ := do(t, first, 202, Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true})
	loc, err := first.Location(resp)
	if err != nil {
		t.Fatal(err)
	}
	resp, _ = do(t, first, 202, Request{Method: "PATCH", Repository: "app", Location: loc, Push: true, Body: bytes.NewReader(blob[:10]), ContentLength: 10})
	if loc, err = first.Location(resp); err != nil {
		t.Fatal(err)
	}
	first.Close()

	second, _ := newEmbedded(t, dir)
	do(t, second, 201, Request{
		Method: "PUT", Repository: "app", Location: loc, Push: true, Query: url.Values{"digest": {digestOf(blob)}},
		Body: bytes.NewReader(blob[10:]), ContentLength: int64(len(blob) - 10),
	})
}

func TestEmbeddedRegistryRefusesAFolderItCannotUse(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, secretFile), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"no folder": "", "a file": file, "a damaged secret": damaged} {
		if _, _, err := NewEmbedded(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), "embedded registry") {
			t.Errorf("%s: error = %v", name, err)
		}
	}
}
