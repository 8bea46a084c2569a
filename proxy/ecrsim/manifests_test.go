package ecrsim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/ecrsim"
)

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	syntax         = `Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'`
	noImage        = "Requested image not found"
)

func digestOf(s string) digest.Digest { return digest.FromString(s) }

func TestAReadByTagTellsNoDigestAndConverts(t *testing.T) {
	r := newRig(t)
	m := r.image("app", "1", "x")
	byTag, byDigest := "/v2/app/manifests/1", "/v2/app/manifests/"+sum(m)

	p := r.do("GET", byTag, nil, "Accept: "+v1.MediaTypeImageManifest)
	r.want("GET by tag", p, 200, m)
	r.wantHeader("GET by tag", p, "Docker-Content-Digest", "")
	p = r.do("HEAD", byTag, nil)
	r.want("HEAD by tag", p, 200)
	r.wantHeader("HEAD by tag", p, "Docker-Content-Digest", sum(m))
	p = r.do("GET", byDigest, nil, "Accept: "+dockerManifest)
	r.want("GET by digest", p, 200, m)
	r.wantHeader("GET by digest", p, "Content-Type", v1.MediaTypeImageManifest)
	r.wantHeader("GET by digest", p, "Docker-Content-Digest", sum(m))

	docker := r.do("GET", byTag, nil, "Accept: "+dockerManifest)
	r.want("GET as Docker's", docker, 200, `"application/vnd.docker.container.image.v1+json"`, `"application/vnd.docker.image.rootfs.diff.tar.gzip"`, sum("layer x"))
	r.wantHeader("GET as Docker's", docker, "Content-Type", dockerManifest)
	if strings.Contains(docker.body, "oci.image") {
		t.Errorf("converted to %s", docker.body)
	}
	r.want("PUT of the converted", r.put("app", "docker", docker.body), 201)
	p = r.do("GET", "/v2/app/manifests/docker", nil, "Accept: "+v1.MediaTypeImageManifest)
	r.want("and back", p, 200, v1.MediaTypeImageConfig, v1.MediaTypeImageLayerGzip)
	r.wantHeader("and back", p, "Content-Type", v1.MediaTypeImageManifest)

	r.want("PUT of an index", r.put("app", "index", index(m)), 201)
	r.want("an index is not converted", r.do("GET", "/v2/app/manifests/index", nil, "Accept: "+dockerManifest), 200, index(m))
	r.want("what is not there", r.do("GET", "/v2/app/manifests/none", nil), 404, errorBody("MANIFEST_UNKNOWN", noImage))
	r.want("in a repository that is not there", r.do("GET", "/v2/none/manifests/1", nil), 404, "NAME_UNKNOWN")
}

