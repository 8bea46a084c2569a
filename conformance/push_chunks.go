package conformance

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// minimum reads OCI-Chunk-Min-Length, the shortest chunk (but for the last) that the registry wants.
func (c *check) minimum(a *answer) int {
	h := a.header.Get("OCI-Chunk-Min-Length")
	if h == "" {
		return 0
	}
	n, err := strconv.Atoi(h)
	if err != nil || n < 0 {
		c.failf("%v: OCI-Chunk-Min-Length %q is not a size", a, h)
	}
	return n
}

// upload is a session that is being filled.
type upload struct {
	c        *check
	repo     string
	location string
	minimum  int
	sent     int
}

func (c *check) open(repo string) *upload {
	location, minimum := c.startUpload(repo, nil)
	return &upload{c, repo, location, minimum, 0}
}

// chunk sends the next bytes with their range and checks the answer.
func (u *upload) chunk(b []byte) {
	a := u.c.want(u.sendAt(u.sent, b), http.StatusAccepted)
	u.sent += len(b)
	u.c.wantHeader(a, "Range", fmt.Sprintf("0-%d", u.sent-1))
	u.location = u.c.location(a)
}

// sendAt sends bytes as if they belonged at offset.
func (u *upload) sendAt(offset int, b []byte) *answer {
	return u.c.do(http.MethodPatch, u.location, b, octets, contentRange(offset, b))
}

func contentRange(offset int, b []byte) option {
	return withHeader("Content-Range", fmt.Sprintf("%d-%d", offset, offset+len(b)-1))
}

// finish closes the session; rest may be the last chunk.
func (u *upload) finish(digest string, rest []byte) *answer {
	options := []option{octets}
	if len(rest) > 0 {
		options = append(options, contentRange(u.sent, rest))
	}
	return u.c.do(http.MethodPut, withQuery(u.location, "digest", digest), rest, options...)
}

// status asks for the state of the session, goes on from the location it names, and returns how many bytes it holds.
func (u *upload) status() int {
	a := u.c.want(u.c.do(http.MethodGet, u.location, nil), http.StatusNoContent)
	u.location = u.c.location(a)
	m := regexp.MustCompile(`^0-(-?[0-9]+)$`).FindStringSubmatch(a.header.Get("Range"))
	if m == nil {
		u.c.failf("%v: Range %q is not 0-<end>", a, a.header.Get("Range"))
	}
	end, err := strconv.Atoi(m[1])
	if err != nil {
		u.c.failf("%v: Range %q: %v", a, m[0], err)
	}
	return end + 1
}

// parts cuts b into chunks of these sizes (the last takes the rest), none shorter than the registry wants.
func (u *upload) parts(b []byte, sizes ...int) [][]byte {
	var parts [][]byte
	for _, size := range sizes {
		if size = max(size, u.minimum); size >= len(b) {
			break
		}
		parts, b = append(parts, b[:size]), b[size:]
	}
	return append(parts, b)
}

