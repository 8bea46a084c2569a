package conformance

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// referrers reads the whole list, page by page, and the filters that were applied to its first page.
func (c *check) referrers(repo, of, artifactType string) (list []v1.Descriptor, filters string) {
	target := referrersPath(repo, of)
	if artifactType != "" {
		target += "?" + url.Values{"artifactType": {artifactType}}.Encode()
	}
	for pages := 0; target != ""; pages++ {
		if pages > 100 {
			c.failf("%s: the pages do not end", target)
		}
		a := c.want(c.do(http.MethodGet, target, nil), http.StatusOK)
		c.wantHeader(a, "Content-Type", v1.MediaTypeImageIndex)
		var i v1.Index
		if err := json.Unmarshal(a.body, &i); err != nil {
			c.failf("%v: not an index: %v", a, err)
		}
		if i.SchemaVersion != 2 || i.MediaType != v1.MediaTypeImageIndex || !strings.Contains(string(a.body), `"manifests"`) {
			c.failf("%v: not an index with schemaVersion 2, mediaType and manifests", a)
		}
		if pages == 0 {
			filters = a.header.Get("OCI-Filters-Applied")
		}
		list = append(list, i.Manifests...)
		target = c.next(a)
	}
	return list, filters
}

// wantReferrers ends the case unless the list has exactly these documents, with the artifact types and annotations given.
func (c *check) wantReferrers(list []v1.Descriptor, want ...v1.Descriptor) {
	order := func(a, b v1.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) }
	list, want = slices.Clone(list), slices.Clone(want)
	slices.SortFunc(list, order)
	slices.SortFunc(want, order)
	if !slices.EqualFunc(list, want, func(a, b v1.Descriptor) bool {
		return a.MediaType == b.MediaType && a.Digest == b.Digest && a.Size == b.Size && a.ArtifactType == b.ArtifactType && maps.Equal(a.Annotations, b.Annotations)
	}) {
		c.failf("the referrers are %s, want %s", c.marshal(list), c.marshal(want))
	}
}

// entry is the descriptor under which a referrer has to be listed.
func entry(d document, artifactType string, annotations map[string]string) v1.Descriptor {
	e := d.descriptor()
	e.ArtifactType, e.Annotations = artifactType, annotations
	return e
}

