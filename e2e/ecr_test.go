//go:build e2e

package e2e

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/ecrsim"
)

// An ecrWorld is a double of Amazon ECR, plain http so that every client reaches it directly too, with Sluice in
// front of it, which signs in with `credentials: ecr`.
type ecrWorld struct {
	*ecrDouble
	via, direct string
}

func newECRWorld(t testing.TB, arguments ...string) *ecrWorld {
	t.Helper()
	bin := shared(t, bench.sluice)
	var ports [2]int
	for i := range ports {
		var err error
		if ports[i], err = freePort(); err != nil {
			t.Fatal(err)
		}
	}
	w := &ecrWorld{direct: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	w.ecrDouble = &ecrDouble{address: w.direct, control: "http://" + w.direct, env: []string{
		"AWS_ACCESS_KEY_ID=" + ecrsim.DefaultAccessKey, "AWS_SECRET_ACCESS_KEY=" + bucketSecret, "AWS_DEFAULT_REGION=" + ecrsim.DefaultRegion, "AWS_REGION=" + ecrsim.DefaultRegion,
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_ENDPOINT_URL_ECR=http://" + w.direct,
	}}
	answers := func() error {
		resp, err := http.Get(w.control)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	p, err := bench.start(daemon{name: "ecrsim", ready: answers, argv: append([]string{
		bin, "ecrsim", "--listen", w.direct, "--blob-listen", fmt.Sprintf("127.0.0.1:%d", ports[1]), "--switch", "create-on-push=ROOT",
	}, arguments...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("the log of ECR's double ends with:\n%s", p.tail())
		}
	})
	w.via = startSluiceWith(t, instructions{address: "127.0.0.1", args: []string{"--upstream", "http://" + w.direct, "--credentials", "ecr"}, env: w.env}).host
	password := strings.TrimSpace(runIn(t, "", w.env, tool(t, "aws"), "--endpoint-url", w.control, "ecr", "get-login-password"))
	bench.logIn(t, w.direct, login{"AWS", password})
	return w
}

// An ecrImage is a line of ECR's console.
type ecrImage struct {
	ImageTags              []string
	ImageDigest            string
	ImageManifestMediaType string
	ImageSizeInBytes       int
}

// lists is `aws ecr describe-images`, in a fixed order.
func (w *ecrWorld) lists(t testing.TB, repository string) []string {
	t.Helper()
	var out struct{ ImageDetails []ecrImage }
	w.aws(t, &out, "describe-images", "--repository-name", repository)
	var lines []string
	for _, i := range out.ImageDetails {
		slices.Sort(i.ImageTags)
		lines = append(lines, fmt.Sprint(cmp.Or(strings.Join(i.ImageTags, ","), "-"), " ", i.ImageDigest, " ", i.ImageManifestMediaType, " ", i.ImageSizeInBytes))
	}
	slices.Sort(lines)
	return lines
}

func (w *ecrWorld) same(t testing.TB, repository, reference string) {
	t.Helper()
	got, want := w.lists(t, repository), w.lists(t, reference)
	if len(want) == 0 || !slices.Equal(got, want) {
		t.Errorf("ECR lists in %s\n\t%s\nand in the reference\n\t%s", repository, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// What ECR lists is what it lists for a build with --provenance=false, and only the direct push has more.
func TestECRListsWhatABuildWithoutAttestationsLeaves(t *testing.T) {
	scanner, w := shared(t, bench.scanner), newECRWorld(t)
	attested := []string{"--provenance=mode=max", "--attest", "type=sbom,generator=" + scanner}
	for _, form := range forms {
		for name, platforms := range map[string]string{"one": "linux/amd64", "two": bothPlatforms} {
			t.Run(form.name+" "+name, func(t *testing.T) {
				k, dir := needBuilder(t, form.builder), newApplication(t, 100)
				repository := "team/" + form.name + "-" + name
				for range 2 { // a rebuild has new provenance and the same images
					k.mustBuild(t, dir, platforms, append(push(w.via+"/"+repository+":1"), attested...)...)
				}
				k.mustBuild(t, dir, platforms, withoutAttestations(w.direct+"/"+repository+"-reference:1")...)
				w.same(t, repository, repository+"-reference")

				k.mustBuild(t, dir, platforms, append(push(w.direct+"/"+repository+"-direct:1"), attested...)...)
				if got, want := len(w.lists(t, repository+"-direct")), len(w.lists(t, repository)); got <= want {
					t.Errorf("a direct push leaves %d images, through Sluice %d: the double shows no attestations", got, want)
				}
			})
		}
	}
	t.Run("modern Docker", func(t *testing.T) {
		buildx, e, dir := tool(t, "buildx"), shared(t, bench.modern), newApplication(t, 101)
		through, reference := w.via+"/modern:1", w.direct+"/modern-reference:1"
		build := func(ref string, args ...string) {
			argv := []string{buildx, "build", "--builder", "default", "--platform", bothPlatforms, "--build-arg", "SOURCE_DATE_EPOCH=1700000000"}
			runIn(t, "", []string{"DOCKER_HOST=" + e.host}, append(append(argv, args...), dir)...)
		}
		build(through, "--provenance=mode=max", "--output", "type=image,name="+through)
		build(reference, "--provenance=false", "--output", "type=image,oci-mediatypes=true,name="+reference)
		e.run(t, "push", through)
		e.run(t, "push", reference)
		w.same(t, "modern", "modern-reference")
		e.run(t, "image", "rm", "--force", through, reference)
		e.run(t, "pull", through)
		e.run(t, "image", "prune", "--all", "--force")
	})
	t.Run("Docker 20.10", func(t *testing.T) {
		e, dir := shared(t, bench.classic), newApplication(t, 102)
		through, reference := w.via+"/classic:1", w.direct+"/classic-reference:1"
		runIn(t, "", []string{"DOCKER_BUILDKIT=0"}, e.docker, "--host", e.host, "build", "--build-arg", "TARGETARCH=amd64", "--tag", through, dir)
		e.run(t, "tag", through, reference)
		e.run(t, "push", through)
		e.run(t, "push", reference)
		w.same(t, "classic", "classic-reference")
		e.run(t, "image", "rm", "--force", through, reference)
		e.run(t, "pull", through)
	})
}

// What goes wrong at ECR in the middle of a push is over when the push is.
func TestPushesOutliveWhatECRDoesToThem(t *testing.T) {
	for name, switches := range map[string][]string{
		"tokens that expire within the push, with 403": {"token-life=1s", "expired-token=403", "latency=60ms"},
		"tokens that expire within the push, with 401": {"token-life=1s", "expired-token=401", "latency=60ms"},
		"a quota of two images a second":               {"rate=PutImage:2"},
		"manifests that cannot be read for a while":    {"read-after-write-gap=700ms"},
		"layers that nobody sees before their image":   {"hide-unreferenced"},
	} {
		t.Run(name, func(t *testing.T) {
			var arguments []string
			for _, s := range switches {
				arguments = append(arguments, "--switch", s)
			}
			w, k, dir := newECRWorld(t, arguments...), needBuilder(t, "new"), newApplication(t, 103)
			k.mustBuild(t, dir, bothPlatforms, append(push(w.via+"/app:1", w.via+"/app:2"), "--provenance=mode=max")...)
			var tagged int
			for _, line := range w.lists(t, "app") {
				if strings.HasPrefix(line, "1,2 ") {
					tagged++
				}
			}
			if lines := w.lists(t, "app"); tagged != 1 || len(lines) != 3 {
				t.Errorf("ECR lists\n\t%s\nand it should be an index under two tags with two images", strings.Join(lines, "\n\t"))
			}
		})
	}
}

// Under its real name, with TLS, Sluice needs to be told nothing but the registry.
func TestECRIsKnownByItsHost(t *testing.T) {
	crane, m, d := tool(t, "crane"), needImages(t), startECRDouble(t, "--repository", "app")
	host := ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion)
	env := append(slices.Clone(d.env), "AWS_ENDPOINT_URL_ECR="+d.control, "NO_PROXY=127.0.0.1,localhost", "SSL_CERT_DIR=/nonexistent")
	via := startSluiceWith(t, instructions{address: "127.0.0.1", args: []string{"--upstream", "https://" + host}, env: env}).host
	run(t, crane, "copy", "--insecure", m.attested["artifact"], via+"/app:1")
	var out struct{ ImageDetails []ecrImage }
	d.aws(t, &out, "describe-images", "--repository-name", "app")
	if len(out.ImageDetails) != 3 {
		t.Errorf("ECR lists %d images, want an index and two images", len(out.ImageDetails))
	}
	// Downloads by way of the other host, as from S3.
	layout := filepath.Join(scratch(t), "layout")
	runIn(t, "", append(slices.Clone(d.env), "NO_PROXY=127.0.0.1"), crane, "pull", "--insecure", "--format=oci", via+"/app:1", layout)
	if _, err := os.Stat(filepath.Join(layout, "index.json")); err != nil {
		t.Error(err)
	}
}
