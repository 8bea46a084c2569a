package conformance

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func pullManifestCases() []testCase {
	const section = "Pull/Pulling manifests"
	all := []testCase{
		{section, "a manifest comes back by tag as the bytes that were pushed", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			c.wantDocument(c.repo("a"), "tag", d)
		}},
		{section, "a manifest comes back by digest as the bytes that were pushed", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil)
			c.wantDocument(c.repo("a"), d.digest, d)
		}},
		// a MUST since the draft after 1.1.1, and containerd compares it
		{section, "Docker-Content-Digest is the digest of the manifest", Should, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			c.wantHeader(c.getManifest(c.repo("a"), "tag"), "Docker-Content-Digest", d.digest)
			c.wantHeader(c.getManifest(c.repo("a"), d.digest), "Docker-Content-Digest", d.digest)
		}},
		{section, "Content-Type has no parameters", Should, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			c.wantHeader(c.getManifest(c.repo("a"), "tag"), "Content-Type", d.mediaType)
		}},
		{section, "Accept may be one header with a list", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			list := withHeader("Accept", mediaTypeDockerList+", "+v1.MediaTypeImageIndex+","+v1.MediaTypeImageManifest+";q=0.5, */*")
			c.wantBody(c.want(c.do(http.MethodGet, manifestPath(c.repo("a"), "tag"), nil, list), http.StatusOK), d.bytes)
		}},
		{section, "an index is not exchanged for one of its images when Accept lists it", Must, func(c *check) {
			d := c.index(c.repo("a"), nil)
			c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
			c.wantDocument(c.repo("a"), "tag", d)
		}},
		{section, "a tag that is not there is 404", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil, "tag")
			c.want(c.getManifest(c.repo("a"), "other"), http.StatusNotFound)
		}},
		{section, "a digest that is not there is 404", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil)
			c.want(c.getManifest(c.repo("a"), c.missing()), http.StatusNotFound)
		}},
		{section, "a manifest of another repository is 404", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			c.pushImage(c.repo("b"), nil)
			c.want(c.getManifest(c.repo("b"), d.digest), http.StatusNotFound)
			c.want(c.getManifest(c.repo("b"), "tag"), http.StatusNotFound)
		}},
		{section, "a blob is not a manifest", Must, func(c *check) {
			b := c.pushBlob(c.repo("a"), c.random(100))
			c.want(c.getManifest(c.repo("a"), b.Digest.String()), http.StatusNotFound)
		}},
		{section, "anything in a repository that does not exist is 404", Must, func(c *check) {
			c.want(c.getManifest(c.repo("never"), "tag"), http.StatusNotFound)
			c.want(c.getManifest(c.repo("never"), c.missing()), http.StatusNotFound)
		}},
	}
	for _, ref := range []string{".dot", "-dash", "sha256:short", "a:b", "%C3%A9"} {
		all = append(all, testCase{section, "a reference outside the grammar is 400 or 404: " + ref, Must, func(c *check) {
			c.pushImage(c.repo("a"), nil)
			c.want(c.getManifest(c.repo("a"), ref), http.StatusBadRequest, http.StatusNotFound)
		}})
	}
	return all
}

