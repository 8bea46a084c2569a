package ecrsim_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/ecrsim"
)

var linkPattern = regexp.MustCompile(`^<(http://[^>]*)>; rel="next"$`)

// pages follows Link and returns what field has on each page.
func pages[T any](r *rig, path, field string) [][]T {
	r.t.Helper()
	var all [][]T
	for path != "" {
		p := r.do("GET", path, nil)
		r.want(path, p, 200)
		var v map[string]json.RawMessage
		var part []T
		if err := json.Unmarshal([]byte(p.body), &v); err != nil {
			r.t.Fatal(err)
		}
		if err := json.Unmarshal(v[field], &part); err != nil {
			r.t.Fatalf("%v: %s", err, p.body)
		}
		all = append(all, part)
		path = ""
		if l := p.header.Get("Link"); l != "" {
			m := linkPattern.FindStringSubmatch(l)
			if m == nil {
				r.t.Fatalf("Link %s is not absolute", l)
			}
			path = m[1]
		}
	}
	return all
}

func TestTags(t *testing.T) {
	r := newRig(t)
	m := r.image("app", "tag000", "x")
	var want []string
	for i := range 205 {
		want = append(want, fmt.Sprintf("tag%03d", i))
		r.want("PUT", r.put("app", want[i], m), 201)
	}
	p := r.do("GET", "/v2/app/tags/list", nil)
	r.wantHeader("tags", p, "Content-Type", "text/plain; charset=utf-8")
	for _, c := range []struct {
		query string
		sizes []int
	}{{"", []int{100, 100, 5}}, {"?n=200", []int{200, 5}}, {"?n=1000", []int{205}}, {"?n=205", []int{205}}} {
		all := pages[string](r, "/v2/app/tags/list"+c.query, "tags")
		var sizes []int
		for _, part := range all {
			sizes = append(sizes, len(part))
		}
		if !slices.Equal(sizes, c.sizes) {
			t.Errorf("%s: pages of %v, want %v", c.query, sizes, c.sizes)
		}
		got := slices.Concat(all...)
		if slices.IsSorted(got) {
			t.Error("the order is lexical, which somebody could come to rely on")
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: %v", c.query, got)
		}
	}
	r.want("n=1001", r.do("GET", "/v2/app/tags/list?n=1001", nil), 405, errorBody("UNSUPPORTED",
		"Invalid parameter at 'maxResults' failed to satisfy constraint: 'Member must have value less than or equal to 1000'"))
	r.want("n=0", r.do("GET", "/v2/app/tags/list?n=0", nil), 405, "greater than or equal to 1")
	r.want("a cursor of one's own", r.do("GET", "/v2/app/tags/list?last=tag001", nil), 405, errorBody("UNSUPPORTED",
		"Invalid parameter at 'NextToken' failed to satisfy constraint: 'Invalid next token provided'"))
	r.want("a missing repository", r.do("GET", "/v2/none/tags/list", nil), 404, "NAME_UNKNOWN")
	r.create("empty")
	r.want("no tags", r.do("GET", "/v2/empty/tags/list", nil), 200, `{"name":"empty","tags":[]}`)
}

func TestCatalog(t *testing.T) {
	r := newRig(t)
	r.create("bb")
	r.create("cc")
	if got := slices.Concat(pages[string](r, "/v2/_catalog?n=2", "repositories")...); !slices.Equal(got, []string{"app", "bb", "cc"}) {
		t.Errorf("%v", got)
	}
	r.want("n=1001", r.do("GET", "/v2/_catalog?n=1001", nil), 405, "less than or equal to 1000")
}

