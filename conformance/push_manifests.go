package conformance

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// kind is a sort of document that registries are given.
type kind struct {
	name string
	make func(c *check, repo string) document
}

func kinds() []kind {
	image := func(change func(c *check, repo string, m *v1.Manifest)) func(*check, string) document {
		return func(c *check, repo string) document {
			return c.image(repo, func(m *v1.Manifest) { change(c, repo, m) })
		}
	}
	index := func(change func(c *check, repo string, i *v1.Index)) func(*check, string) document {
		return func(c *check, repo string) document {
			return c.index(repo, func(i *v1.Index) { change(c, repo, i) })
		}
	}
	return []kind{
		{"an OCI image", image(func(*check, string, *v1.Manifest) {})},
		{"an OCI index", index(func(*check, string, *v1.Index) {})},
		{"a Docker image", image(func(_ *check, _ string, m *v1.Manifest) {
			m.MediaType, m.Config.MediaType = mediaTypeDockerManifest, mediaTypeDockerConfig
			m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
		})},
		{"a Docker list", func(c *check, repo string) document {
			d := c.image(repo, func(m *v1.Manifest) { m.MediaType, m.Config.MediaType = mediaTypeDockerManifest, mediaTypeDockerConfig })
			c.want(c.putManifest(repo, d.digest, d), http.StatusCreated)
			entry := d.descriptor()
			entry.Platform = &v1.Platform{OS: "linux", Architecture: "amd64"}
			return newDocument(c.marshal(v1.Index{
				Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: mediaTypeDockerList, Manifests: []v1.Descriptor{entry},
			}), mediaTypeDockerList)
		}},
		{"an OCI image without layers", image(func(_ *check, _ string, m *v1.Manifest) { m.Layers = []v1.Descriptor{} })},
		{"an OCI image without mediaType", func(c *check, repo string) document {
			d := c.image(repo, func(m *v1.Manifest) { m.MediaType = "" })
			d.mediaType = v1.MediaTypeImageManifest
			return d
		}},
		{"an OCI index without mediaType", func(c *check, repo string) document {
			d := c.index(repo, func(i *v1.Index) { i.MediaType = "" })
			d.mediaType = v1.MediaTypeImageIndex
			return d
		}},
		{"an OCI index of nothing", index(func(_ *check, _ string, i *v1.Index) { i.Manifests = []v1.Descriptor{} })},
		{"an OCI index of one image", index(func(_ *check, _ string, i *v1.Index) { i.Manifests = i.Manifests[:1] })},
		{"an OCI index without platforms", index(func(_ *check, _ string, i *v1.Index) { i.Manifests[0].Platform, i.Manifests[1].Platform = nil, nil })},
		{"an OCI index that lists an image twice", index(func(_ *check, _ string, i *v1.Index) {
			i.Manifests[1].Digest, i.Manifests[1].Size = i.Manifests[0].Digest, i.Manifests[0].Size
		})},
		{"an OCI index with annotations", index(func(_ *check, _ string, i *v1.Index) {
			i.Annotations = map[string]string{"org.example/é": "<&>\u2028"}
		})},
		{"an OCI index of an index", func(c *check, repo string) document {
			inner := c.index(repo, nil)
			c.want(c.putManifest(repo, inner.digest, inner), http.StatusCreated)
			return c.index(repo, func(i *v1.Index) { i.Manifests = append(i.Manifests, inner.descriptor()) })
		}},
		{"an OCI index with an artifactType", index(func(_ *check, _ string, i *v1.Index) { i.ArtifactType = "application/vnd.example.bundle" })},
		{"an OCI artifact with an empty config", image(func(c *check, repo string, m *v1.Manifest) {
			m.ArtifactType, m.Config = "application/vnd.example.sbom", c.pushBlob(repo, []byte("{}"))
			m.Config.MediaType = v1.MediaTypeEmptyJSON
		})},
		{"an OCI artifact of nothing", image(func(c *check, repo string, m *v1.Manifest) {
			m.ArtifactType, m.Config = "application/vnd.example.mark", c.pushBlob(repo, []byte("{}"))
			m.Config.MediaType = v1.MediaTypeEmptyJSON
			m.Layers = []v1.Descriptor{m.Config}
		})},
		{"an OCI artifact by its config", image(func(c *check, repo string, m *v1.Manifest) {
			m.Config = c.pushBlob(repo, []byte(`{"name":"`+c.text()+`"}`))
			m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
			m.Layers[0].MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
		})},
		{"an OCI image with data in its descriptors", image(func(_ *check, _ string, m *v1.Manifest) {
			m.Config.Data = []byte(`whatever, "data" is not compared here`)
		})},
		{"an OCI image with a layer elsewhere", image(func(c *check, _ string, m *v1.Manifest) {
			m.Layers = append(m.Layers, v1.Descriptor{
				MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Digest: digest.Digest(c.missing()), Size: 123456,
				URLs: []string{"https://example.com/layer"},
			})
		})},
		{"an OCI image with unknown fields, odd spaces and a newline", func(c *check, repo string) document {
			d := c.image(repo, nil)
			s := "\n  {\t\"org.example.new\": [1.0e3, {\"a\":null}], \"\u00e9\": \"\\u00e9\\/\",  " + strings.TrimPrefix(string(d.bytes), "{") + "\r\n"
			return newDocument([]byte(s), d.mediaType)
		}},
		{"an OCI index with unknown fields, odd spaces and a newline", func(c *check, repo string) document {
			d := c.index(repo, nil)
			s := "{ \"org.example.new\" : [1.0e3, {\"a\":null}],\n\n" + strings.ReplaceAll(strings.TrimPrefix(string(d.bytes), "{"), ",", " ,\n ") + "\n"
			return newDocument([]byte(s), d.mediaType)
		}},
		{"a document of an unknown type", func(c *check, _ string) document {
			return newDocument([]byte(`{"mediaType":"`+mediaTypeUnknown+`","anything":"`+c.text()+`"}`), mediaTypeUnknown)
		}},
		{"a document of an unknown type that is not JSON", func(c *check, _ string) document {
			return newDocument(append([]byte("<xml/>"), c.random(300)...), "application/xml")
		}},
	}
}