func pullBlobCases() []testCase {
	const section = "Pull/Pulling blobs"
	all := []testCase{
		{section, "a blob comes back as the bytes that were pushed", Must, func(c *check) {
			b := c.random(5000)
			d := c.pushBlob(c.repo("a"), b).Digest.String()
			a := c.want(c.getBlob(c.repo("a"), d), http.StatusOK)
			c.wantBody(a, b)
			c.wantHeader(a, "Docker-Content-Digest", d)
		}},
		{section, "a blob that is not there is 404", Must, func(c *check) {
			c.pushBlob(c.repo("a"), c.random(10))
			c.want(c.getBlob(c.repo("a"), c.missing()), http.StatusNotFound)
		}},
		{section, "a blob in a repository that does not exist is 404", Must, func(c *check) {
			c.want(c.getBlob(c.repo("never"), c.missing()), http.StatusNotFound)
		}},
		{section, "a blob of another repository is 404", Must, func(c *check) {
			d := c.pushBlob(c.repo("a"), c.random(100)).Digest.String()
			c.pushBlob(c.repo("b"), c.random(100))
			c.want(c.getBlob(c.repo("b"), d), http.StatusNotFound)
			c.want(c.headBlob(c.repo("b"), d), http.StatusNotFound)
		}},
		{section, "the empty JSON object is 404 until it is pushed", Must, func(c *check) {
			c.pushBlob(c.repo("a"), c.random(10))
			c.want(c.getBlob(c.repo("a"), sha256Digest([]byte("{}"))), http.StatusNotFound)
			c.want(c.headBlob(c.repo("a"), sha256Digest([]byte("{}"))), http.StatusNotFound)
		}},
	}
	const size = 2000
	for _, r := range []struct {
		name, header string
		first, last  int // -1: not satisfiable
	}{
		{"from the middle", "bytes=500-1499", 500, 1499},
		{"the first byte", "bytes=0-0", 0, 0},
		{"to the end", "bytes=1500-", 1500, size - 1},
		{"the last bytes", "bytes=-300", size - 300, size - 1},
		{"more last bytes than there are", "bytes=-5000", 0, size - 1},
		{"past the end", "bytes=1900-9999", 1900, size - 1},
		{"from behind the end is 416", "bytes=2000-2100", -1, -1},
	} {
		all = append(all, testCase{section, "Range: " + r.name, Should, func(c *check) {
			b := c.random(size)
			d := c.pushBlob(c.repo("a"), b).Digest.String()
			a := c.do(http.MethodGet, blobPath(c.repo("a"), d), nil, withHeader("Range", r.header))
			if r.first < 0 {
				c.want(a, http.StatusRequestedRangeNotSatisfiable)
				return
			}
			c.want(a, http.StatusPartialContent)
			c.wantBody(a, b[r.first:r.last+1])
			c.wantHeader(a, "Content-Length", strconv.Itoa(r.last+1-r.first))
			want := "bytes " + strconv.Itoa(r.first) + "-" + strconv.Itoa(r.last) + "/"
			if got := a.header.Get("Content-Range"); got != want+strconv.Itoa(size) && got != want+"*" {
				c.failf("%s: Content-Range is %q, want %q", r.header, got, want+strconv.Itoa(size))
			}
		}})
	}
	return all
}

func existenceCases() []testCase {
	const section = "Pull/Checking if content exists in the registry"
	// RFC 9110, 9.3.2: HEAD answers what GET would, without the content
	agree := func(c *check, get, head *answer) {
		c.want(get, http.StatusOK)
		c.want(head, http.StatusOK)
		for _, name := range []string{"Content-Type", "Docker-Content-Digest", "Content-Length"} {
			if g, h := get.header.Get(name), head.header.Get(name); g != h {
				c.failf("%s: GET says %s %q, HEAD says %q", get.url, name, g, h)
			}
		}
		if got := head.header.Get("Content-Length"); got != strconv.Itoa(len(get.body)) {
			c.failf("%v: Content-Length %q, and the body of GET has %d bytes", head, got, len(get.body))
		}
		if !bytes.Equal(head.body, nil) {
			c.failf("%v: HEAD has a body", head)
		}
	}
	return []testCase{
		{section, "HEAD of a blob is 200 with its digest and size", Must, func(c *check) {
			d := c.pushBlob(c.repo("a"), c.random(1234)).Digest.String()
			a := c.want(c.headBlob(c.repo("a"), d), http.StatusOK)
			c.wantHeader(a, "Docker-Content-Digest", d)
			c.wantHeader(a, "Content-Length", "1234")
		}},
		{section, "HEAD of a manifest is 200 with its digest and size", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			for _, ref := range []string{"tag", d.digest} {
				a := c.want(c.headManifest(c.repo("a"), ref), http.StatusOK)
				c.wantHeader(a, "Docker-Content-Digest", d.digest)
				c.wantHeader(a, "Content-Length", strconv.Itoa(len(d.bytes)))
			}
		}},
		{section, "HEAD and GET agree about a blob", Must, func(c *check) {
			d := c.pushBlob(c.repo("a"), c.random(70000)).Digest.String()
			agree(c, c.getBlob(c.repo("a"), d), c.headBlob(c.repo("a"), d))
		}},
		{section, "HEAD and GET agree about an image", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			agree(c, c.getManifest(c.repo("a"), "tag"), c.headManifest(c.repo("a"), "tag"))
			agree(c, c.getManifest(c.repo("a"), d.digest), c.headManifest(c.repo("a"), d.digest))
		}},
		{section, "HEAD and GET agree about an index", Must, func(c *check) {
			d := c.index(c.repo("a"), nil)
			c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
			agree(c, c.getManifest(c.repo("a"), "tag"), c.headManifest(c.repo("a"), "tag"))
			agree(c, c.getManifest(c.repo("a"), d.digest), c.headManifest(c.repo("a"), d.digest))
		}},
		{section, "HEAD of a blob of no bytes says so", Must, func(c *check) {
			d := c.pushBlob(c.repo("a"), nil).Digest.String()
			c.wantHeader(c.want(c.headBlob(c.repo("a"), d), http.StatusOK), "Content-Length", "0")
		}},
		{section, "HEAD of a blob that is not there is 404", Must, func(c *check) {
			c.pushBlob(c.repo("a"), c.random(10))
			c.want(c.headBlob(c.repo("a"), c.missing()), http.StatusNotFound)
			c.want(c.headBlob(c.repo("never"), c.missing()), http.StatusNotFound)
		}},
		// BuildKit asks so before it sends a statement
		{section, "HEAD of a blob that is not there is 404 whatever Accept says", Must, func(c *check) {
			c.pushBlob(c.repo("a"), c.random(10))
			c.want(c.do(http.MethodHead, blobPath(c.repo("a"), c.missing()), nil,
				withHeader("Accept", "application/vnd.in-toto+json, */*")), http.StatusNotFound)
		}},
		{section, "HEAD of a manifest that is not there is 404", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil, "tag")
			c.want(c.headManifest(c.repo("a"), "other"), http.StatusNotFound)
			c.want(c.headManifest(c.repo("a"), c.missing()), http.StatusNotFound)
			c.want(c.headManifest(c.repo("never"), "tag"), http.StatusNotFound)
		}},
	}
}