// Documents that are refused or taken, and by which switch.
func TestWhatIsTaken(t *testing.T) {
	empty := v1.DescriptorEmptyJSON
	artifact := func(m *v1.Manifest) { m.Config.MediaType, m.ArtifactType = empty.MediaType, "a/b" }
	subject := func(m *v1.Manifest) {
		m.Subject = &v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digestOf("gone"), Size: 4}
	}
	none := func(*ecrsim.Switches) {}
	for _, c := range []struct {
		name   string
		set    func(*ecrsim.Switches)
		body   func(r *rig) string
		header string
		status int
		words  string
	}{
		{"an image", none, func(r *rig) string { return r.manifest("app", "{}", []string{"x"}) }, "", 201, ""},
		{"no JSON", none, func(*rig) string { return "{" }, "", 405, syntax},
		{"an unknown type", none, func(*rig) string { return `{"schemaVersion":2,"mediaType":"a/b"}` }, "", 405, syntax},
		{"another type than it says", none, func(r *rig) string { return r.manifest("app", "{}", nil) }, dockerManifest, 405, syntax},
		{"no config", none, func(*rig) string {
			return `{"schemaVersion":2,"mediaType":"` + v1.MediaTypeImageManifest + `","layers":[]}`
		}, "", 405, syntax},
		{"no mediaType", none, untyped, v1.MediaTypeImageManifest, 201, ""},
		{"no mediaType, formerly", func(s *ecrsim.Switches) { s.RequireMediaType = true }, untyped, v1.MediaTypeImageManifest, 405, syntax},
		{"a cache index", none, cacheIndex, "", 405, syntax},
		{"a cache index, 400", func(s *ecrsim.Switches) { s.CacheIndex = 400 }, cacheIndex, "", 400, syntax},
		{"a cache image", none, func(r *rig) string {
			return r.manifest("app", "{}", []string{"x"}, func(m *v1.Manifest) { m.Config.MediaType = "application/vnd.buildkit.cacheconfig.v0" })
		}, "", 201, ""},
		{"the empty config", none, func(r *rig) string { return r.manifest("app", "{}", []string{"x"}, artifact) }, "", 201, ""},
		{"the empty config, refused", func(s *ecrsim.Switches) { s.RefuseEmptyConfig = true }, func(r *rig) string { return r.manifest("app", "{}", []string{"x"}, artifact) }, "", 405, syntax},
		{"a subject that is not there", none, func(r *rig) string { return r.manifest("app", "{}", nil, subject) }, "", 201, ""},
		{"a subject, refused", func(s *ecrsim.Switches) { s.RefuseSubject = true }, func(r *rig) string { return r.manifest("app", "{}", nil, subject) }, "", 405, syntax},
		{"a subject that is not there, refused", func(s *ecrsim.Switches) { s.RefuseAbsentSubject = true }, func(r *rig) string { return r.manifest("app", "{}", nil, subject) }, "", 400, "MANIFEST_BLOB_UNKNOWN"},
		{"a subject that is not there, refused otherwise", func(s *ecrsim.Switches) {
			s.RefuseAbsentSubject, s.AbsentSubject = true, ecrsim.Answer{Status: 404, Code: "MANIFEST_UNKNOWN"}
		}, func(r *rig) string { return r.manifest("app", "{}", nil, subject) }, "", 404, "MANIFEST_UNKNOWN"},
		{"a missing layer", none, missingLayer, "", 400, "MANIFEST_BLOB_UNKNOWN"},
		{"a missing layer, otherwise", func(s *ecrsim.Switches) { s.MissingLayer = ecrsim.Answer{Status: 404, Code: "MANIFEST_INVALID"} }, missingLayer, "", 404, "MANIFEST_INVALID"},
		{"a missing child", none, func(*rig) string { return index("gone") }, "", 400, "The manifest list is referencing an image that does not exist"},
		{"a missing child, otherwise", func(s *ecrsim.Switches) { s.MissingChild = ecrsim.Answer{Status: 404, Code: "MANIFEST_INVALID"} }, func(*rig) string { return index("gone") }, "", 404, "MANIFEST_INVALID"},
		{"too many layers", func(s *ecrsim.Switches) { s.Limits.LayersPerImage = 1 }, func(r *rig) string { return r.manifest("app", "{}", []string{"x", "y"}) }, "", 405, "Limit on number of layers per image exceeded"},
		{"too many bytes", func(s *ecrsim.Switches) { s.Limits.ManifestBytes = 10 }, func(*rig) string { return strings.Repeat(" ", 11) }, "", 405, "UNSUPPORTED"},
		{"schema 1", none, func(r *rig) string {
			return `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + string(r.upload("app", "x").Digest) + `"}]}`
		}, "application/vnd.docker.distribution.manifest.v1+json", 201, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.set)
			body := c.body(r)
			p := r.put("app", "1", body)
			if c.header != "" {
				p = r.do("PUT", "/v2/app/manifests/1", body, "Content-Type: "+c.header)
			}
			r.want("PUT", p, c.status, c.words)
			if c.status == 201 {
				r.wantHeader("PUT", p, "Docker-Content-Digest", sum(body))
			}
		})
	}
}

func untyped(r *rig) string {
	return r.manifest("app", "{}", nil, func(m *v1.Manifest) { m.MediaType = "" })
}

func missingLayer(r *rig) string {
	return r.manifest("app", "{}", nil, func(m *v1.Manifest) {
		m.Layers = []v1.Descriptor{{MediaType: v1.MediaTypeImageLayerGzip, Digest: digestOf("gone"), Size: 4}}
	})
}