func pushManifestCases() []testCase {
	const section = "Push/Pushing Manifests"
	var all []testCase
	for _, k := range kinds() {
		all = append(all,
			testCase{section, k.name + " by tag is 201 and comes back as it is", Must, func(c *check) {
				d := k.make(c, c.repo("a"))
				a := c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
				c.wantHeader(a, "Docker-Content-Digest", d.digest)
				c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil, accepts), http.StatusOK), d.bytes)
				c.wantDocument(c.repo("a"), "tag", d)
				c.wantDocument(c.repo("a"), d.digest, d)
			}},
			testCase{section, k.name + " by digest is 201 and comes back as it is", Must, func(c *check) {
				d := k.make(c, c.repo("a"))
				a := c.want(c.putManifest(c.repo("a"), d.digest, d), http.StatusCreated)
				c.wantHeader(a, "Docker-Content-Digest", d.digest)
				c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil, accepts), http.StatusOK), d.bytes)
				c.wantDocument(c.repo("a"), d.digest, d)
			}},
			testCase{section, k.name + " named by SHA-512 comes back as it is", Should, func(c *check) {
				d := k.make(c, c.repo("a"))
				d.digest = sha512Digest(d.bytes)
				a := c.want(c.putManifest(c.repo("a"), d.digest, d), http.StatusCreated)
				c.wantHeader(a, "Docker-Content-Digest", d.digest)
				c.wantDocument(c.repo("a"), d.digest, d)
			}},
			testCase{section, k.name + " can be pushed twice and under several tags", Must, func(c *check) {
				d := k.make(c, c.repo("a"))
				for _, ref := range []string{"one", d.digest, "two", "one"} {
					c.want(c.putManifest(c.repo("a"), ref, d), http.StatusCreated)
				}
				c.wantDocument(c.repo("a"), "one", d)
				c.wantDocument(c.repo("a"), "two", d)
			}},
			testCase{section, k.name + " that does not match its digest is 400", Should, func(c *check) {
				d := k.make(c, c.repo("a"))
				other := c.missing()
				c.want(c.putManifest(c.repo("a"), other, d), http.StatusBadRequest)
				c.want(c.headManifest(c.repo("a"), other), http.StatusNotFound)
			}},
		)
	}
	const limit = 4 << 20 // "at least 4 megabytes"
	large := func(c *check, size int) document {
		return c.image(c.repo("a"), func(m *v1.Manifest) {
			m.Annotations = map[string]string{"org.example.padding": ""}
			m.Annotations["org.example.padding"] = strings.Repeat("x", size-len(c.marshal(m)))
		})
	}
	return append(all,
		testCase{section, "a manifest of 4 MiB is accepted", Should, func(c *check) {
			d := large(c, limit)
			c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
			c.wantBody(c.want(c.getManifest(c.repo("a"), "tag"), http.StatusOK), d.bytes)
		}},
		testCase{section, "a manifest of 4 MiB without Content-Length is accepted", Should, func(c *check) {
			d := large(c, limit)
			c.wantHeader(c.want(c.putManifest(c.repo("a"), "tag", d, withoutLength), http.StatusCreated), "Docker-Content-Digest", d.digest)
		}},
		testCase{section, "a manifest of 20 MiB is 413", Should, func(c *check) {
			c.want(c.putManifest(c.repo("a"), "tag", large(c, 5*limit)), http.StatusRequestEntityTooLarge)
			c.want(c.headManifest(c.repo("a"), "tag"), http.StatusNotFound)
		}},
		testCase{section, "a manifest may come without Content-Length", Must, func(c *check) {
			d := c.image(c.repo("a"), nil)
			c.want(c.putManifest(c.repo("a"), "tag", d, withoutLength), http.StatusCreated)
			c.wantDocument(c.repo("a"), "tag", d)
		}},
		testCase{section, "parameters of Content-Type are ignored", Should, func(c *check) {
			for _, d := range []document{c.image(c.repo("a"), nil), c.index(c.repo("a"), nil)} {
				c.want(c.putManifest(c.repo("a"), "tag", d, withHeader("Content-Type", d.mediaType+"; charset=utf-8")), http.StatusCreated)
				c.wantDocument(c.repo("a"), "tag", d)
			}
		}},
		testCase{section, "a tag moves to what was pushed last", Must, func(c *check) {
			first, second := c.pushImage(c.repo("a"), nil, "tag"), c.index(c.repo("a"), nil)
			c.want(c.putManifest(c.repo("a"), "tag", second), http.StatusCreated)
			c.wantDocument(c.repo("a"), "tag", second)
			c.wantDocument(c.repo("a"), first.digest, first)
			c.want(c.putManifest(c.repo("a"), "tag", first), http.StatusCreated)
			c.wantDocument(c.repo("a"), "tag", first)
		}},
		testCase{section, "the same index can be pushed by several clients at once", Must, func(c *check) {
			d := c.index(c.repo("a"), nil)
			c.atOnce(6, func(i int) { c.want(c.putManifest(c.repo("a"), fmt.Sprintf("tag%d", i%2), d), http.StatusCreated) })
			c.wantDocument(c.repo("a"), "tag0", d)
			c.wantDocument(c.repo("a"), "tag1", d)
		}},
		// specified after 1.1.1
		testCase{section, "tags in the query are pushed when OCI-Tag says so", May, func(c *check) {
			d := c.image(c.repo("a"), nil)
			a := c.want(c.putManifest(c.repo("a"), d.digest+"?tag=one&tag=two", d), http.StatusCreated)
			for _, list := range a.header.Values("OCI-Tag") {
				for tag := range strings.SplitSeq(list, ",") {
					c.wantDocument(c.repo("a"), strings.TrimSpace(tag), d)
				}
			}
		}},
		testCase{section, "tags in the query are pushed", May, func(c *check) {
			d := c.index(c.repo("a"), nil)
			a := c.want(c.putManifest(c.repo("a"), d.digest+"?tag=one&tag=two", d), http.StatusCreated)
			if got := strings.Join(a.header.Values("OCI-Tag"), ","); !strings.Contains(got, "one") || !strings.Contains(got, "two") {
				c.failf("%v: OCI-Tag is %q, want both tags", a, got)
			}
			c.wantDocument(c.repo("a"), "one", d)
			c.wantDocument(c.repo("a"), "two", d)
		}},
	)
}

