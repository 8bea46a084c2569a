package proxy_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
	"sluice/proxy/proxytest"
)

// ecrRig is a proxy in front of a double of Amazon ECR, signed in as AWS's SDK does.
func ecrRig(t *testing.T, s ecrsim.Switches, settings ...setting) (*rig, *ecrsimtest.Server) {
	t.Helper()
	s.NoThrottling = true
	s.Templates = []ecrsim.Template{{Prefix: "ROOT"}} // a repository is made by its first push
	double := ecrsimtest.New(t, ecrsim.Options{Switches: s})
	double.SetEnv(t)
	return newRig(t, &proxytest.Upstream{URL: double.URL}, append([]setting{with(ecrCredentials)}, settings...)...), double
}

// inECR reads a document from the double, without Sluice.
func inECR(t *testing.T, double *ecrsimtest.Server, repo, ref string) (mediaType string, body []byte) {
	t.Helper()
	user, password := double.Password(double.AccessKey)
	a := request(t, http.MethodGet, double.URL+"/v2/"+repo+"/manifests/"+ref, nil, append([]string{"Authorization", basic(user, password)}, acceptAll...)...).want(t, http.StatusOK)
	return a.Header.Get("Content-Type"), a.body
}

// cacheOf is a registry cache of a few layers in each form that BuildKit has (cache/remotecache/export.go).
func cacheOf(t *testing.T) (blobs []*proxytest.Blob, index, list, manifest []byte) {
	t.Helper()
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	write := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	type indexForm struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
	var oci, docker []descriptor
	for i := range 3 {
		b := proxytest.RandomLayer("cached", "application/vnd.oci.image.layer.v1.tar+gzip", 9, uint64(i), 400)
		blobs = append(blobs, b)
		d := descriptor{b.MediaType, b.Digest, b.Size, map[string]string{"buildkit/createdat": "2026-11-20T17:47:01.328019575Z"}}
		oci = append(oci, d)
		d.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		docker = append(docker, d)
	}
	b := proxytest.NewBlob("cache-config", "application/vnd.buildkit.cacheconfig.v0", []byte(`{"layers":[],"records":[]}`))
	blobs = append(blobs, b)
	c := descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size}
	return blobs, write(indexForm{2, ociIndex, append(oci[:3:3], c)}), write(indexForm{2, ocidoc.MediaTypeDockerList, append(docker[:3:3], c)}),
		write(struct {
			SchemaVersion int          `json:"schemaVersion"`
			MediaType     string       `json:"mediaType"`
			Config        descriptor   `json:"config"`
			Layers        []descriptor `json:"layers"`
		}{2, ociManifest, c, oci})
}

func TestACacheIndexGoesToECRAsAManifest(t *testing.T) {
	for name, s := range map[string]ecrsim.Switches{"405": {}, "400": {CacheIndex: http.StatusBadRequest}} {
		t.Run(name, func(t *testing.T) {
			for _, act := range []filters.Action{filters.Store, filters.Forward} {
				r, double := ecrRig(t, s, action(act))
				blobs, index, list, manifest := cacheOf(t)
				for _, b := range blobs {
					r.request(http.MethodPut, put(r.upload("app"), b.Digest), b.Bytes()).want(t, http.StatusCreated)
				}
				for mediaType, body := range map[string][]byte{ociIndex: index, ocidoc.MediaTypeDockerList: list, ociManifest: manifest} {
					a := r.request(http.MethodPut, "/v2/app/manifests/cache", body, "Content-Type", mediaType).want(t, http.StatusCreated)
					if got := a.Header.Get("Docker-Content-Digest"); got != ocidoc.DigestOf(body) {
						t.Errorf("%s: answered %s", mediaType, got)
					}
					if got, b := inECR(t, double, "app", "cache"); got != ociManifest || string(b) != string(manifest) {
						t.Errorf("%s: ECR has %s\n%s\nwant\n%s", mediaType, got, b, manifest)
					}
					// As --cache-from reads it: HEAD of the tag, then by the digest that it names.
					h := r.request(http.MethodHead, "/v2/app/manifests/cache", nil, acceptAll...).want(t, http.StatusOK)
					g := r.request(http.MethodGet, "/v2/app/manifests/"+h.Header.Get("Docker-Content-Digest"), nil, acceptAll...).want(t, http.StatusOK)
					if string(g.body) != string(manifest) {
						t.Errorf("%s: read back through Sluice: %s", mediaType, g.body)
					}
				}
			}
		})
	}
}

// The setting off: what ECR says comes out as it is.
func TestWithCacheIndexKeepECRsRefusalPasses(t *testing.T) {
	r, _ := ecrRig(t, ecrsim.Switches{}, with(func(c *config.Config) { c.CacheIndex = filters.CacheIndexKeep }))
	blobs, index, _, _ := cacheOf(t)
	for _, b := range blobs {
		r.request(http.MethodPut, put(r.upload("app"), b.Digest), b.Bytes()).want(t, http.StatusCreated)
	}
	r.request(http.MethodPut, "/v2/app/manifests/cache", index, "Content-Type", ociIndex).want(t, http.StatusMethodNotAllowed)
}

func TestDockerMediaTypesInECR(t *testing.T) {
	for _, form := range forms {
		for _, platforms := range [][]string{{"linux/amd64"}, {"linux/amd64", "linux/arm64"}} {
			r, double := ecrRig(t, ecrsim.Switches{}, mediaTypes(filters.MediaTypesDocker))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, Platforms: platforms})
			docker := proxytest.Synthetic(proxytest.SyntheticOptions{DockerTypes: true, Platforms: platforms})
			for range 2 {
				r.push(proxytest.BuildKit, "app", "1", tree)
				mediaType, b := inECR(t, double, "app", "1")
				if mediaType != docker.Root.MediaType || string(b) != string(docker.Root.Bytes()) {
					t.Errorf("%s: ECR has %s\n%s", form, mediaType, b)
				}
				for _, image := range docker.Images() {
					if mediaType, b := inECR(t, double, "app", image.Digest); mediaType != image.MediaType || strings.Contains(string(b), "vnd.oci") {
						t.Errorf("%s: ECR has %s\n%s", form, mediaType, b)
					}
				}
			}
		}
	}
}
