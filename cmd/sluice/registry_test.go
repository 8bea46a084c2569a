package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"

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

// testRegistry is olareg with the build in it as Sluice shows it: app:1 is what was
// forwarded, the original is there by its digest with the header that names the other,
// and the attestations are referrers.
type testRegistry struct {
	host      string
	forwarded string
	url       string
}

// startRegistry serves until the test ends. login is user:password, "" for none.
func startRegistry(t *testing.T, login string) (*testRegistry, error) {
	yes := true
	backend := olareg.New(config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem},
		API: config.ConfigAPI{
			DeleteEnabled: &yes,
			Manifest:      config.ConfigAPIManifest{SparseImage: &yes, SparseIndex: &yes}, // the layers are not in testdata
		},
	})
	r := &testRegistry{}
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
	t.Cleanup(func() {
		server.Close()
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	r.url = server.URL
	r.host = strings.TrimPrefix(server.URL, "http://")
	return r, r.fill(login)
}

// likeSluice adds the headers of Sluice to olareg's answers.
func (r *testRegistry) likeSluice(w http.ResponseWriter, req *http.Request, backend http.Handler) {
	reference := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	switch {
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
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}