func manifestRefusalCases() []testCase {
	const section = "Push/Pushing Manifests"
	// a registry MAY accept these; refusing has one form
	unknown := func(c *check, d document, ref string) {
		a := c.putManifest(c.repo("a"), ref, d)
		if a.status == http.StatusCreated {
			return
		}
		c.wantCode(a, "MANIFEST_BLOB_UNKNOWN")
		c.want(c.headManifest(c.repo("a"), ref), http.StatusNotFound)
	}
	all := []testCase{
		{"Push", "an image whose config is missing is accepted, or MANIFEST_BLOB_UNKNOWN", Must, func(c *check) {
			unknown(c, c.image(c.repo("a"), func(m *v1.Manifest) { m.Config.Digest = digest.Digest(c.missing()) }), "tag")
		}},
		{"Push", "an image of which a layer is missing is accepted, or MANIFEST_BLOB_UNKNOWN", Must, func(c *check) {
			d := c.image(c.repo("a"), func(m *v1.Manifest) {
				m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: digest.Digest(c.missing()), Size: 5})
			})
			unknown(c, d, "tag")
			unknown(c, d, d.digest)
		}},
		{"Push", "an artifact whose empty config was not pushed is accepted, or MANIFEST_BLOB_UNKNOWN", Must, func(c *check) {
			unknown(c, c.image(c.repo("a"), func(m *v1.Manifest) {
				m.Config = v1.Descriptor{MediaType: v1.MediaTypeEmptyJSON, Digest: digest.Digest(sha256Digest([]byte("{}"))), Size: 2}
			}), "tag")
		}},
		{"Push", "an index of which an image is missing is accepted, or MANIFEST_BLOB_UNKNOWN", Must, func(c *check) {
			d := c.index(c.repo("a"), func(i *v1.Index) { i.Manifests[1].Digest = digest.Digest(c.missing()) })
			unknown(c, d, "tag")
			unknown(c, d, d.digest)
		}},
		{"Push", "an index of which an image of no known platform is missing is accepted, or MANIFEST_BLOB_UNKNOWN", Must, func(c *check) {
			unknown(c, c.index(c.repo("a"), func(i *v1.Index) {
				i.Manifests[1].Digest = digest.Digest(c.missing())
				i.Manifests[1].Platform = &v1.Platform{OS: "unknown", Architecture: "unknown"}
			}), "tag")
		}},
		{"Push", "blobs of another repository are not there for a manifest", Must, func(c *check) {
			d := c.image(c.repo("b"), nil)
			unknown(c, d, "tag") // in a, to which nothing was pushed
		}},
		{section, "what is not JSON is MANIFEST_INVALID", Should, func(c *check) {
			for _, s := range []string{"", "blablabla", "[]", `"text"`, `{"schemaVersion":2`} {
				for _, mediaType := range []string{v1.MediaTypeImageManifest, v1.MediaTypeImageIndex} {
					c.wantCode(c.putManifest(c.repo("a"), "tag", newDocument([]byte(s), mediaType)), "MANIFEST_INVALID")
				}
			}
			c.want(c.headManifest(c.repo("a"), "tag"), http.StatusNotFound)
		}},
		{section, "a manifest that does not match its digest is DIGEST_INVALID", Should, func(c *check) {
			c.wantCode(c.putManifest(c.repo("a"), c.missing(), c.image(c.repo("a"), nil)), "DIGEST_INVALID")
		}},
		{section, "a manifest with spaces after it does not match its digest", Should, func(c *check) {
			for _, d := range []document{c.image(c.repo("a"), nil), c.index(c.repo("a"), nil)} {
				d.bytes = append(d.bytes, ' ', ' ')
				c.want(c.putManifest(c.repo("a"), d.digest, d), http.StatusBadRequest)
			}
		}},
	}
	for _, ref := range []string{"sha256:baddigeststring", "sha256:" + strings.Repeat("0", 63), "sha256:" + strings.Repeat("A", 64), "crc32:" + strings.Repeat("0", 64)} {
		all = append(all, testCase{section, "a digest that is none is 400: " + ref, Should, func(c *check) {
			c.want(c.putManifest(c.repo("a"), ref, c.image(c.repo("a"), nil)), http.StatusBadRequest)
		}})
	}
	return all
}

