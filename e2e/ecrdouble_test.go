//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/ecrsim"
)

// An ecrDouble is a running sluice ecrsim with TLS under ECR's host names, which are reached through a proxy: they resolve to
// Amazon, if to anything.
type ecrDouble struct {
	address string // 127.0.0.1:port of everything
	control string // http://127.0.0.1:port of the control plane
	env     []string
}

func startECRDouble(t testing.TB, arguments ...string) *ecrDouble {
	t.Helper()
	bin, err := bench.sluice()
	if err != nil {
		t.Fatal(err)
	}
	ports := [2]int{}
	for i := range ports {
		if ports[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
	}
	d := &ecrDouble{address: fmt.Sprintf("127.0.0.1:%d", ports[0]), control: fmt.Sprintf("http://127.0.0.1:%d", ports[1])}
	ca := scratch(t)
	argv := append([]string{
		bin, "ecrsim", "--listen", d.address, "--control-listen", strings.TrimPrefix(d.control, "http://"),
		"--tls", "--ca-out", ca, "--blob-listen", "", "--blob-url", "https://layers.s3.eu-central-1.amazonaws.com",
	}, arguments...)
	p, err := bench.start(daemon{name: "ecrsim", argv: argv, ready: func() error {
		resp, err := http.Get(d.control)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	d.env = []string{
		"AWS_ACCESS_KEY_ID=" + ecrsim.DefaultAccessKey, "AWS_SECRET_ACCESS_KEY=" + bucketSecret, "AWS_DEFAULT_REGION=" + ecrsim.DefaultRegion,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "SSL_CERT_FILE=" + filepath.Join(ca, "ca.pem"),
		"HTTPS_PROXY=" + connectTo(t, d.address),
	}
	return d
}

// connectTo is an http proxy that takes every CONNECT to one address, whatever host it names.
func connectTo(t testing.TB, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
			return
		}
		to, err := net.Dial("tcp", address)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer to.Close()
		from, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer from.Close()
		_, _ = io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(to, buffered)
			_ = to.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(from, to)
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return "http://" + l.Addr().String()
}

// aws runs the AWS CLI against the control plane, and reads what it prints.
func (d *ecrDouble) aws(t testing.TB, out any, arguments ...string) {
	t.Helper()
	argv := append([]string{tool(t, "aws"), "--output", "json", "--endpoint-url", d.control, "ecr"}, arguments...)
	text := runIn(t, "", d.env, argv...)
	if out == nil {
		return
	}
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatalf("aws %s: %v: %s", arguments[0], err, text)
	}
}

// The AWS CLI of Debian knows the double for ECR, from signing in to deleting.
func TestAWSCLIAgainstTheDouble(t *testing.T) {
	crane := tool(t, "crane")
	d := startECRDouble(t)
	var created struct {
		Repository struct{ RepositoryURI, ImageTagMutability string }
	}
	d.aws(t, &created, "create-repository", "--repository-name", "team/app", "--image-tag-mutability", "IMMUTABLE")
	host := ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion)
	if r := created.Repository; r.RepositoryURI != host+"/team/app" || r.ImageTagMutability != "IMMUTABLE" {
		t.Errorf("created %+v", r)
	}
	d.aws(t, nil, "put-image-tag-mutability", "--repository-name", "team/app", "--image-tag-mutability", "MUTABLE")
	policy := `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`
	d.aws(t, nil, "put-lifecycle-policy", "--repository-name", "team/app", "--lifecycle-policy-text", policy)
	var lifecycle struct{ LifecyclePolicyText string }
	d.aws(t, &lifecycle, "get-lifecycle-policy", "--repository-name", "team/app")
	if lifecycle.LifecyclePolicyText != policy {
		t.Errorf("the lifecycle policy is %s", lifecycle.LifecyclePolicyText)
	}
	d.aws(t, nil, "set-repository-policy", "--repository-name", "team/app", "--policy-text", `{"Version":"2012-10-17","Statement":[]}`)

	// A push with the password of the CLI, as docker login would keep it.
	password := strings.TrimSpace(runIn(t, "", d.env, tool(t, "aws"), "--endpoint-url", d.control, "ecr", "get-login-password"))
	config := append(slices.Clone(d.env), "DOCKER_CONFIG="+scratch(t))
	runIn(t, "", config, crane, "auth", "login", host, "-u", "AWS", "-p", password)
	layout := filepath.Join(scratch(t), "layer.tar")
	if err := os.WriteFile(layout, make([]byte, 1024), 0o600); err != nil { // an empty archive
		t.Fatal(err)
	}
	runIn(t, "", config, crane, "append", "--oci-empty-base", "-f", layout, "-t", host+"/team/app:1")
	runIn(t, "", config, crane, "pull", host+"/team/app:1", filepath.Join(scratch(t), "image.tar")) // by way of the other host

	var images struct {
		ImageDetails []struct {
			ImageDigest, ImageManifestMediaType string
			ImageTags                           []string
			ImageSizeInBytes                    int
		}
	}
	d.aws(t, &images, "describe-images", "--repository-name", "team/app")
	if len(images.ImageDetails) != 1 || !slices.Equal(images.ImageDetails[0].ImageTags, []string{"1"}) || images.ImageDetails[0].ImageSizeInBytes == 0 {
		t.Fatalf("describe-images: %+v", images)
	}
	digest := images.ImageDetails[0].ImageDigest
	if want := strings.TrimSpace(runIn(t, "", config, crane, "digest", host+"/team/app:1")); digest != want {
		t.Errorf("describe-images says %s, the registry %s", digest, want)
	}
	var listed struct {
		ImageIds []struct{ ImageDigest, ImageTag string }
	}
	d.aws(t, &listed, "list-images", "--repository-name", "team/app")
	if len(listed.ImageIds) != 1 || listed.ImageIds[0].ImageTag != "1" {
		t.Errorf("list-images: %+v", listed)
	}
	var got struct {
		Images []struct{ ImageManifest string }
	}
	d.aws(t, &got, "batch-get-image", "--repository-name", "team/app", "--image-ids", "imageTag=1")
	if len(got.Images) != 1 || !strings.Contains(got.Images[0].ImageManifest, "layers") {
		t.Errorf("batch-get-image: %+v", got)
	}
	var deleted struct{ ImageIds, Failures []any }
	d.aws(t, &deleted, "batch-delete-image", "--repository-name", "team/app", "--image-ids", "imageDigest="+digest, "imageTag=none")
	if len(deleted.ImageIds) != 1 || len(deleted.Failures) != 1 {
		t.Errorf("batch-delete-image: %+v", deleted)
	}
	d.aws(t, nil, "delete-repository", "--repository-name", "team/app")
	var left struct{ Repositories []any }
	d.aws(t, &left, "describe-repositories")
	if len(left.Repositories) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// Debian's credential helper has an AWS SDK from before AWS_ENDPOINT_URL_ECR, so it calls the control plane by its real name.
func TestECRCredentialHelperAgainstTheDouble(t *testing.T) {
	helper, crane := tool(t, "docker-credential-ecr-login"), tool(t, "crane")
	d := startECRDouble(t, "--repository", "app")
	host := ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion)
	dir := scratch(t)
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"credHelpers":{"`+host+`":"ecr-login"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	env := append(slices.Clone(d.env), "DOCKER_CONFIG="+dir, "HOME="+dir, "PATH="+filepath.Dir(helper)+":"+os.Getenv("PATH"))
	layer := filepath.Join(scratch(t), "layer.tar")
	if err := os.WriteFile(layer, make([]byte, 1024), 0o600); err != nil {
		t.Fatal(err)
	}
	runIn(t, "", env, crane, "append", "--oci-empty-base", "-f", layer, "-t", host+"/app:1")
	if tags := strings.TrimSpace(runIn(t, "", env, crane, "ls", host+"/app")); tags != "1" {
		t.Errorf("tags %q", tags)
	}
}
