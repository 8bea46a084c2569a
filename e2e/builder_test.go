//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A builder is a running BuildKit that buildx knows by name.
type builder struct {
	name     string
	buildx   string
	buildctl string
	address  string
	proc     *process
}

// Both forms of attestations: BuildKit 0.30 writes an image config and no subject, 0.33 an OCI artifact.
var forms = []struct{ name, builder string }{{"legacy", "old"}, {"artifact", "new"}}

func (b *workbench) startBuilder(name, folder string) (*builder, error) {
	return b.startBuilderWith(name, folder, "") // empty, so that /etc/buildkit is not read
}

// startBuilderWith takes the content of buildkitd.toml.
func (b *workbench) startBuilderWith(name, folder, settings string) (*builder, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	buildx, err := b.need("buildx")
	if err != nil {
		return nil, err
	}
	runc, err := b.need("runc")
	if err != nil {
		return nil, err
	}
	bin := filepath.Join(b.cache, folder, "buildkitd")
	if _, err := os.Stat(bin); err != nil {
		return nil, errUnavailable(bin + " is missing (make setup)")
	}
	dir := filepath.Join(b.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	k := &builder{name: name, buildx: buildx, buildctl: filepath.Join(b.cache, folder, "buildctl"), address: "unix://" + filepath.Join(dir, "sock")}
	config := filepath.Join(dir, "buildkitd.toml")
	if err := os.WriteFile(config, []byte(settings), 0o644); err != nil {
		return nil, err
	}
	k.proc, err = b.start(daemon{
		name: "buildkitd-" + name,
		argv: []string{
			bin, "--config", config, "--root", filepath.Join(dir, "root"), "--addr", k.address, "--containerd-worker=false",
			"--oci-worker=true", "--oci-worker-net=host", "--oci-worker-binary=" + runc,
		},
		ready:         commandReady(k.buildctl, "--addr", k.address, "debug", "workers"),
		privateMounts: true,
	})
	if err != nil {
		return nil, err
	}
	_, err = tryRun(buildx, "create", "--name", name, "--driver", "remote", k.address)
	return k, err
}

func needBuilder(t testing.TB, name string) *builder {
	t.Helper()
	return shared(t, bench.builders[name])
}

// An application is a folder to build: an image from scratch with one layer per platform, the same bytes for the same
// seed.
func application(dir string, seed uint64) error {
	random := rand.New(rand.NewPCG(seed, 0))
	files := map[string]string{
		"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY common /common\nCOPY payload-$TARGETARCH /payload\nLABEL seed=" + fmt.Sprint(seed) + "\n",
	}
	for _, name := range []string{"common", "payload-amd64", "payload-arm64"} {
		b := make([]byte, 100_000)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		files[name] = string(b)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
		epoch := time.Unix(1_700_000_000, 0)
		if err := os.Chtimes(path, epoch, epoch); err != nil {
			return err
		}
	}
	return nil
}

func newApplication(t testing.TB, seed uint64) string {
	t.Helper()
	dir := scratch(t)
	if err := application(dir, seed); err != nil {
		t.Fatal(err)
	}
	return dir
}

const bothPlatforms = "linux/amd64,linux/arm64"

// withoutAttestations is what Sluice's promise is about: `provenance: false` with OCI media types, which
// BuildKit before 0.32 writes only when asked.
func withoutAttestations(refs ...string) []string {
	return []string{"--provenance=false", "--sbom=false", "--output", `type=image,"name=` + strings.Join(refs, ",") + `",push=true,oci-mediatypes=true`}
}

// push is what users type: `docker buildx build --push -t …`.
func push(refs ...string) []string {
	args := []string{"--push"}
	for _, r := range refs {
		args = append(args, "-t", r)
	}
	return args
}

// build runs buildx and returns the digest that it reports, as build-push-action passes it on. SOURCE_DATE_EPOCH
// makes two builds the same image even if the cache forgot the first.
func (k *builder) build(dir, platforms string, args ...string) (string, error) {
	metadata := filepath.Join(dir, "metadata.json")
	_ = os.Remove(metadata)
	argv := []string{
		k.buildx, "build", "--builder", k.name, "--platform", platforms, "--progress=plain",
		"--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--metadata-file", metadata,
	}
	if _, err := tryRun(append(append(argv, args...), dir)...); err != nil {
		return "", err
	}
	b, err := os.ReadFile(metadata)
	if err != nil {
		return "", err
	}
	var m struct {
		Digest string `json:"containerimage.digest"`
	}
	return m.Digest, json.Unmarshal(b, &m)
}

func (k *builder) mustBuild(t testing.TB, dir, platforms string, args ...string) string {
	t.Helper()
	digest, err := k.build(dir, platforms, args...)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// images is what other clients copy: two platforms with provenance and SBOM, in both forms, and the same
// images without. They lie in a registry that has nothing to do with any test's upstream.
type images struct {
	host     string
	attested map[string]string // form -> reference
	clean    map[string]string
}

func (b *workbench) buildImages() (*images, error) {
	src, err := b.source()
	if err != nil {
		return nil, err
	}
	scanner, err := b.scanner()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "app")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := application(dir, 1); err != nil {
		return nil, err
	}
	m := &images{host: src.host, attested: map[string]string{}, clean: map[string]string{}}
	for _, form := range forms {
		k, err := b.builders[form.builder]()
		if err != nil {
			return nil, err
		}
		m.attested[form.name] = src.host + "/attested:" + form.name
		m.clean[form.name] = src.host + "/clean:" + form.name
		args := append(push(m.attested[form.name]), "--provenance=mode=max", "--attest", "type=sbom,generator="+scanner)
		if _, err := k.build(dir, bothPlatforms, args...); err != nil {
			return nil, err
		}
		if _, err := k.build(dir, bothPlatforms, withoutAttestations(m.clean[form.name])...); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func needImages(t testing.TB) *images {
	t.Helper()
	return shared(t, bench.images)
}