func cacheIndex(r *rig) string {
	x := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{r.upload("app", "x")}}
	x.SchemaVersion = 2
	return marshal(x)
}

func TestPutByTheDigestOfOtherBytes(t *testing.T) {
	for _, status := range []int{400, 405} {
		r := newRig(t, func(s *ecrsim.Switches) { s.DigestMismatch = status })
		d := sum("other")
		r.want("PUT", r.put("app", d, r.manifest("app", "{}", nil)), status, errorBody("MANIFEST_INVALID",
			"The image with digest '"+d+"' in repository 'app' and registry ID '123456789012' does not match the image digest that Amazon ECR has calculated."))
	}
}

func TestReadAfterWriteGaps(t *testing.T) {
	r := newRig(t, func(s *ecrsim.Switches) { s.ReadAfterWriteGap = time.Second })
	m := r.image("app", "1", "x")
	r.want("at once", r.do("GET", "/v2/app/manifests/1", nil), 404, "MANIFEST_UNKNOWN")
	r.want("by an index", r.put("app", "2", index(m)), 201)
	r.clock.pass(time.Second)
	r.want("after the gap", r.do("GET", "/v2/app/manifests/1", nil), 200)

	r = newRig(t, func(s *ecrsim.Switches) { s.ReadAfterWriteReads = 2 })
	r.image("app", "1", "x")
	for i, status := range []int{404, 404, 200, 200} {
		if p := r.do("HEAD", "/v2/app/manifests/1", nil); p.status != status {
			t.Errorf("read %d: %s, want %d", i+1, p, status)
		}
	}
}

func TestQuotasOfARepository(t *testing.T) {
	r := newRig(t, func(s *ecrsim.Switches) { s.Limits.ImagesPerRepository, s.Limits.TagsPerImage = 2, 2 })
	m := r.image("app", "1", "x")
	r.image("app", "2", "y")
	r.want("a third image", r.put("app", "3", r.manifest("app", "{ }", nil)), 403, "DENIED", "maximum allowed number of images which is '2'")
	r.want("a second tag", r.put("app", "3", m), 201)
	r.want("a third tag", r.put("app", "4", m), 403, "tags per image")
}

func TestImmutableTags(t *testing.T) {
	text := func(because string) string {
		return errorBody("TAG_INVALID", "The image tag '1' already exists in the 'app' repository and cannot be overwritten because the "+because+" is immutable.")
	}
	for _, c := range []struct {
		name       string
		mutability string
		exclusions []string
		refused    map[string]bool // by tag
	}{
		{"mutable", "MUTABLE", nil, map[string]bool{"1": false, "latest": false}},
		{"immutable", "IMMUTABLE", nil, map[string]bool{"1": true, "latest": true}},
		{"immutable, but for some", "IMMUTABLE_WITH_EXCLUSION", []string{"lat*", "dev"}, map[string]bool{"1": true, "latest": false, "dev": false, "dev2": true}},
		{"mutable, but for some", "MUTABLE_WITH_EXCLUSION", []string{"1*"}, map[string]bool{"1": true, "latest": false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			setMutability(t, sdk(t, r.Server), "app", c.mutability, c.exclusions)
			for tag, refused := range c.refused {
				first := r.image("app", tag, "x"+tag)
				p := r.put("app", tag, r.manifest("app", "{ "+strings.Repeat(" ", len(tag))+"}", nil))
				status := 201
				if refused {
					status = 400
					r.want(tag+" by digest", r.do("DELETE", "/v2/app/manifests/none", nil), 404)
				}
				r.want(tag, p, status)
				if refused && tag == "1" {
					r.want(tag, p, 400, text("tag"))
					r.Update(func(s *ecrsim.Switches) { s.OldImmutableText = true })
					r.want("the old text", r.put("app", tag, r.manifest("app", "{   }", nil)), 400, text("repository"))
					r.want("the same image", r.put("app", tag, first), 400, "TAG_INVALID")
					r.Update(func(s *ecrsim.Switches) { s.AcceptSameImage = true })
					r.want("the same image, accepted", r.put("app", tag, first), 201)
					r.want("the same image by digest", r.put("app", sum(first), first), 201)
				}
			}
		})
	}
}
