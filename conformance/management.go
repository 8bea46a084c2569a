package conformance

import (
	"net/http"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

func (c *check) deleteManifest(repo, ref string) *answer {
	return c.do(http.MethodDelete, manifestPath(repo, ref), nil)
}

func deleteCases() []testCase {
	const (
		tags      = "Content Management/Deleting tags"
		manifests = "Content Management/Deleting Manifests"
		blobs     = "Content Management/Deleting Blobs"
	)
	gone := func(c *check, repo, ref string) {
		c.want(c.getManifest(repo, ref), http.StatusNotFound)
		c.want(c.headManifest(repo, ref), http.StatusNotFound)
	}
	// refused is what a registry that does not delete has to say
	refused := func(c *check, a *answer) bool {
		c.want(a, http.StatusAccepted, http.StatusBadRequest, http.StatusMethodNotAllowed)
		return a.status != http.StatusAccepted
	}
	all := []testCase{
		{tags, "is 202, and the tag is gone", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil, "tag")
			c.want(c.deleteManifest(c.repo("a"), "tag"), http.StatusAccepted)
			gone(c, c.repo("a"), "tag")
		}},
		{tags, "is 202, or 400 or 405 and the tag stays", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			if refused(c, c.deleteManifest(c.repo("a"), "tag")) {
				c.wantDocument(c.repo("a"), "tag", d)
			}
		}},
		{tags, "a deleted tag is not listed", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil, "one", "two", "three")
			c.want(c.deleteManifest(c.repo("a"), "two"), http.StatusAccepted)
			list, _ := c.tags(tagsPath(c.repo("a")), c.repo("a"))
			if !slices.Equal(list.Tags, []string{"one", "three"}) {
				c.failf("tags are %q", list.Tags)
			}
		}},
		{tags, "other tags of the manifest, and the manifest, stay", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "one", "two")
			c.want(c.deleteManifest(c.repo("a"), "one"), http.StatusAccepted)
			c.wantDocument(c.repo("a"), "two", d)
			c.wantDocument(c.repo("a"), d.digest, d)
		}},
		{tags, "a tag that is not there is 404", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil, "tag")
			c.want(c.deleteManifest(c.repo("a"), "other"), http.StatusNotFound)
		}},
		{tags, "a tag of a repository that does not exist is 404", Must, func(c *check) {
			c.want(c.deleteManifest(c.repo("never"), "tag"), http.StatusNotFound)
		}},
		{tags, "a deleted tag can be pushed again", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "tag")
			c.want(c.deleteManifest(c.repo("a"), "tag"), http.StatusAccepted)
			c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
			c.wantDocument(c.repo("a"), "tag", d)
		}},
		{manifests, "is 202, and the digest and every tag of it are gone", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil, "one", "two")
			other := c.pushImage(c.repo("a"), nil, "three")
			c.want(c.deleteManifest(c.repo("a"), d.digest), http.StatusAccepted)
			for _, ref := range []string{d.digest, "one", "two"} {
				gone(c, c.repo("a"), ref)
			}
			c.wantDocument(c.repo("a"), "three", other)
		}},
		{manifests, "is 202, or 400 or 405 and the manifest stays", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil)
			if refused(c, c.deleteManifest(c.repo("a"), d.digest)) {
				c.wantDocument(c.repo("a"), d.digest, d)
			}
		}},
		{manifests, "a digest that is not there is 404", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil)
			c.want(c.deleteManifest(c.repo("a"), c.missing()), http.StatusNotFound)
		}},
		{manifests, "a digest of a repository that does not exist is 404", Must, func(c *check) {
			c.want(c.deleteManifest(c.repo("never"), c.missing()), http.StatusNotFound)
		}},
		{manifests, "an index may go and its images stay", Must, func(c *check) {
			first := c.pushImage(c.repo("a"), nil)
			d := c.index(c.repo("a"), func(i *v1.Index) { i.Manifests = append(i.Manifests, first.descriptor()) })
			c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
			c.want(c.deleteManifest(c.repo("a"), d.digest), http.StatusAccepted)
			gone(c, c.repo("a"), "tag")
			gone(c, c.repo("a"), d.digest)
			c.wantDocument(c.repo("a"), first.digest, first)
		}},
		{manifests, "a manifest of the same digest in another repository stays", Must, func(c *check) {
			same := func(repo string) document {
				config, layer := c.pushBlob(repo, []byte("{}")), c.pushBlob(repo, []byte("the same"))
				return c.pushImage(repo, func(m *v1.Manifest) { m.Config, m.Layers[0] = config, layer }, "tag")
			}
			one, two := same(c.repo("a")), same(c.repo("b"))
			c.want(c.deleteManifest(c.repo("a"), one.digest), http.StatusAccepted)
			c.wantDocument(c.repo("b"), "tag", two)
		}},
		{blobs, "is 202, or 400 or 405 and the blob stays", Must, func(c *check) {
			b := c.random(100)
			d := c.pushBlob(c.repo("a"), b).Digest.String()
			if refused(c, c.do(http.MethodDelete, blobPath(c.repo("a"), d), nil)) {
				c.wantBlob(c.repo("a"), d, b)
			}
		}},
		{blobs, "a blob that is not there is 404", Must, func(c *check) {
			c.pushBlob(c.repo("a"), c.random(100))
			c.want(c.do(http.MethodDelete, blobPath(c.repo("a"), c.missing()), nil), http.StatusNotFound)
		}},
		{blobs, "a blob of a repository that does not exist is 404", Must, func(c *check) {
			c.want(c.do(http.MethodDelete, blobPath(c.repo("never"), c.missing()), nil), http.StatusNotFound)
		}},
		{blobs, "the same blob of another repository stays", Must, func(c *check) {
			b := c.random(100)
			d := c.pushBlob(c.repo("a"), b).Digest.String()
			c.pushBlob(c.repo("b"), b)
			c.want(c.do(http.MethodDelete, blobPath(c.repo("a"), d), nil), http.StatusAccepted)
			c.want(c.headBlob(c.repo("a"), d), http.StatusNotFound)
			c.wantBlob(c.repo("b"), d, b)
		}},
	}
	for _, k := range kinds() {
		all = append(all,
			testCase{manifests, k.name + " is gone after 202", Must, func(c *check) {
				d := k.make(c, c.repo("a"))
				c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
				c.want(c.deleteManifest(c.repo("a"), d.digest), http.StatusAccepted)
				gone(c, c.repo("a"), d.digest)
				gone(c, c.repo("a"), "tag")
			}},
			testCase{manifests, k.name + " can be pushed again", Must, func(c *check) {
				d := k.make(c, c.repo("a"))
				c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
				c.want(c.deleteManifest(c.repo("a"), d.digest), http.StatusAccepted)
				c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
				c.wantDocument(c.repo("a"), "tag", d)
			}},
		)
	}
	return all
}