func chunkCases() []testCase {
	const section = "Push/Pushing a blob in chunks"
	all := []testCase{
		{section, "a blob may come as one stream without length and range", Must, func(c *check) {
			b := c.random(300000)
			u := c.open(c.repo("a"))
			a := c.want(c.do(http.MethodPatch, u.location, b, octets, withoutLength), http.StatusAccepted)
			u.location = c.location(a)
			c.wantHeader(a, "Range", fmt.Sprintf("0-%d", len(b)-1))
			c.want(u.finish(sha256Digest(b), nil), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(u.repo, sha256Digest(b)), http.StatusOK), b)
		}},
		// Docker 20.10 names no content type
		{section, "a stream needs no Content-Type", Must, func(c *check) {
			b := c.random(3000)
			u := c.open(c.repo("a"))
			u.location = c.location(c.want(c.do(http.MethodPatch, u.location, b, withoutLength), http.StatusAccepted))
			c.want(c.do(http.MethodPut, withQuery(u.location, "digest", sha256Digest(b)), nil), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(u.repo, sha256Digest(b)), http.StatusOK), b)
		}},
		{section, "the closing PUT answers 201 and a URL from which the blob can be pulled", Must, func(c *check) {
			b := c.random(3000)
			u := c.open(c.repo("a"))
			u.chunk(b)
			a := c.want(u.finish(sha256Digest(b), nil), http.StatusCreated)
			c.wantBody(c.want(c.do(http.MethodGet, c.location(a), nil), http.StatusOK), b)
		}},
		{section, "a blob in chunks that does not match the digest is 400 and leaves nothing", Should, func(c *check) {
			b, d := c.random(3000), c.missing()
			u := c.open(c.repo("a"))
			for _, p := range u.parts(b, 1000, 1000) {
				u.chunk(p)
			}
			c.want(u.finish(d, nil), http.StatusBadRequest)
			c.want(c.headBlob(u.repo, d), http.StatusNotFound)
			c.want(c.headBlob(u.repo, sha256Digest(b)), http.StatusNotFound)
		}},
		{section, "a blob in chunks may be named by its SHA-512", Should, func(c *check) {
			b := c.random(3000)
			u := c.open(c.repo("a"))
			for _, p := range u.parts(b, 1000, 1000) {
				u.chunk(p)
			}
			c.want(u.finish(sha512Digest(b), nil), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(u.repo, sha512Digest(b)), http.StatusOK), b)
		}},
		{section, "sessions side by side keep their bytes apart", Must, func(c *check) {
			one, two := c.random(3000), c.random(3000)
			u, v := c.open(c.repo("a")), c.open(c.repo("a"))
			for i := range 3 {
				if i < len(u.parts(one, 1000, 1000)) {
					u.chunk(u.parts(one, 1000, 1000)[i])
					v.chunk(v.parts(two, 1000, 1000)[i])
				}
			}
			c.want(v.finish(sha256Digest(two), nil), http.StatusCreated)
			c.want(u.finish(sha256Digest(one), nil), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(u.repo, sha256Digest(one)), http.StatusOK), one)
			c.wantBody(c.want(c.getBlob(u.repo, sha256Digest(two)), http.StatusOK), two)
		}},
	}
	list := func(sizes []int) string { return strings.ReplaceAll(strings.Trim(fmt.Sprint(sizes), "[]"), " ", ", ") }
	// short first chunks are what a proxy that looks at beginnings has to get right
	for _, sizes := range [][]int{{1}, {1, 1, 1}, {10, 20}, {33, 33}, {63, 1}, {64, 64}, {1000, 1, 1000}, {100000, 100000}} {
		all = append(all, testCase{section, "chunks of " + list(sizes) + " bytes and the rest add up", Must, func(c *check) {
			u := c.open(c.repo("a"))
			total := 40
			for _, s := range sizes {
				total += max(s, u.minimum)
			}
			b := c.random(total)
			for _, p := range u.parts(b, sizes...) {
				u.chunk(p)
			}
			c.want(u.finish(sha256Digest(b), nil), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(u.repo, sha256Digest(b)), http.StatusOK), b)
		}}, testCase{section, "after chunks of " + list(sizes) + " bytes the rest may come with the PUT", Must, func(c *check) {
			u := c.open(c.repo("a"))
			total := 40
			for _, s := range sizes {
				total += max(s, u.minimum)
			}
			b := c.random(total)
			parts := u.parts(b, sizes...)
			for _, p := range parts[:len(parts)-1] {
				u.chunk(p)
			}
			c.want(u.finish(sha256Digest(b), parts[len(parts)-1]), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(u.repo, sha256Digest(b)), http.StatusOK), b)
		}})
	}
	return all
}

