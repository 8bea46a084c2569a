package conformance

import (
	"net/http"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func apiCases() []testCase {
	const (
		support   = "API/Determining Support"
		endpoints = "API/Endpoints"
		codes     = "API/Error Codes"
	)
	all := []testCase{
		{support, "GET of its base is 200", Must, func(c *check) {
			c.want(c.do(http.MethodGet, "/v2/", nil), http.StatusOK)
		}},
		{endpoints, "an upload session that never was is 404", Must, func(c *check) {
			location := c.base + uploadsPath(c.repo("a")) + "00000000-0000-4000-8000-000000000000"
			c.pushBlob(c.repo("a"), c.random(10))
			b := c.random(10)
			for _, a := range []*answer{
				c.do(http.MethodGet, location, nil),
				c.do(http.MethodPatch, location, b, octets),
				c.do(http.MethodPut, withQuery(location, "digest", sha256Digest(b)), b, octets),
			} {
				c.want(a, http.StatusNotFound)
			}
		}},
		{endpoints, "an upload session that never was is a client error", Must, func(c *check) {
			location := c.base + uploadsPath(c.repo("a")) + "00000000-0000-4000-8000-000000000000"
			c.pushBlob(c.repo("a"), c.random(10))
			b := c.random(10)
			for _, a := range []*answer{
				c.do(http.MethodGet, location, nil),
				c.do(http.MethodPatch, location, b, octets),
				c.do(http.MethodPut, withQuery(location, "digest", sha256Digest(b)), b, octets),
				c.do(http.MethodDelete, location, nil),
			} {
				c.want(a, http.StatusNotFound, http.StatusBadRequest)
			}
			c.want(c.headBlob(c.repo("a"), sha256Digest(b)), http.StatusNotFound)
		}},
		{endpoints, "an upload session belongs to its repository", Must, func(c *check) {
			location, _ := c.startUpload(c.repo("a"), nil)
			b := c.random(10)
			moved := strings.Replace(location, c.repo("a"), c.repo("b"), 1)
			c.want(c.do(http.MethodPut, withQuery(moved, "digest", sha256Digest(b)), b, octets), http.StatusNotFound, http.StatusBadRequest)
			c.want(c.headBlob(c.repo("b"), sha256Digest(b)), http.StatusNotFound)
		}},
		{endpoints, "a path that the specification does not have is 404", Must, func(c *check) {
			for _, path := range []string{"/v2/" + c.repo("a") + "/unknown", "/v2/" + c.repo("a") + "/tags/other", "/v2/manifests", "/v2/" + c.repo("a")} {
				c.want(c.do(http.MethodGet, path, nil), http.StatusNotFound)
			}
		}},
		{endpoints, "a method that the specification does not have is 404 or 405", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			for _, a := range []*answer{
				c.do(http.MethodPost, manifestPath(c.repo("a"), "tag"), d.bytes, withHeader("Content-Type", v1.MediaTypeImageManifest)),
				c.do(http.MethodPut, tagsPath(c.repo("a")), nil),
				c.do(http.MethodPatch, blobPath(c.repo("a"), c.missing()), nil),
			} {
				c.want(a, http.StatusNotFound, http.StatusMethodNotAllowed)
			}
		}},
	}
	for _, e := range []struct {
		code, what string
		do         func(c *check) *answer
	}{
		{"BLOB_UNKNOWN", "GET of a blob that is not there", func(c *check) *answer {
			c.pushBlob(c.repo("a"), c.random(10))
			return c.getBlob(c.repo("a"), c.missing())
		}},
		{"MANIFEST_UNKNOWN", "GET of a tag that is not there", func(c *check) *answer {
			c.pushImage(c.repo("a"), nil)
			return c.getManifest(c.repo("a"), "other")
		}},
		{"MANIFEST_UNKNOWN", "GET of a digest that is not there", func(c *check) *answer {
			c.pushImage(c.repo("a"), nil)
			return c.getManifest(c.repo("a"), c.missing())
		}},
		{"BLOB_UPLOAD_UNKNOWN", "PUT to a session that never was", func(c *check) *answer {
			b := c.random(10)
			return c.do(http.MethodPut, withQuery(uploadsPath(c.repo("a"))+"00000000-0000-4000-8000-000000000000", "digest", sha256Digest(b)), b, octets)
		}},
		{"NAME_UNKNOWN", "tags of a repository that does not exist", func(c *check) *answer {
			return c.do(http.MethodGet, tagsPath(c.repo("never")), nil)
		}},
		{"NAME_INVALID", "POST of an upload under a name outside the grammar", func(c *check) *answer {
			return c.do(http.MethodPost, uploadsPath(c.prefix+"/Upper"), nil)
		}},
		{"DIGEST_INVALID", "PUT of a manifest under a digest that is none", func(c *check) *answer {
			return c.putManifest(c.repo("a"), "sha256:baddigeststring", c.image(c.repo("a"), nil))
		}},
		{"DIGEST_INVALID", "PUT of a blob under a digest that is none", func(c *check) *answer {
			location, _ := c.startUpload(c.repo("a"), nil)
			return c.do(http.MethodPut, withQuery(location, "digest", "sha256:beef"), c.random(10), octets)
		}},
	} {
		all = append(all,
			testCase{codes, e.what + " is " + e.code, Should, func(c *check) { c.wantCode(e.do(c), e.code) }},
			testCase{codes, e.what + " (" + e.code + ") names no code that the specification lacks", Must, func(c *check) {
				a := e.do(c)
				for _, code := range c.codes(a) {
					if !slices.Contains(errorCodes(), code) {
						c.failf("%v: %s is not a code of the specification", a, code)
					}
				}
			}},
		)
	}
	return all
}
