package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"sluice/filters/ocidoc"
)

// A build by BuildKit 0.30 with oci-artifact=true (testdata/wire).
const original = "sha256:27c03d89a89975ccbfa878d94f72ee38663f0ae80a025fb9cee002a4a2897d94"

// wire is absolute, since scripts run in folders of their own.
var wire = func() string {
	abs, err := filepath.Abs(filepath.Join("testdata", "wire"))
	if err != nil {
		panic(err)
	}
	return abs
}()

// forgotten is a digest of which Sluice knows only the alias.
var forgotten = "sha256:" + strings.Repeat("f0", 32)

// testRegistry holds the build as Sluice shows it: app:1 is what was forwarded, the
// original is there by its digest with the header that names the other, and the
// attestations are referrers. It is go-containerregistry's, with referrers by artifact
// type, which that lacks. (olareg has them, but hashes a password when it is linked in: a
// second for each command of a script under the race detector.)
type testRegistry struct {
	host      string
	forwarded string
	url       string

	mu        sync.Mutex
	referrers map[string][]string // digest -> descriptors of what refers to it
}

// startRegistry serves until the test ends. login is user:password, "" for none.
func startRegistry(t *testing.T, login string) (*testRegistry, error) {
	backend := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r := &testRegistry{referrers: map[string][]string{}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte(login))
		if login != "" && req.Header.Get("Authorization") != want {
			w.Header().Set("WWW-Authenticate", `Basic realm="sluice"`)
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
			return
		}
		r.likeSluice(w, req, backend)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r, r.fill(login)
}

// likeSluice adds the headers of Sluice to a registry's answers, and referrers.
func (r *testRegistry) likeSluice(w http.ResponseWriter, req *http.Request, backend http.Handler) {
	reference := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case strings.Contains(req.URL.Path, "/referrers/"):
		w.Header().Set("Content-Type", ocidoc.MediaTypeOCIIndex)
		fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocidoc.MediaTypeOCIIndex, strings.Join(r.referrers[reference], ","))
		return
	case req.Method == http.MethodDelete:
		for digest, list := range r.referrers {
			r.referrers[digest] = slices.DeleteFunc(list, func(d string) bool { return strings.Contains(d, reference) })
		}
	case req.Method == http.MethodPut:
	case reference == original:
		w.Header().Set(forwardedHeader, r.forwarded)
	case reference == forgotten:
		w.Header().Set(forwardedHeader, r.forwarded)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"forwarded as %s"}]}`, r.forwarded)
		return
	case reference == "evil":
		w.Header().Set(forwardedHeader, "sha256:$(reboot)")
		return
	case reference == "plain":
		w = withoutDigest{w}
	}
	backend.ServeHTTP(w, req)
}

// withoutDigest leaves out the header that the distribution spec makes optional.
type withoutDigest struct{ http.ResponseWriter }

func (w withoutDigest) WriteHeader(status int) {
	w.Header().Del("Docker-Content-Digest")
	w.ResponseWriter.WriteHeader(status)
}

func (r *testRegistry) fill(login string) error {
	table, err := os.ReadFile(filepath.Join(wire, "files.tsv"))
	if err != nil {
		return err
	}
	var manifests, indexes [][]byte
	for line := range strings.Lines(string(table)) {
		fields := strings.Split(strings.TrimSpace(line), "\t")
		b, err := os.ReadFile(filepath.Join(wire, fields[0]))
		if err != nil {
			return err
		}
		switch fields[2] {
		case ocidoc.MediaTypeOCIIndex:
			indexes = append(indexes, b)
		case ocidoc.MediaTypeOCIManifest:
			manifests = append(manifests, b)
		default:
			if err := r.send(login, http.MethodPost, "blobs/uploads/?digest=sha256:"+fields[0], "application/octet-stream", b); err != nil {
				return err
			}
		}
	}
	for _, b := range manifests {
		if err := r.send(login, http.MethodPut, "manifests/"+ocidoc.DigestOf(b), ocidoc.MediaTypeOCIManifest, b); err != nil {
			return err
		}
		if err := r.refer(b); err != nil {
			return err
		}
	}
	if err := r.send(login, http.MethodPut, "manifests/"+original, ocidoc.MediaTypeOCIIndex, indexes[0]); err != nil {
		return err
	}
	forwarded, err := withoutAttestations(indexes[0])
	if err != nil {
		return err
	}
	r.forwarded = ocidoc.DigestOf(forwarded)
	for _, tag := range []string{"1", "plain"} {
		if err := r.send(login, http.MethodPut, "manifests/"+tag, ocidoc.MediaTypeOCIIndex, forwarded); err != nil {
			return err
		}
	}
	if err := r.send(login, http.MethodPut, "manifests/original", ocidoc.MediaTypeOCIIndex, indexes[0]); err != nil {
		return err
	}
	// One platform, and an image that nothing is known about.
	if err := r.send(login, http.MethodPut, "manifests/amd64", ocidoc.MediaTypeOCIManifest, manifests[0]); err != nil {
		return err
	}
	bare := bytes.Replace(manifests[0], []byte(`{`), []byte(`{"annotations":{"a":"b"},`), 1)
	return r.send(login, http.MethodPut, "manifests/bare", ocidoc.MediaTypeOCIManifest, bare)
}

// refer lists a manifest under its subject.
func (r *testRegistry) refer(b []byte) error {
	doc, err := ocidoc.Parse(b, ocidoc.MediaTypeOCIManifest)
	if err != nil || doc.Subject == nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.referrers[doc.Subject.Digest] = append(r.referrers[doc.Subject.Digest], entry(doc.ContentType, doc.Digest(), fmt.Sprintf(`,"artifactType":%q`, doc.ArtifactType)))
	return nil
}

func withoutAttestations(index []byte) ([]byte, error) {
	var doc map[string]any
	if err := json.Unmarshal(index, &doc); err != nil {
		return nil, err
	}
	var kept []any
	for _, e := range doc["manifests"].([]any) {
		if _, attestation := e.(map[string]any)["annotations"]; !attestation {
			kept = append(kept, e)
		}
	}
	doc["manifests"] = kept
	return json.Marshal(doc)
}

func (r *testRegistry) send(login, method, path, mediaType string, b []byte) error {
	req, err := http.NewRequest(method, r.url+"/v2/app/"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", mediaType)
	if user, password, ok := strings.Cut(login, ":"); ok {
		req.SetBasicAuth(user, password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

// upload is POST and PUT, which every registry knows.
func (r *testRegistry) upload(b []byte) error {
	resp, err := http.Post(r.url+"/v2/app/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	location, err := resp.Location()
	if err != nil {
		return fmt.Errorf("POST of an upload: %s: %w", resp.Status, err)
	}
	query := location.Query()
	query.Set("digest", ocidoc.DigestOf(b))
	location.RawQuery = query.Encode()
	req, err := http.NewRequest(http.MethodPut, location.String(), bytes.NewReader(b))
	if err != nil {
		return err
	}
	if resp, err = http.DefaultClient.Do(req); err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("PUT of an upload: %s", resp.Status)
	}
	return nil
}