func outOfOrderCases() []testCase {
	const section = "Push/Pushing a blob in chunks"
	var all []testCase
	// the same for a blob whose chunks are long, and for one that a peek at the first bytes sees whole
	for _, size := range []int{10, 1000} {
		blob := func(c *check, u *upload) [][]byte {
			n := max(size, u.minimum)
			return u.parts(c.random(3*n), n, n)
		}
		whole := func(parts [][]byte) []byte {
			return append(append(append([]byte{}, parts[0]...), parts[1]...), parts[2]...)
		}
		add := func(name string, run func(c *check, u *upload, parts [][]byte, d string)) {
			all = append(all, testCase{section, fmt.Sprintf("%s (chunks of %d bytes)", name, size), Must, func(c *check) {
				u := c.open(c.repo("a"))
				parts := blob(c, u)
				run(c, u, parts, sha256Digest(whole(parts)))
			}})
		}
		// end: the session goes on and the blob is whole
		end := func(c *check, u *upload, rest [][]byte, d string) {
			for _, p := range rest {
				u.chunk(p)
			}
			c.want(u.finish(d, nil), http.StatusCreated)
			c.want(c.getBlob(u.repo, d), http.StatusOK)
		}
		add("a first chunk that does not begin at 0 is 416", func(c *check, u *upload, parts [][]byte, d string) {
			c.want(u.sendAt(len(parts[0]), parts[1]), http.StatusRequestedRangeNotSatisfiable)
		})
		add("after a first chunk that was 416 the session goes on", func(c *check, u *upload, parts [][]byte, d string) {
			c.want(u.sendAt(len(parts[0]), parts[1]), http.StatusRequestedRangeNotSatisfiable)
			u.status()
			end(c, u, parts, d)
		})
		add("a gap is 416", func(c *check, u *upload, parts [][]byte, d string) {
			u.chunk(parts[0])
			c.want(u.sendAt(len(parts[0])+len(parts[1]), parts[2]), http.StatusRequestedRangeNotSatisfiable)
		})
		add("out of order chunk is 416", func(c *check, u *upload, parts [][]byte, d string) {
			u.chunk(parts[0])
			u.chunk(parts[1])
			c.want(u.sendAt(len(parts[0]), parts[1]), http.StatusRequestedRangeNotSatisfiable)
		})
		add("a chunk sent again to the URL before is 416", func(c *check, u *upload, parts [][]byte, d string) {
			before := *u
			u.chunk(parts[0])
			c.want(before.sendAt(0, parts[0]), http.StatusRequestedRangeNotSatisfiable)
		})
		add("after a 416 a GET names the offset and the session goes on", func(c *check, u *upload, parts [][]byte, d string) {
			u.chunk(parts[0])
			c.want(u.sendAt(0, parts[0]), http.StatusRequestedRangeNotSatisfiable)
			if at := u.status(); at != len(parts[0]) {
				c.failf("the session holds %d bytes, its status says %d", len(parts[0]), at)
			}
			end(c, u, parts[1:], d)
		})
		add("the status is also right at the URL of the POST", func(c *check, u *upload, parts [][]byte, d string) {
			first := *u
			u.chunk(parts[0])
			if at := first.status(); at != len(parts[0]) {
				c.failf("the session holds %d bytes, its status at its first URL says %d", len(parts[0]), at)
			}
			first.sent = len(parts[0])
			end(c, &first, parts[1:], d)
		})
		add("the status is right after every chunk", func(c *check, u *upload, parts [][]byte, d string) {
			for _, p := range parts {
				u.chunk(p)
				if at := u.status(); at != u.sent {
					c.failf("the session holds %d bytes, its status says %d", u.sent, at)
				}
			}
			end(c, u, nil, d)
		})
		add("a last chunk out of order in the PUT is 416, and the session goes on", func(c *check, u *upload, parts [][]byte, d string) {
			u.chunk(parts[0])
			ahead := *u
			ahead.sent += len(parts[1])
			c.want(ahead.finish(d, parts[2]), http.StatusRequestedRangeNotSatisfiable)
			c.want(c.headBlob(u.repo, d), http.StatusNotFound)
			if at := u.status(); at != len(parts[0]) {
				c.failf("the session holds %d bytes, its status says %d", len(parts[0]), at)
			}
			end(c, u, parts[1:], d)
		})
		add("a PUT of only the last chunk, on a session that has nothing, is 416", func(c *check, u *upload, parts [][]byte, d string) {
			ahead := *u
			ahead.sent = len(parts[0]) + len(parts[1])
			c.want(ahead.finish(d, parts[2]), http.StatusRequestedRangeNotSatisfiable)
			u.status()
			end(c, u, parts, d)
		})
	}
	return append(all,
		testCase{section, "the status of a new session is 204", Must, func(c *check) {
			u := c.open(c.repo("a"))
			// registries say 0-0 or 0--1 of nothing; the specification has no form for it
			if at := u.status(); at > 1 {
				c.failf("a new session says that it holds %d bytes", at)
			}
		}},
		testCase{section, "the status of a session that has ended is 404", Must, func(c *check) {
			u := c.open(c.repo("a"))
			b := c.random(100)
			u.chunk(b)
			c.want(u.finish(sha256Digest(b), nil), http.StatusCreated)
			c.want(c.do(http.MethodGet, u.location, nil), http.StatusNotFound)
		}},
		testCase{section, "a session that has ended takes nothing more", Must, func(c *check) {
			u := c.open(c.repo("a"))
			b := c.random(100)
			u.chunk(b)
			c.want(u.finish(sha256Digest(b), nil), http.StatusCreated)
			c.want(u.sendAt(100, b), http.StatusBadRequest, http.StatusNotFound, http.StatusRequestedRangeNotSatisfiable)
		}},
	)
}

