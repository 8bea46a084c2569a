//go:build e2e

package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A registry is a running distribution registry with its storage in a folder, where the tests look
// behind its API.
type registry struct {
	host string // 127.0.0.1:port
	root string
	proc *process
}

func startRegistry(dir string) (*registry, error) { return startRegistryWith(dir, "") }

// startRegistryWith takes further lines of the registry's configuration.
func startRegistryWith(dir, more string) (*registry, error) {
	bin, err := bench.need("registry")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &registry{host: fmt.Sprintf("127.0.0.1:%d", port), root: filepath.Join(dir, "storage")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: warn, accesslog: {disabled: false}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
%s`, r.root, r.host, more)
	file := filepath.Join(dir, "registry.yml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	r.proc, err = bench.start(daemon{
		name: "registry", argv: []string{bin, "serve", file}, ready: httpReady("http://" + r.host + "/v2/"),
	})
	return r, err
}

// path is a folder of the storage, as distribution's registry/storage/paths.go lays it out.
func (r *registry) path(parts ...string) string {
	return filepath.Join(append([]string{r.root, "docker", "registry", "v2"}, parts...)...)
}

// manifests are the digests of all manifests of a repository, tagged or not.
func (r *registry) manifests(t testing.TB, repository string) []string {
	t.Helper()
	entries, err := os.ReadDir(r.path("repositories", repository, "_manifests", "revisions", "sha256"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, "sha256:"+e.Name())
	}
	slices.Sort(found)
	return found
}

func (r *registry) tags(t testing.TB, repository string) []string {
	t.Helper()
	entries, err := os.ReadDir(r.path("repositories", repository, "_manifests", "tags"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	slices.Sort(found)
	return found
}

var accessLine = regexp.MustCompile(`"([A-Z]+) (/v2/[^ ]*) HTTP/1\.[01]" (\d+)`)

// requests are the requests that the registry answered, from its access log.
func (r *registry) requests(t testing.TB, repository string) []string {
	t.Helper()
	b, err := os.ReadFile(r.proc.log)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range accessLine.FindAllStringSubmatch(string(b), -1) {
		if strings.HasPrefix(m[2], "/v2/"+repository+"/") {
			found = append(found, m[1]+" "+m[2]+" "+m[3])
		}
	}
	return found
}

const manifestTypes = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

// A document is a manifest or index as a registry serves it.
type document struct {
	Digest    string // of the bytes, checked against the header
	MediaType string
	Header    http.Header
	Bytes     []byte
	Parsed    struct {
		MediaType    string
		ArtifactType string
		Manifests    []descriptor
		Layers       []descriptor
		Config       *descriptor
		Subject      *descriptor
	}
}

type descriptor struct {
	MediaType    string
	ArtifactType string
	Digest       string
	Size         int64
	Platform     *struct{ OS, Architecture string }
	Annotations  map[string]string
}

// errStatus is an answer other than 200.
type errStatus struct {
	status int
	body   string
}

func (e errStatus) Error() string { return fmt.Sprintf("status %d: %s", e.status, e.body) }

func fetch(host, repository, reference string) (*document, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+host+"/v2/"+repository+"/manifests/"+reference, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", manifestTypes)
	if l, known := bench.login(host); known {
		req.SetBasicAuth(l.user, l.password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s/%s %s: %w", host, repository, reference, errStatus{resp.StatusCode, string(b)})
	}
	sum := sha256.Sum256(b)
	d := &document{Digest: "sha256:" + hex.EncodeToString(sum[:]), MediaType: resp.Header.Get("Content-Type"), Header: resp.Header, Bytes: b}
	if got := resp.Header.Get("Docker-Content-Digest"); got != d.Digest {
		return nil, fmt.Errorf("GET %s/%s %s: Docker-Content-Digest is %s, the body's digest is %s", host, repository, reference, got, d.Digest)
	}
	return d, json.Unmarshal(b, &d.Parsed)
}

func get(t testing.TB, host, repository, reference string) *document {
	t.Helper()
	d, err := fetch(host, repository, reference)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// absent asserts that a reference is not there.
func absent(t testing.TB, host, repository, reference string) {
	t.Helper()
	_, err := fetch(host, repository, reference)
	var status errStatus
	if !errors.As(err, &status) || status.status != http.StatusNotFound {
		t.Errorf("%s/%s %s must be absent: %v", host, repository, reference, err)
	}
}