func referrerCases() []testCase {
	const section = "Content Discovery/Listing Referrers"
	const sbom, note = "application/vnd.example.sbom.v1+json", "application/vnd.example.note"
	return []testCase{
		{section, "an image without referrers has an empty list", Must, func(c *check) {
			d := c.pushImage(c.repo("a"), nil)
			list, _ := c.referrers(c.repo("a"), d.digest, "")
			c.wantReferrers(list)
		}},
		{section, "a digest that is not there has an empty list", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil)
			list, _ := c.referrers(c.repo("a"), c.missing(), "")
			c.wantReferrers(list)
		}},
		{section, "a digest that is none is 400", Must, func(c *check) {
			c.pushImage(c.repo("a"), nil)
			for _, d := range []string{"none", "sha256:beef", "sha256:" + strings.Repeat("g", 64)} {
				c.want(c.do(http.MethodGet, referrersPath(c.repo("a"), d), nil), http.StatusBadRequest)
			}
		}},
		{section, "lists an artifact by its artifactType, with its annotations", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			notes := map[string]string{"org.example.one": "1 <&> é", "org.example.two": ""}
			d, _ := c.artifact(c.repo("a"), sbom, subject, notes)
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, entry(d, sbom, notes))
		}},
		{section, "lists an image without artifactType by the type of its config", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d := c.pushImage(c.repo("a"), func(m *v1.Manifest) { m.Subject, m.Config.MediaType = &subject, note })
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, entry(d, note, nil))
		}},
		{section, "lists an index by its artifactType", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			notes := map[string]string{"org.example.one": "1"}
			d := c.index(c.repo("a"), func(i *v1.Index) { i.Subject, i.ArtifactType, i.Annotations = &subject, sbom, notes })
			c.want(c.putManifest(c.repo("a"), d.digest, d), http.StatusCreated)
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, entry(d, sbom, notes))
		}},
		{section, "lists an index without artifactType without one", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d := c.index(c.repo("a"), func(i *v1.Index) { i.Subject = &subject })
			c.want(c.putManifest(c.repo("a"), d.digest, d), http.StatusCreated)
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, entry(d, "", nil))
		}},
		{section, "lists what was pushed by tag", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d := c.image(c.repo("a"), func(m *v1.Manifest) { m.Subject, m.ArtifactType = &subject, note })
			c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, entry(d, note, nil))
		}},
		{section, "lists what was pushed twice once", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d := c.image(c.repo("a"), func(m *v1.Manifest) { m.Subject, m.ArtifactType = &subject, note })
			for _, ref := range []string{d.digest, "tag", d.digest, "other"} {
				c.want(c.putManifest(c.repo("a"), ref, d), http.StatusCreated)
			}
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, entry(d, note, nil))
		}},
		{section, "lists what was pushed before its subject", Must, func(c *check) {
			subject := c.image(c.repo("a"), nil)
			d, _ := c.artifact(c.repo("a"), note, subject.descriptor(), nil)
			list, _ := c.referrers(c.repo("a"), subject.digest, "")
			c.wantReferrers(list, entry(d, note, nil))
			c.want(c.putManifest(c.repo("a"), "tag", subject), http.StatusCreated)
			list, _ = c.referrers(c.repo("a"), subject.digest, "")
			c.wantReferrers(list, entry(d, note, nil))
		}},
		{section, "lists the referrers of an index", Must, func(c *check) {
			subject := c.index(c.repo("a"), nil)
			c.want(c.putManifest(c.repo("a"), "tag", subject), http.StatusCreated)
			d, _ := c.artifact(c.repo("a"), note, subject.descriptor(), nil)
			list, _ := c.referrers(c.repo("a"), subject.digest, "")
			c.wantReferrers(list, entry(d, note, nil))
		}},
		{section, "lists only the referrers of this digest in this repository", Must, func(c *check) {
			one, two := c.pushImage(c.repo("a"), nil).descriptor(), c.pushImage(c.repo("a"), nil).descriptor()
			d, _ := c.artifact(c.repo("a"), note, one, nil)
			c.artifact(c.repo("a"), note, two, nil)
			c.artifact(c.repo("b"), note, one, nil)
			list, _ := c.referrers(c.repo("a"), one.Digest.String(), "")
			c.wantReferrers(list, entry(d, note, nil))
		}},
		{section, "pages, if there are, give every referrer once", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			var want []v1.Descriptor
			for i := range 30 {
				notes := map[string]string{"org.example.number": strconv.Itoa(i), "org.example.padding": strings.Repeat("x", 300)}
				d, _ := c.artifact(c.repo("a"), note, subject, notes)
				want = append(want, entry(d, note, notes))
			}
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, want...)
		}},
		{section, "a filter is applied and named in OCI-Filters-Applied", Should, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d, _ := c.artifact(c.repo("a"), sbom, subject, nil)
			c.artifact(c.repo("a"), note, subject, nil)
			list, filters := c.referrers(c.repo("a"), subject.Digest.String(), sbom)
			c.wantReferrers(list, entry(d, sbom, nil))
			if filters != "artifactType" {
				c.failf("OCI-Filters-Applied is %q, want \"artifactType\"", filters)
			}
		}},
		{section, "a list is filtered exactly when OCI-Filters-Applied says so", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d, _ := c.artifact(c.repo("a"), sbom, subject, nil)
			other, _ := c.artifact(c.repo("a"), note, subject, nil)
			list, filters := c.referrers(c.repo("a"), subject.Digest.String(), sbom)
			if filters == "artifactType" {
				c.wantReferrers(list, entry(d, sbom, nil))
			} else {
				c.wantReferrers(list, entry(d, sbom, nil), entry(other, note, nil))
			}
			if _, filters := c.referrers(c.repo("a"), subject.Digest.String(), ""); filters != "" {
				c.failf("OCI-Filters-Applied is %q, and no filter was asked for", filters)
			}
		}},
		{section, "a filter that matches nothing gives an empty list", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			c.artifact(c.repo("a"), note, subject, nil)
			if list, filters := c.referrers(c.repo("a"), subject.Digest.String(), sbom); filters != "" {
				c.wantReferrers(list)
			}
		}},
		{section, "a filter also sees the type of a config", Should, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			c.artifact(c.repo("a"), note, subject, nil)
			d := c.pushImage(c.repo("a"), func(m *v1.Manifest) { m.Subject, m.Config.MediaType = &subject, sbom })
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), sbom)
			c.wantReferrers(list, entry(d, sbom, nil))
		}},
		{section, "a referrer that was deleted is not listed", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d, _ := c.artifact(c.repo("a"), note, subject, nil)
			kept, _ := c.artifact(c.repo("a"), sbom, subject, nil)
			c.want(c.do(http.MethodDelete, manifestPath(c.repo("a"), d.digest), nil), http.StatusAccepted)
			list, _ := c.referrers(c.repo("a"), subject.Digest.String(), "")
			c.wantReferrers(list, entry(kept, sbom, nil))
		}},
	}
}

// fallbackTag is the tag of the section "Referrers Tag Schema" under which clients keep a list of referrers.
func fallbackTag(d string) string {
	algorithm, encoded, _ := strings.Cut(d, ":")
	return algorithm + "-" + encoded[:min(64, len(encoded))]
}