func subjectCases() []testCase {
	const section = "Push/Pushing Manifests/Pushing Manifests with Subject"
	wantSubject := func(c *check, a *answer, subject string) {
		c.wantHeader(c.want(a, http.StatusCreated), "OCI-Subject", subject)
	}
	index := func(c *check, subject *v1.Descriptor) document {
		return c.index(c.repo("a"), func(i *v1.Index) { i.Subject = subject })
	}
	note := func(c *check, subject *v1.Descriptor) document {
		return c.image(c.repo("a"), func(m *v1.Manifest) { m.Subject, m.ArtifactType = subject, "application/vnd.example.note" })
	}
	absent := func(c *check) *v1.Descriptor {
		return &v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digest.Digest(c.missing()), Size: 1234}
	}
	var all []testCase
	for _, made := range []struct {
		name string
		make func(*check, *v1.Descriptor) document
	}{{"an image", note}, {"an index", index}} {
		all = append(all,
			testCase{"Push", made.name + " is accepted though its subject is not there", Must, func(c *check) {
				d := made.make(c, absent(c))
				c.want(c.putManifest(c.repo("a"), d.digest, d), http.StatusCreated)
				c.wantDocument(c.repo("a"), d.digest, d)
			}},
			testCase{"Push", made.name + " by tag is accepted though its subject is not there", Must, func(c *check) {
				d := made.make(c, absent(c))
				c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
				c.wantDocument(c.repo("a"), "tag", d)
			}},
			testCase{section, made.name + " by digest is answered with OCI-Subject", Must, func(c *check) {
				subject := c.pushImage(c.repo("a"), nil).descriptor()
				d := made.make(c, &subject)
				wantSubject(c, c.putManifest(c.repo("a"), d.digest, d), subject.Digest.String())
			}},
			testCase{section, made.name + " by tag is answered with OCI-Subject", Must, func(c *check) {
				subject := c.pushImage(c.repo("a"), nil).descriptor()
				wantSubject(c, c.putManifest(c.repo("a"), "tag", made.make(c, &subject)), subject.Digest.String())
			}},
			testCase{section, made.name + " is answered with OCI-Subject though its subject is not there", Must, func(c *check) {
				subject := absent(c)
				wantSubject(c, c.putManifest(c.repo("a"), "tag", made.make(c, subject)), subject.Digest.String())
			}},
			testCase{section, made.name + " without a subject is answered without OCI-Subject", Must, func(c *check) {
				a := c.want(c.putManifest(c.repo("a"), "tag", made.make(c, nil)), http.StatusCreated)
				if got := a.header.Values("OCI-Subject"); len(got) > 0 {
					c.failf("%v: OCI-Subject %q", a, got)
				}
			}},
		)
	}
	return all
}
