package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
)

// A storedFormat is what the commands look at of a storage that a program has left, and of the registry behind it
// (proxy/testdata/storage).
type storedFormat struct {
	Pushes []struct {
		Repository, Original, Forwarded string
		Statements                      map[string][]string // by image
	}
	Signed  map[string]struct{ Digest string }
	Storage []struct {
		Path, Text string
		Raw        []byte
	}
	Registry map[string]struct {
		Tags      map[string]string
		Manifests []struct{ MediaType, Text string }
		Blobs     []struct {
			Path, Text string
			Raw        []byte
		}
	}
}

// lay makes the data folder of it.
func (f *storedFormat) lay(t *testing.T, dir string) {
	t.Helper()
	for _, file := range f.Storage {
		name := filepath.Join(dir, file.Path)
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		if err == nil {
			err = os.WriteFile(name, append([]byte(file.Text), file.Raw...), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// fill pushes what the registry had of a repository, and has no attestations, so that it arrives as it is.
func (f *storedFormat) fill(t *testing.T, base, repo string) {
	t.Helper()
	put := func(url, mediaType string, b []byte) {
		t.Helper()
		req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("PUT %s: %s", url, resp.Status)
		}
	}
	for _, b := range f.Registry[repo].Blobs {
		resp, err := http.Post(base+"/blobs/uploads/", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		location, err := resp.Location()
		if err != nil {
			t.Fatal(err)
		}
		put(location.String()+"?digest="+b.Path, "application/octet-stream", append([]byte(b.Text), b.Raw...))
	}
	for _, m := range f.Registry[repo].Manifests {
		if m.MediaType != ocidoc.MediaTypeOCIIndex && !strings.Contains(m.Text, `"subject"`) {
			put(base+"/manifests/"+ocidoc.DigestOf([]byte(m.Text)), m.MediaType, []byte(m.Text))
		}
	}
	for _, m := range f.Registry[repo].Manifests {
		if ocidoc.DigestOf([]byte(m.Text)) == f.Registry[repo].Tags["1"] {
			put(base+"/manifests/1", m.MediaType, []byte(m.Text))
		}
	}
}

func (f *storedFormat) attested(repo string) (digests []string) {
	for _, p := range f.Pushes {
		if p.Repository == repo {
			for _, s := range p.Statements {
				digests = append(digests, s...)
			}
		}
	}
	slices.Sort(digests)
	return digests
}

// The program is another, and what it has kept is found as it was.
func TestWhatAnEarlierProgramKeptIsListedShownAndExported(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	files, err := filepath.Glob("../../proxy/testdata/storage/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			f, data := &storedFormat{}, filepath.Join(t.TempDir(), "data")
			b, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(b, f)
			}
			if err != nil {
				t.Fatal(err)
			}
			f.lay(t, data)
			p := startServe(t, "--data", data)
			defer p.end(t)
			looked := 0
			for _, push := range f.Pushes {
				if !slices.Contains([]string{"new/app", "new/artifact", "docker/app"}, push.Repository) {
					continue
				}
				looked++
				f.fill(t, p.url+"/v2/"+push.Repository, push.Repository)
				image, want := strings.TrimPrefix(p.url, "http://")+"/"+push.Repository, f.attested(push.Repository)
				for _, reference := range []string{image + ":1", image + "@" + push.Original} {
					if got := sluice(t, "resolve", reference); got != image+"@"+push.Forwarded+"\n" {
						t.Errorf("%s resolves to %s, want %s", reference, got, push.Forwarded)
					}
					var listed []statement
					if err := json.Unmarshal([]byte(sluice(t, "attestations", "list", reference, "--output", "json")), &listed); err != nil {
						t.Fatal(err)
					}
					var got, signatures []string
					for _, s := range listed {
						got = append(got, s.Statement)
						signatures = append(signatures, s.Signatures...)
					}
					slices.Sort(got)
					if !slices.Equal(got, want) {
						t.Errorf("%s: %v are listed, want %v", reference, got, want)
					}
					if s := f.Signed[push.Repository].Digest; s != "" && !slices.Contains(signatures, s) {
						t.Errorf("%s: the signature %s is not listed: %v", reference, s, signatures)
					}
					if shown := strings.Count(sluice(t, "attestations", "show", reference), `"predicateType"`); shown != len(want) {
						t.Errorf("%s: %d statements are shown, want %d", reference, shown, len(want))
					}
					dir := t.TempDir()
					sluice(t, "attestations", "export", reference, "--dir", dir)
					written := exportedFiles(t, dir)
					for _, digest := range want {
						if !slices.Contains(written, digest) {
							t.Errorf("%s: %s is not exported", reference, digest)
						}
					}
				}
			}
			if looked != 3 {
				t.Errorf("%d repositories looked at, want 3", looked)
			}
		})
	}
}

// exportedFiles are the digests of what was written.
func exportedFiles(t *testing.T, dir string) (digests []string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, ocidoc.DigestOf(b))
	}
	return digests
}
