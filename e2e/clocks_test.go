//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// Replicas whose clocks differ.

const clockVariable = "SLUICE_E2E_CLOCK"

// buildShifted is the program itself with one change, the clock of its proxy. What signs requests to the bucket keeps the
// machine's: S3 refuses what was signed a quarter of an hour ago.
func (b *workbench) buildShifted() (string, error) {
	folder, err := filepath.Abs("../cmd/sluice")
	if err != nil {
		return "", err
	}
	file := filepath.Join(folder, "run.go")
	run, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	const options = "proxy.Options{"
	if bytes.Count(run, []byte(options)) != 1 {
		return "", fmt.Errorf("%s does not have %s once, which is given another clock here", file, options)
	}
	const clock = `package main

import (
	"os"
	"time"
)

func shifted() time.Time {
	d, err := time.ParseDuration(os.Getenv("` + clockVariable + `"))
	if err != nil {
		panic(err)
	}
	return time.Now().Add(d)
}
`
	dir, replaced := filepath.Join(b.dir, "shifted"), map[string]string{}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for name, content := range map[string]string{
		"run.go": strings.Replace(string(run), options, options+"Now: shifted, ", 1), "shifted.go": clock,
	} {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			return "", err
		}
		replaced[filepath.Join(folder, name)] = at
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o644); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "sluice")
	_, err = tryRunIn("..", goEnvironment(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", out, "./cmd/sluice")
	return out, err
}

// anHourApart are three clocks that differ by up to two hours, the first of them at this time.
func anHourApart(at time.Duration) []replicaOption {
	return []replicaOption{{clock: at}, {clock: at + time.Hour}, {clock: at - time.Hour}}
}

// Half an hour before midnight UTC one of them is in tomorrow's generation already; half an hour after it one is still
// in yesterday's.
func TestReplicasWithClocksAnHourApartAreOneForEveryClient(t *testing.T) {
	clients := attestedPushes(t)
	for name, at := range map[string]time.Duration{"before midnight": 23*time.Hour + 30*time.Minute, "after midnight": 24*time.Hour + 30*time.Minute} {
		t.Run(name, func(t *testing.T) {
			now := time.Now().UTC()
			w := newFleet(t, fleetOptions{each: anHourApart(now.Truncate(24 * time.Hour).Add(at).Sub(now))})
			for client, c := range clients {
				for _, e := range []error{c.clean(w.direct + "/" + client + "-reference:1"), c.push(w.via + "/" + client + ":1")} {
					if e != nil {
						t.Fatal(e)
					}
				}
				w.same(t, client, client+"-reference")
				for range w.sluice.replicas { // each has its turn
					if found := w.sluice.list(t, w.via+"/"+client+":1"); len(found) != 2 {
						t.Errorf("%s: %d statements are listed, want one for each platform", client, len(found))
					}
				}
			}
		})
	}
}

// Four days later the same bucket has a generation that is over, with attestations that no index ever named. Three
// processes find it in the same moment, their clocks an hour apart, while clients push.
func TestSweepersOfReplicasDoNotDisturbEachOtherNorPushes(t *testing.T) {
	const abandoned, pushes = 10, 6
	attested, clean := attestedSource(t, 85)
	crane := tool(t, "crane")
	before := newFleet(t, fleetOptions{})
	run(t, crane, "copy", "--insecure", clean, before.direct+"/reference:1")
	run(t, crane, "copy", "--insecure", attested, before.via+"/old:1")
	left := map[string]string{} // by repository, the attestation's digest
	for i := range abandoned {
		repository := fmt.Sprintf("abandoned-%d", i)
		left[repository] = before.abandon(t, repository, uint64(i))
	}
	before.sluice.stop()
	bucket := before.sluice.bucket
	old := bucket.generations(t)
	if len(old) == 0 {
		t.Fatal("nothing is in quarantine, so this shows nothing")
	}

	w := fleetBefore(t, before.upstream, fleetOptions{bucket: bucket, each: anHourApart(4 * 24 * time.Hour)})
	var g errgroup.Group
	for i := range pushes {
		g.Go(func() error {
			_, err := tryRun(crane, "copy", "--insecure", attested, fmt.Sprintf("%s/new-%d:1", w.via, i))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if err := w.sluice.replicas[0].proc.await(func() error {
		for _, generation := range old {
			if files := bucket.files(t, "quarantine/"+generation); len(files) > 0 {
				return fmt.Errorf("of generation %s, which is over, there are %d objects", generation, len(files))
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for repository, digest := range left {
		kept := bucket.files(t, "attestations/"+repository+"/_unclaimed/sha256/"+strings.TrimPrefix(digest, "sha256:"))
		if len(kept) < 3 { // the manifest, its config and a statement
			t.Errorf("of the attestation in %s that no index named there is %v", repository, kept)
		}
	}
	repositories := []string{"old"}
	for i := range pushes {
		repositories = append(repositories, fmt.Sprintf("new-%d", i))
	}
	for _, repository := range repositories {
		w.same(t, repository, "reference")
		if found := w.sluice.list(t, w.via+"/"+repository+":1"); len(found) != 2 {
			t.Errorf("%s: %d statements are listed, want one for each platform", repository, len(found))
		}
	}
	rescues := 0
	for _, r := range w.sluice.replicas {
		b, err := os.ReadFile(r.proc.log)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "level=ERROR") {
			t.Errorf("a replica has a trouble:\n%s", b)
		}
		rescues += strings.Count(string(b), "is kept aside")
	}
	t.Logf("%d attestations without an index were kept aside %d times", abandoned, rescues)
}

// abandon pushes a legacy attestation and never its index.
func (w *world) abandon(t testing.TB, repository string, seed uint64) (digest string) {
	t.Helper()
	src := shared(t, bench.source)
	source := src.host + "/" + repository + ":1"
	needBuilder(t, "old").mustBuild(t, newApplication(t, 200+seed), "linux/amd64", append(push(source), "--provenance=mode=max")...)
	for _, e := range get(t, src.host, repository, "1").Parsed.Manifests {
		if e.Platform != nil && e.Platform.OS == "unknown" {
			digest = e.Digest
		}
	}
	manifest := get(t, src.host, repository, digest)
	for _, d := range append(manifest.Parsed.Layers, *manifest.Parsed.Config) {
		blob := w.exchange(t, http.MethodGet, "http://"+src.host+"/v2/"+repository+"/blobs/"+d.Digest, "", nil, http.StatusOK)
		body, err := io.ReadAll(blob.Body)
		if err != nil {
			t.Fatal(err)
		}
		location := w.exchange(t, http.MethodPost, "http://"+w.via+"/v2/"+repository+"/blobs/uploads/", "", nil, http.StatusAccepted).Header.Get("Location")
		at, err := url.Parse("http://" + w.via)
		if err != nil {
			t.Fatal(err)
		}
		if at, err = at.Parse(location); err != nil {
			t.Fatal(err)
		}
		query := at.Query()
		query.Set("digest", d.Digest)
		at.RawQuery = query.Encode()
		w.exchange(t, http.MethodPut, at.String(), "application/octet-stream", body, http.StatusCreated)
	}
	w.exchange(t, http.MethodPut, "http://"+w.via+"/v2/"+repository+"/manifests/"+digest, manifest.MediaType, manifest.Bytes, http.StatusCreated)
	return digest
}

func (w *world) exchange(t testing.TB, method, address, contentType string, body []byte, status int) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != status {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %s, want %d: %s", method, address, resp.Status, status, b)
	}
	return resp
}

// files are the objects below a prefix. The gateway has a file for each.
func (b *bucket) files(t testing.TB, prefix string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(filepath.Join(b.folder, prefix), func(path string, e fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil // it went while we looked
		}
		if err == nil && !e.IsDir() {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (b *bucket) generations(t testing.TB) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.folder, "quarantine"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