func TestReferrers(t *testing.T) {
	r := newRig(t)
	subject := r.image("app", "1", "x")
	var all []string
	for i := range 5 {
		kind := fmt.Sprintf("application/kind%d", i%2)
		a := r.manifest("app", "{}", []string{fmt.Sprint("artifact ", i)}, func(m *v1.Manifest) {
			m.Config.MediaType, m.ArtifactType, m.Annotations = v1.MediaTypeEmptyJSON, kind, map[string]string{"n": fmt.Sprint(i)}
			m.Subject = &v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digestOf(subject), Size: int64(len(subject))}
		})
		p := r.put("app", sum(a), a)
		r.want("PUT", p, 201)
		r.wantHeader("PUT", p, "OCI-Subject", sum(subject))
		all = append(all, a)
	}
	path := "/v2/app/referrers/" + sum(subject)
	list := func(query string) (digests []string, pageCount int) {
		got := pages[v1.Descriptor](r, path+query, "manifests")
		for _, d := range slices.Concat(got...) {
			digests = append(digests, string(d.Digest))
			if d.ArtifactType == "" || d.Annotations["n"] == "" || d.MediaType != v1.MediaTypeImageManifest {
				t.Errorf("listed as %+v", d)
			}
		}
		return digests, len(got)
	}
	if got, n := list(""); len(got) != 5 || n != 1 {
		t.Errorf("%d in %d pages", len(got), n)
	}
	r.Update(func(s *ecrsim.Switches) { s.ReferrersPage = 2 })
	if got, n := list(""); len(got) != 5 || n != 3 {
		t.Errorf("%d in %d pages, want 5 in 3", len(got), n)
	}
	filter := "?artifactType=application/kind1"
	if got, _ := list(filter); len(got) != 2 {
		t.Errorf("%d of kind1", len(got))
	}
	r.wantHeader("filtered", r.do("GET", path+filter, nil), "OCI-Filters-Applied", "artifactType")
	r.Update(func(s *ecrsim.Switches) { s.NoFiltersApplied = true })
	p := r.do("GET", path+filter, nil)
	r.wantHeader("filtered without a word", p, "OCI-Filters-Applied", "")
	if got, _ := list(filter); len(got) != 2 {
		t.Errorf("%d of kind1", len(got))
	}
	r.Update(func(s *ecrsim.Switches) { s.IgnoreArtifactType = true })
	if got, _ := list(filter); len(got) != 5 {
		t.Errorf("%d without the filter", len(got))
	}
	r.want("of nothing", r.do("GET", "/v2/app/referrers/"+sum("nothing"), nil), 200, `"manifests":[]`)
	r.Update(func(s *ecrsim.Switches) { s.NoOCISubject = true })
	r.wantHeader("PUT", r.put("app", sum(all[0]), all[0]), "OCI-Subject", "")
	r.Update(func(s *ecrsim.Switches) { s.NoOCISubject, s.NoReferrers = false, true })
	r.wantHeader("PUT", r.put("app", sum(all[0]), all[0]), "OCI-Subject", "")
	p = r.do("GET", path, nil)
	r.want("no such API", p, 404, "404 page not found")
	if strings.Contains(p.body, "errors") {
		t.Error("is JSON")
	}
}

func TestDelete(t *testing.T) {
	r := newRig(t)
	m := r.image("app", "1", "x")
	r.want("PUT", r.put("app", "2", m), 201)
	x := index(m)
	r.want("PUT", r.put("app", "index", x), 201)
	at := func(ref string) string { return "/v2/app/manifests/" + ref }

	r.want("one of two tags", r.do("DELETE", at("2"), nil), 202)
	r.want("the image is there", r.do("HEAD", at(sum(m)), nil), 200)
	r.want("the last tag of what an index lists", r.do("DELETE", at("1"), nil), 400, "DENIED")
	r.Update(func(s *ecrsim.Switches) { s.ReferencedByIndex = ecrsim.Answer{Status: 403, Code: "UNSUPPORTED"} })
	r.want("by digest, otherwise", r.do("DELETE", at(sum(m)), nil), 403, "UNSUPPORTED")
	r.want("the index", r.do("DELETE", at("index"), nil), 202)
	r.want("which is gone with its last tag", r.do("HEAD", at(sum(x)), nil), 404)
	r.want("the image", r.do("DELETE", at(sum(m)), nil), 202)
	r.want("with its tag", r.do("HEAD", at("1"), nil), 404)
	r.want("again", r.do("DELETE", at(sum(m)), nil), 404, "MANIFEST_UNKNOWN")
	r.want("a layer", r.do("DELETE", "/v2/app/blobs/"+sum("layer x"), nil), 405, "UNSUPPORTED")
	r.image("app", "3", "y")
	r.Update(func(s *ecrsim.Switches) { s.NoDelete = true })
	r.want("as it once was", r.do("DELETE", at("3"), nil), 404, "404 page not found\n")
}
