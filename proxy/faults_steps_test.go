package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// A step is one thing that a push asks of a registry, and a push that does it.
type step struct {
	faultCase
	name     string
	of       func(*http.Request) bool
	registry upstreamFunc
	without  []int // with these answers the client does without, or finds out in another way
}

// is matches requests by method and a part of the path.
func is(method, part string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == method && strings.Contains(r.URL.Path, part) }
}

func isMount(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Get("mount") != ""
}

// steps are all of them, those of BuildKit's push first.
func steps() []step {
	pushed := func(by proxytest.Pusher, form proxytest.Form) faultCase {
		return faultCase{push: by, form: form, act: filters.Store}
	}
	buildkit := ordinary
	buildkit.options.Platforms = []string{"linux/amd64", "linux/arm64"} // the tag is an index, and images are put by digest
	tree, _ := buildkit.trees()
	image := tree.Images()[0].Digest
	mounting := func(by proxytest.Pusher) faultCase {
		c := pushed(by, proxytest.FormLegacy)
		c.from = "base"
		return c
	}
	distribution, olareg, absent := proxytest.NewDistribution, proxytest.NewOlareg, []int{404}
	return []step{
		{buildkit, "HEAD of a blob", is(http.MethodHead, "/blobs/sha256:"), distribution, absent},
		{buildkit, "HEAD of an image", is(http.MethodHead, "/manifests/"+image), distribution, absent},
		{buildkit, "HEAD of the tag", is(http.MethodHead, "/manifests/1"), distribution, absent},
		{buildkit, "POST of an upload", is(http.MethodPost, "/blobs/uploads/"), distribution, nil},
		{buildkit, "PUT of a blob", is(http.MethodPut, "/blobs/uploads/"), distribution, nil},
		{buildkit, "PUT of an image", is(http.MethodPut, "/manifests/"+image), distribution, nil},
		{buildkit, "PUT of the tag", is(http.MethodPut, "/manifests/1"), distribution, nil},

		{pushed(proxytest.Crane, proxytest.FormLegacy), "PATCH of a blob", is(http.MethodPatch, "/blobs/uploads/"), distribution, nil},
		{pushed(proxytest.Skopeo, proxytest.FormArtifact), "PUT that ends chunks", is(http.MethodPut, "/blobs/uploads/"), distribution, nil},
		// A refused mount becomes an upload, here for BuildKit, and by itself for crane ("retrying without mount").
		{mounting(proxytest.BuildKit), "POST that mounts", isMount, distribution, []int{200, 202, 403, 404, 429}},
		{mounting(proxytest.Crane), "POST that mounts, by crane", isMount, distribution, []int{0, 200, 202, 401, 403, 404, 429, 500, 502, 503, 504}},
		{pushed(proxytest.Oras, proxytest.FormLegacy), "GET of a manifest", is(http.MethodGet, "/manifests/"+image), distribution, nil},
		{pushed(proxytest.Crane, proxytest.FormArtifact), "GET of the referrers", is(http.MethodGet, "/referrers/"), olareg, absent},
		{pushed(proxytest.Crane, proxytest.FormArtifact), "GET of the tag for referrers", is(http.MethodGet, "/manifests/sha256-"), distribution, absent},
	}
}

// ofBuildKit tells the steps that are tried with everything; the others have some of it divided among them.
func (s step) ofBuildKit() bool { return s.options.Platforms != nil }

// A stepRig is a push of one step in front of a registry with moods.
type stepRig struct {
	*rig
	step
	moods       *moody
	tree, plain *proxytest.Tree
}

func (s step) rig(t *testing.T, settings ...setting) *stepRig {
	t.Helper()
	m := &moody{}
	tree, plain := s.trees()
	r := newRig(t, s.registry(t, proxytest.UpstreamOptions{Wrap: m.wrap}), s.settings(settings...)...)
	if s.from != "" {
		r.push(proxytest.BuildKit, s.from, "1", plain)
	}
	return &stepRig{r, s, m, tree, plain}
}

// answers lets the registry answer the step in its own way from now on.
func (s *stepRig) answers(answer func(http.ResponseWriter, *http.Request, http.Handler)) {
	s.moods.mood.Store(&mood{s.of, answer})
}

func (s *stepRig) check() {
	s.t.Helper()
	s.moods.check(s.rig, s.faultCase, s.tree, s.plain)
}