func cancelCases() []testCase {
	// specified after 1.1.1; distribution and its clients have always had it
	const section = "Push/Cancel a blob upload"
	gone := func(c *check, u *upload, b []byte) {
		c.want(u.finish(sha256Digest(b), b), http.StatusNotFound, http.StatusBadRequest)
		c.want(c.headBlob(u.repo, sha256Digest(b)), http.StatusNotFound)
	}
	return []testCase{
		{section, "DELETE of a new session is 204 and ends it", Should, func(c *check) {
			u := c.open(c.repo("a"))
			c.want(c.do(http.MethodDelete, u.location, nil), http.StatusNoContent)
			gone(c, u, c.random(100))
		}},
		{section, "DELETE of a session that holds bytes is 204 and ends it", Should, func(c *check) {
			u := c.open(c.repo("a"))
			b := c.random(2000)
			u.chunk(b)
			c.want(c.do(http.MethodDelete, u.location, nil), http.StatusNoContent)
			c.want(u.finish(sha256Digest(b), nil), http.StatusNotFound, http.StatusBadRequest)
			c.want(c.headBlob(u.repo, sha256Digest(b)), http.StatusNotFound)
		}},
		{section, "DELETE of a session that holds a few bytes is 204 and ends it", Should, func(c *check) {
			u := c.open(c.repo("a"))
			b := []byte(`{"_type"`)
			u.chunk(u.parts(b)[0])
			c.want(c.do(http.MethodDelete, u.location, nil), http.StatusNoContent)
			c.want(u.finish(sha256Digest(b), nil), http.StatusNotFound, http.StatusBadRequest)
			c.want(c.headBlob(u.repo, sha256Digest(b)), http.StatusNotFound)
		}},
		{section, "the status of a cancelled session is 404", Must, func(c *check) {
			u := c.open(c.repo("a"))
			c.want(c.do(http.MethodDelete, u.location, nil), http.StatusNoContent)
			c.want(c.do(http.MethodGet, u.location, nil), http.StatusNotFound)
		}},
		{section, "other sessions do not notice", Must, func(c *check) {
			u, v := c.open(c.repo("a")), c.open(c.repo("a"))
			b := c.random(2000)
			v.chunk(b)
			c.want(c.do(http.MethodDelete, u.location, nil), http.StatusNoContent)
			c.want(v.finish(sha256Digest(b), nil), http.StatusCreated)
			c.wantBody(c.want(c.getBlob(v.repo, sha256Digest(b)), http.StatusOK), b)
		}},
	}
}
