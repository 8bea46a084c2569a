package conformance

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

func pushBlobCases() []testCase {
	const (
		post   = "Push/Pushing a blob monolithically/POST then PUT"
		single = "Push/Pushing a blob monolithically/Single POST"
	)
	return []testCase{
		{post, "POST answers 202 and a session URL", Must, func(c *check) {
			c.startUpload(c.repo("a"), nil)
		}},
		{post, "every POST opens another session", Must, func(c *check) {
			one, _ := c.startUpload(c.repo("a"), nil)
			two, _ := c.startUpload(c.repo("a"), nil)
			if one == two {
				c.failf("two sessions at %s", one)
			}
		}},
		{post, "PUT answers 201 and a URL from which the blob can be pulled", Must, func(c *check) {
			b := c.random(3000)
			location, _ := c.startUpload(c.repo("a"), nil)
			a := c.want(c.do(http.MethodPut, withQuery(location, "digest", sha256Digest(b)), b, octets), http.StatusCreated)
			c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil), http.StatusOK), b)
		}},
		{post, "Docker-Content-Digest, if there is one, is the blob's", Must, func(c *check) {
			b := c.random(3000)
			location, _ := c.startUpload(c.repo("a"), nil)
			a := c.want(c.do(http.MethodPut, withQuery(location, "digest", sha256Digest(b)), b, octets), http.StatusCreated)
			if got := a.header.Get("Docker-Content-Digest"); got != "" && got != sha256Digest(b) {
				c.failf("%v: Docker-Content-Digest %s, want %s", a, got, sha256Digest(b))
			}
		}},
		{post, "the digest may come without percent-encoding", Must, func(c *check) {
			b := c.random(30)
			location, _ := c.startUpload(c.repo("a"), nil)
			separator := "?"
			if strings.Contains(location, "?") {
				separator = "&"
			}
			c.want(c.do(http.MethodPut, location+separator+"digest="+sha256Digest(b), b, octets), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(c.repo("a"), sha256Digest(b)), http.StatusOK), b)
		}},
		{post, "the body may come without its length", Must, func(c *check) {
			b := c.random(200000)
			location, _ := c.startUpload(c.repo("a"), nil)
			c.want(c.do(http.MethodPut, withQuery(location, "digest", sha256Digest(b)), b, octets, withoutLength), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(c.repo("a"), sha256Digest(b)), http.StatusOK), b)
		}},
		{post, "the client may wait for 100 Continue", Must, func(c *check) {
			b := c.random(200000)
			location, _ := c.startUpload(c.repo("a"), nil)
			c.want(c.do(http.MethodPut, withQuery(location, "digest", sha256Digest(b)), b, octets, withHeader("Expect", "100-continue")), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(c.repo("a"), sha256Digest(b)), http.StatusOK), b)
		}},
		{post, "a blob of 2 MiB goes in one PUT", Must, func(c *check) {
			b := c.random(2 << 20)
			d := c.pushBlob(c.repo("a"), b).Digest.String()
			c.wantBody(c.want(c.getBlob(c.repo("a"), d), http.StatusOK), b)
		}},
		// no section of its own: the digests of the image specification that registries "SHOULD" know
		{post, "a blob may be named by its SHA-512", Should, func(c *check) {
			b := c.random(3000)
			location, _ := c.startUpload(c.repo("a"), nil)
			a := c.want(c.do(http.MethodPut, withQuery(location, "digest", sha512Digest(b)), b, octets), http.StatusCreated)
			c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil), http.StatusOK), b)
			got := c.want(c.getBlob(c.repo("a"), sha512Digest(b)), http.StatusOK)
			c.wantBody(got, b)
			c.want(c.headBlob(c.repo("a"), sha512Digest(b)), http.StatusOK)
		}},
		{post, "a body that does not match the digest is 400 and leaves nothing", Should, func(c *check) {
			b := c.random(3000)
			d := c.missing()
			location, _ := c.startUpload(c.repo("a"), nil)
			c.want(c.do(http.MethodPut, withQuery(location, "digest", d), b, octets), http.StatusBadRequest)
			c.want(c.headBlob(c.repo("a"), d), http.StatusNotFound)
			c.want(c.headBlob(c.repo("a"), sha256Digest(b)), http.StatusNotFound)
		}},
		{post, "a body that does not match the digest is DIGEST_INVALID", Should, func(c *check) {
			location, _ := c.startUpload(c.repo("a"), nil)
			c.wantCode(c.do(http.MethodPut, withQuery(location, "digest", c.missing()), c.random(30), octets), "DIGEST_INVALID")
		}},
		{post, "a body one byte short is 400", Should, func(c *check) {
			b := c.random(3000)
			location, _ := c.startUpload(c.repo("a"), nil)
			c.want(c.do(http.MethodPut, withQuery(location, "digest", sha256Digest(b)), b[:len(b)-1], octets), http.StatusBadRequest)
			c.want(c.headBlob(c.repo("a"), sha256Digest(b)), http.StatusNotFound)
		}},
		{post, "the same blob can be pushed again", Must, func(c *check) {
			b := c.random(3000)
			c.pushBlob(c.repo("a"), b)
			c.pushBlob(c.repo("a"), b)
			c.wantBody(c.want(c.getBlob(c.repo("a"), sha256Digest(b)), http.StatusOK), b)
		}},
		// "Layer Upload De-duplication" among the use cases
		{post, "the same blob can be pushed by several clients at once", Must, func(c *check) {
			b := c.random(100000)
			c.atOnce(6, func(int) { c.pushBlob(c.repo("a"), b) })
			c.wantBody(c.want(c.getBlob(c.repo("a"), sha256Digest(b)), http.StatusOK), b)
		}},
		// imagetools opens every upload before it sends the first body
		{post, "many sessions may be open at once, and end in another order", Must, func(c *check) {
			var blobs [][]byte
			var locations []string
			for range 12 {
				blobs = append(blobs, c.random(2000))
				location, _ := c.startUpload(c.repo("a"), nil)
				locations = append(locations, location)
			}
			for i, b := range slices.Backward(blobs) {
				c.want(c.do(http.MethodPut, withQuery(locations[i], "digest", sha256Digest(b)), b, octets), http.StatusCreated)
			}
			for _, b := range blobs {
				c.wantBody(c.want(c.getBlob(c.repo("a"), sha256Digest(b)), http.StatusOK), b)
			}
		}},
		{post, "a digest that is none is 400", Should, func(c *check) {
			for _, d := range []string{"sha256:beef", "none", "sha256:" + strings.Repeat("g", 64)} {
				location, _ := c.startUpload(c.repo("a"), nil)
				c.want(c.do(http.MethodPut, withQuery(location, "digest", d), c.random(30), octets), http.StatusBadRequest)
			}
		}},
		{post, "a digest of an unknown algorithm is 400", Should, func(c *check) {
			location, _ := c.startUpload(c.repo("a"), nil)
			c.want(c.do(http.MethodPut, withQuery(location, "digest", "crc32:"+strings.Repeat("0", 64)), c.random(30), octets), http.StatusBadRequest)
		}},
		{post, "no digest is 400", Must, func(c *check) {
			location, _ := c.startUpload(c.repo("a"), nil)
			c.want(c.do(http.MethodPut, location, c.random(30), octets), http.StatusBadRequest)
		}},
		{single, "is 201 and the blob is there, or 202 and a session that takes it", May, func(c *check) {
			b := c.random(3000)
			c.postSingle(c.repo("a"), b)
			c.wantBody(c.want(c.getBlob(c.repo("a"), sha256Digest(b)), http.StatusOK), b)
		}},
		{single, "is 201 at once", May, func(c *check) {
			b := c.random(3000)
			target := withQuery(uploadsPath(c.repo("a")), "digest", sha256Digest(b))
			a := c.want(c.do(http.MethodPost, target, b, octets), http.StatusCreated)
			c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil), http.StatusOK), b)
		}},
		{single, "a 202 has stored nothing yet", Should, func(c *check) {
			b := c.random(3000)
			a := c.do(http.MethodPost, withQuery(uploadsPath(c.repo("a")), "digest", sha256Digest(b)), b, octets)
			if c.want(a, http.StatusCreated, http.StatusAccepted); a.status == http.StatusAccepted {
				c.want(c.headBlob(c.repo("a"), sha256Digest(b)), http.StatusNotFound)
			}
		}},
		{single, "a body that does not match the digest is never stored", Must, func(c *check) {
			b, d := c.random(3000), c.missing()
			a := c.do(http.MethodPost, withQuery(uploadsPath(c.repo("a")), "digest", d), b, octets)
			if c.want(a, http.StatusBadRequest, http.StatusAccepted); a.status == http.StatusAccepted {
				c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", d), b, octets), http.StatusBadRequest)
			}
			c.want(c.headBlob(c.repo("a"), d), http.StatusNotFound)
		}},
	}
}

// postSingle uploads by a single POST, and goes on with PUT as the specification says when the registry only opens a session.
func (c *check) postSingle(repo string, b []byte) {
	d := sha256Digest(b)
	a := c.do(http.MethodPost, uploadsPath(repo)+"?"+url.Values{"digest": {d}}.Encode(), b, octets)
	if c.want(a, http.StatusCreated, http.StatusAccepted); a.status == http.StatusAccepted {
		c.want(c.do(http.MethodPut, withQuery(c.location(a), "digest", d), b, octets), http.StatusCreated)
	}
}
