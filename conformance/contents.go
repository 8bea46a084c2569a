package conformance

import (
	"bytes"
	"net/http"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// content is a blob that somebody in between might treat in a special way.
type content struct {
	name  string
	bytes func(c *check) []byte
}

func contents() []content {
	text := func(s string) func(*check) []byte { return func(*check) []byte { return []byte(s) } }
	return []content{
		{"nothing", text("")},
		{"one brace", text("{")},
		{"the empty JSON object", text("{}")},
		{"the empty JSON object and a newline", text("{}\n")},
		{"63 bytes", func(c *check) []byte { return c.random(63) }},
		{"64 bytes", func(c *check) []byte { return c.random(64) }},
		{"65 bytes", func(c *check) []byte { return c.random(65) }},
		{"an image config", text(`{"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/sh"]},"rootfs":{"type":"layers","diff_ids":[]}}`)},
		{"the config of an attestation", text(`{"architecture":"unknown","os":"unknown","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"]}}`)},
		{"an in-toto statement", func(c *check) []byte {
			return []byte(`{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://slsa.dev/provenance/v1","subject":[{"name":"` + c.text() + `","digest":{"sha256":"4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"}}],"predicate":{}}`)
		}},
		{"a long in-toto statement", func(c *check) []byte {
			return []byte(`{"_type":"https://in-toto.io/Statement/v1","predicate":"` + string(bytes.Repeat([]byte(c.text()), 30000)) + `"}`)
		}},
		{"a signed in-toto statement", func(c *check) []byte {
			return []byte(`{"payloadType":"application/vnd.in-toto+json","payload":"` + c.text() + `","signatures":[{"sig":"MEUC"}]}`)
		}},
		{"gzip", func(c *check) []byte { return append([]byte{0x1f, 0x8b, 8, 0}, c.random(100000)...) }},
		{"300 KiB", func(c *check) []byte { return c.random(300 << 10) }},
	}
}

// style is a way to upload a blob.
type style struct {
	name   string
	upload func(c *check, repo string, b []byte, digest string)
}

func styles() []style {
	chunks := func(sizes func(n int) []int, lastInPut bool) func(*check, string, []byte, string) {
		return func(c *check, repo string, b []byte, digest string) {
			u := c.open(repo)
			var parts [][]byte
			if len(b) > 0 { // a range needs a first byte: nothing at all has no chunks
				parts = u.parts(b, sizes(len(b))...)
			}
			var last []byte
			if lastInPut && len(parts) > 0 {
				parts, last = parts[:len(parts)-1], parts[len(parts)-1]
			}
			for _, p := range parts {
				u.chunk(p)
			}
			c.want(u.finish(digest, last), http.StatusCreated)
		}
	}
	thirds := func(n int) []int { return []int{max(n/3, 1), max(n/3, 1)} }
	small := func(int) []int { return []int{1, 7, 5} }
	patch := func(options ...option) func(*check, string, []byte, string) {
		return func(c *check, repo string, b []byte, digest string) {
			location, _ := c.startUpload(repo, nil)
			a := c.want(c.do(http.MethodPatch, location, b, append([]option{octets}, options...)...), http.StatusAccepted)
			c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", digest), nil, octets), http.StatusCreated)
		}
	}
	return []style{
		{"POST and PUT", func(c *check, repo string, b []byte, digest string) {
			location, _ := c.startUpload(repo, nil)
			c.want(c.do(http.MethodPut, withQuery(location, "digest", digest), b, octets), http.StatusCreated)
		}},
		{"a single POST", func(c *check, repo string, b []byte, digest string) {
			a := c.do(http.MethodPost, withQuery(uploadsPath(repo), "digest", digest), b, octets)
			if c.want(a, http.StatusCreated, http.StatusAccepted); a.status == http.StatusAccepted {
				c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", digest), b, octets), http.StatusCreated)
			}
		}},
		{"one PATCH with its length", patch()},
		{"one PATCH without its length", patch(withoutLength)},
		{"thirds", chunks(thirds, false)},
		{"thirds, the last with the PUT", chunks(thirds, true)},
		{"a few bytes first", chunks(small, false)},
		{"a few bytes first, the rest with the PUT", chunks(small, true)},
	}
}

// wantBlob checks everything that can be asked about a blob that is there.
func (c *check) wantBlob(repo, digest string, b []byte) {
	get := c.want(c.getBlob(repo, digest), http.StatusOK)
	c.wantBody(get, b)
	head := c.want(c.headBlob(repo, digest), http.StatusOK)
	if g, h := get.header.Get("Content-Length"), head.header.Get("Content-Length"); g != h {
		c.failf("%s: GET says Content-Length %q, HEAD says %q", get.url, g, h)
	}
	if len(b) > 1 {
		c.wantBody(c.want(c.do(http.MethodGet, blobPath(repo, digest), nil, withHeader("Range", "bytes=1-")), http.StatusPartialContent), b[1:])
	}
}

func contentCases() []testCase {
	var all []testCase
	for _, what := range contents() {
		for _, how := range styles() {
			all = append(all, testCase{"Push/Pushing blobs", what.name + " by " + how.name + " can be pulled", Must, func(c *check) {
				b := what.bytes(c)
				how.upload(c, c.repo("a"), b, sha256Digest(b))
				c.wantBlob(c.repo("a"), sha256Digest(b), b)
			}}, testCase{"Push/Pushing blobs", what.name + " by " + how.name + " is checked against the digest", Should, func(c *check) {
				b, d := what.bytes(c), c.missing()
				defer c.wantRefused(c.repo("a"), d)
				how.upload(c, c.repo("a"), b, d)
			}})
		}
		all = append(all,
			testCase{"Push/Pushing blobs", what.name + " named by SHA-512 can be pulled", Should, func(c *check) {
				b := what.bytes(c)
				styles()[0].upload(c, c.repo("a"), b, sha512Digest(b))
				c.wantBlob(c.repo("a"), sha512Digest(b), b)
			}},
			testCase{"Push/Mounting a blob from another repository", what.name + " can be mounted, or uploaded to the session", Must, func(c *check) {
				b := what.bytes(c)
				c.pushBlob(c.repo("from"), b)
				a := c.mount(c.repo("to"), sha256Digest(b), c.repo("from"))
				if a.status == http.StatusAccepted {
					c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", sha256Digest(b)), b, octets), http.StatusCreated)
				}
				c.wantBlob(c.repo("to"), sha256Digest(b), b)
			}},
			testCase{"Content Management/Deleting Blobs", what.name + " is gone after 202", Must, func(c *check) {
				b := what.bytes(c)
				d := c.pushBlob(c.repo("a"), b).Digest.String()
				c.want(c.do(http.MethodDelete, blobPath(c.repo("a"), d), nil), http.StatusAccepted)
				c.want(c.headBlob(c.repo("a"), d), http.StatusNotFound)
				c.want(c.getBlob(c.repo("a"), d), http.StatusNotFound)
			}},
			testCase{"Content Management/Deleting Blobs", what.name + " can be pushed again", Must, func(c *check) {
				b := what.bytes(c)
				d := c.pushBlob(c.repo("a"), b).Digest.String()
				c.want(c.do(http.MethodDelete, blobPath(c.repo("a"), d), nil), http.StatusAccepted)
				c.pushBlob(c.repo("a"), b)
				c.wantBlob(c.repo("a"), d, b)
			}},
			testCase{"Push/Pushing Manifests", what.name + " can be the layer of an artifact", Must, func(c *check) {
				b := what.bytes(c)
				layer := c.pushBlob(c.repo("a"), b)
				layer.MediaType = "application/vnd.example.thing"
				d := c.pushImage(c.repo("a"), func(m *v1.Manifest) {
					m.ArtifactType, m.Layers = "application/vnd.example.things", []v1.Descriptor{layer}
				}, "tag")
				c.wantDocument(c.repo("a"), "tag", d)
				c.wantBlob(c.repo("a"), layer.Digest.String(), b)
			}},
			testCase{"Push/Pushing Manifests", what.name + " can be the config of an artifact", Must, func(c *check) {
				b := what.bytes(c)
				c.pushBlob(c.repo("a"), b)
				d := c.pushImage(c.repo("a"), func(m *v1.Manifest) {
					m.Config = v1.Descriptor{MediaType: "application/vnd.example.config", Digest: digest.Digest(sha256Digest(b)), Size: int64(len(b))}
				}, "tag")
				c.wantDocument(c.repo("a"), "tag", d)
				c.wantBlob(c.repo("a"), sha256Digest(b), b)
			}},
		)
	}
	return all
}

// wantRefused is deferred around an upload under a wrong digest: the upload has to end with a 400, and to leave nothing.
func (c *check) wantRefused(repo, digest string) {
	switch end := recover().(type) {
	case nil:
		c.failf("an upload under %s, which it does not have, was accepted", digest)
	case failed:
		if end.status != http.StatusBadRequest {
			panic(end)
		}
	default:
		panic(end)
	}
	c.want(c.headBlob(repo, digest), http.StatusNotFound)
}

func (c *check) mount(repo, digest, from string) *answer {
	target := withQuery(uploadsPath(repo), "mount", digest)
	if from != "" {
		target = withQuery(target, "from", from)
	}
	return c.want(c.do(http.MethodPost, target, nil), http.StatusCreated, http.StatusAccepted)
}

func mountCases() []testCase {
	const section = "Push/Mounting a blob from another repository"
	return []testCase{
		{section, "is 201 with the URL of the blob, or 202 with a session", Must, func(c *check) {
			b := c.random(2000)
			d := c.pushBlob(c.repo("from"), b).Digest.String()
			a := c.mount(c.repo("to"), d, c.repo("from"))
			if a.status == http.StatusCreated {
				c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil), http.StatusOK), b)
				return
			}
			c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", d), b, octets), http.StatusCreated)
		}},
		{section, "is 201", May, func(c *check) {
			b := c.random(2000)
			d := c.pushBlob(c.repo("from"), b).Digest.String()
			a := c.want(c.mount(c.repo("to"), d, c.repo("from")), http.StatusCreated)
			c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil), http.StatusOK), b)
			c.wantBlob(c.repo("to"), d, b)
		}},
		{section, "works with the parameters in the other order", May, func(c *check) {
			b := c.random(2000)
			d := c.pushBlob(c.repo("from"), b).Digest.String()
			target := withQuery(withQuery(uploadsPath(c.repo("to")), "from", c.repo("from")), "mount", d)
			c.want(c.do(http.MethodPost, target, nil), http.StatusCreated)
			c.wantBlob(c.repo("to"), d, b)
		}},
		{section, "of a blob that is not there is 202 and a session that takes it", Should, func(c *check) {
			c.pushBlob(c.repo("from"), c.random(10))
			b := c.random(2000)
			a := c.want(c.mount(c.repo("to"), sha256Digest(b), c.repo("from")), http.StatusAccepted)
			c.want(c.headBlob(c.repo("to"), sha256Digest(b)), http.StatusNotFound)
			c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", sha256Digest(b)), b, octets), http.StatusCreated)
			c.wantBlob(c.repo("to"), sha256Digest(b), b)
		}},
		{section, "from a repository that does not exist is 202 and a session that takes it", Should, func(c *check) {
			b := c.random(2000)
			a := c.want(c.mount(c.repo("to"), sha256Digest(b), c.repo("never")), http.StatusAccepted)
			c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", sha256Digest(b)), b, octets), http.StatusCreated)
			c.wantBlob(c.repo("to"), sha256Digest(b), b)
		}},
		{section, "the session after a 202 takes chunks", Should, func(c *check) {
			b := c.random(2000)
			a := c.want(c.mount(c.repo("to"), sha256Digest(b), c.repo("never")), http.StatusAccepted)
			u := &upload{c, c.repo("to"), c.location(a), c.minimum(a), 0}
			for _, p := range u.parts(b, 10, 1000) {
				u.chunk(p)
			}
			c.want(u.finish(sha256Digest(b), nil), http.StatusCreated)
			c.wantBlob(c.repo("to"), sha256Digest(b), b)
		}},
		// regctl asks so: the registry MAY find the blob by itself
		{section, "without a source is 201, or 202 and a session that takes it", May, func(c *check) {
			b := c.random(2000)
			c.pushBlob(c.repo("from"), b)
			a := c.mount(c.repo("to"), sha256Digest(b), "")
			if a.status == http.StatusAccepted {
				c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", sha256Digest(b)), b, octets), http.StatusCreated)
			}
			c.wantBlob(c.repo("to"), sha256Digest(b), b)
		}},
	}
}