func fallbackCases() []testCase {
	const section = "Backwards Compatibility/Unavailable Referrers API"
	const note = "application/vnd.example.note"
	list := func(c *check, entries ...v1.Descriptor) document {
		return newDocument(c.marshal(v1.Index{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: append([]v1.Descriptor{}, entries...),
		}), v1.MediaTypeImageIndex)
	}
	// attach does what a client has to do, by "Pushing Manifests with Subject"
	attach := func(c *check, repo string, subject v1.Descriptor) v1.Descriptor {
		d, a := c.artifact(repo, note, subject, nil)
		e := entry(d, note, nil)
		if a.header.Get("OCI-Subject") != "" {
			return e
		}
		tag := fallbackTag(subject.Digest.String())
		var now v1.Index
		if got := c.want(c.getManifest(repo, tag), http.StatusOK, http.StatusNotFound); got.status == http.StatusOK {
			if err := json.Unmarshal(got.body, &now); err != nil {
				c.failf("%v: %v", got, err)
			}
		}
		c.want(c.putManifest(repo, tag, list(c, append(now.Manifests, e)...)), http.StatusCreated)
		return e
	}
	// discover does what a client has to do, by "Listing Referrers"
	discover := func(c *check, repo, of string) []v1.Descriptor {
		if a := c.do(http.MethodGet, referrersPath(repo, of), nil); a.status != http.StatusNotFound {
			all, _ := c.referrers(repo, of, "")
			return all
		}
		a := c.want(c.getManifest(repo, fallbackTag(of)), http.StatusOK)
		var now v1.Index
		if err := json.Unmarshal(a.body, &now); err != nil {
			c.failf("%v: %v", a, err)
		}
		return now.Manifests
	}
	return []testCase{
		{section, "a client that attaches as the specification says finds it again", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			one := attach(c, c.repo("a"), subject)
			two := attach(c, c.repo("a"), subject)
			c.wantReferrers(discover(c, c.repo("a"), subject.Digest.String()), one, two)
		}},
		{section, "a client that attaches before it pushes the subject finds it again", Must, func(c *check) {
			subject := c.image(c.repo("a"), nil)
			one := attach(c, c.repo("a"), subject.descriptor())
			c.want(c.putManifest(c.repo("a"), "tag", subject), http.StatusCreated)
			c.wantReferrers(discover(c, c.repo("a"), subject.digest), one)
		}},
		{section, "the API is 404, or every push of a subject is answered with OCI-Subject", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			_, a := c.artifact(c.repo("a"), note, subject, nil)
			status := c.do(http.MethodGet, referrersPath(c.repo("a"), subject.Digest.String()), nil).status
			if said := a.header.Get("OCI-Subject") != ""; said != (status == http.StatusOK) {
				c.failf("OCI-Subject was sent: %t; the API answers %d", said, status)
			}
		}},
		{section + "/Referrers Tag Schema", "a list of referrers under its tag is kept as it is", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil).descriptor()
			d, _ := c.artifact(c.repo("a"), note, subject, nil)
			tag := fallbackTag(subject.Digest.String())
			for _, l := range []document{list(c, entry(d, note, nil)), list(c)} {
				c.want(c.putManifest(c.repo("a"), tag, l), http.StatusCreated)
				c.wantDocument(c.repo("a"), tag, l)
			}
		}},
		{section + "/Referrers Tag Schema", "the tag for a SHA-512 can be used", Must, func(c *check) {
			l := list(c)
			c.want(c.putManifest(c.repo("a"), fallbackTag(sha512Digest(c.random(10))), l), http.StatusCreated)
			c.wantDocument(c.repo("a"), l.digest, l)
		}},
		{section + "/Referrers Tag Schema", "a signature under a tag derived from a digest is kept as it is", Must, func(c *check) {
			subject := c.pushImage(c.repo("a"), nil)
			d := c.pushImage(c.repo("a"), func(m *v1.Manifest) {
				m.Layers[0].MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
			}, fallbackTag(subject.digest)+".sig")
			c.wantDocument(c.repo("a"), fallbackTag(subject.digest)+".sig", d)
		}},
		{section, "a subject that nobody can parse is not a reason to fail", May, func(c *check) {
			d := c.image(c.repo("a"), func(m *v1.Manifest) {
				m.Subject = &v1.Descriptor{MediaType: mediaTypeUnknown, Digest: digest.Digest(sha512Digest(c.random(10))), Size: 10}
			})
			c.want(c.putManifest(c.repo("a"), "tag", d), http.StatusCreated)
			c.wantDocument(c.repo("a"), "tag", d)
		}},
	}
}