// nameCases hold the grammars of names and tags, which the section "Pulling manifests" sets for the whole document.
func nameCases() []testCase {
	const section = "Pull/Pulling manifests"
	var all []testCase
	for _, name := range []string{
		"a", "0", "a.b", "a_b", "a__b", "a-b", "a---b", "a0.b1_c2__d3-e4/f", "a/b/c/d/e/f/g", strings.Repeat("long/", 30) + "end",
		"v2", "manifests", "blobs/uploads", "tags/list", "referrers/x",
	} {
		all = append(all, testCase{section, "a name of the grammar can be used: " + strings.ReplaceAll(name, "/", "|"), Must, func(c *check) {
			repo := c.prefix + "/" + name
			d := c.pushImage(repo, nil, "tag")
			c.wantDocument(repo, "tag", d)
			c.wantDocument(repo, d.digest, d)
			c.want(c.do(http.MethodGet, tagsPath(repo), nil), http.StatusOK)
		}})
	}
	for _, name := range []string{"Upper", "-a", "a-", "a..b", "a___b", "_a", "a_", "a._b", "a+b", "a%20b"} {
		all = append(all, testCase{section, "a name outside the grammar is refused: " + name, Must, func(c *check) {
			repo := c.prefix + "/" + name
			for _, a := range []*answer{
				c.do(http.MethodPost, uploadsPath(repo), nil),
				c.getManifest(repo, "tag"),
				c.getBlob(repo, c.missing()),
			} {
				c.want(a, http.StatusBadRequest, http.StatusNotFound)
			}
		}})
	}
	for _, tag := range []string{"a", "_", "A", "9", "latest", "v1.2.3-rc.1_build", "_.-", strings.Repeat("t", 128), "sha256-" + strings.Repeat("0", 64) + ".example"} {
		all = append(all, testCase{section, "a tag of the grammar can be used: " + tag, Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, tag)
			c.wantDocument(c.repo("a"), tag, d)
		}})
	}
	for _, tag := range []string{".a", "-a", "a+b", "a%20b", strings.Repeat("t", 129)} {
		all = append(all, testCase{section, "a tag outside the grammar is refused: " + tag, Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil)
			if a := c.putManifest(c.repo("a"), tag, d); a.status < 400 {
				c.failf("%v: want a refusal", a)
			}
			c.want(c.getManifest(c.repo("a"), tag), http.StatusBadRequest, http.StatusNotFound)
		}})
	}
	return all
}
