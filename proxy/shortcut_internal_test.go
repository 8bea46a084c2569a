package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	v2 "github.com/distribution/distribution/v3/registry/api/v2"
	"github.com/gorilla/mux"
	"pgregory.net/rapid"

	"sluice/proxy/observe"
)

// Where the shortcut knows a path, distribution's router has the same route, repository and reference for it.
func TestTheShortcutIsTheRouters(t *testing.T) {
	router := v2.RouterWithPrefix("")
	router.SkipClean(true)
	names := map[string]observe.Route{}
	for _, name := range []string{v2.RouteNameManifest, v2.RouteNameBlob, v2.RouteNameBlobUpload, v2.RouteNameBlobUploadChunk, v2.RouteNameTags, v2.RouteNameBase, v2.RouteNameCatalog} {
		names[name] = routeOf(name)
		router.GetRoute(name).HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	}
	digest := "sha256:" + strings.Repeat("0a", 32)
	part := rapid.OneOf(
		rapid.SampledFrom([]string{"blobs", "uploads", "manifests", "tags", "list", "_catalog", "", ".", "..", digest, digest[:70], digest + "0", strings.ToUpper(digest), "sha512:" + strings.Repeat("0a", 64), strings.Repeat("t", 128), strings.Repeat("t", 129), "app", "h.example:5000"}),
		rapid.StringMatching(`[a-zA-Z0-9._=\-:%]{0,6}`),
	)
	check := func(t interface{ Fatalf(string, ...any) }, path string) {
		route, name, ref, ok := shortcut(path)
		if !ok {
			return
		}
		var match mux.RouteMatch
		if !router.Match(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}}, &match) || match.Route == nil {
			t.Fatalf("%q: the router knows nothing of it", path)
		}
		if want := names[match.Route.GetName()]; want != route || match.Vars["name"] != name || variable(match.Vars) != ref {
			t.Fatalf("%q: %v %q %q, the router says %v %v", path, route, name, ref, want, match.Vars)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOfN(part, 0, 5).Draw(t, "parts")
		check(t, rapid.SampledFrom([]string{"/v2/", "/v2", "/v1/", "/"}).Draw(t, "front")+strings.Join(parts, "/"))
		kind := rapid.SampledFrom([]string{"blobs", "manifests", "blobs/uploads"}).Draw(t, "kind")
		check(t, "/v2/a"+strings.Join(parts, "/")+"/"+kind+"/"+part.Draw(t, "reference"))
	})
	for _, path := range []string{
		"/v2/app/blobs/" + digest, "/v2/team/app/blobs/uploads/", "/v2/app/blobs/uploads/AQ-_.=", "/v2/app/manifests/latest", "/v2/app/manifests/" + digest,
		"/v2/app/blobs/uploads/manifests/1", "/v2/manifests/blobs/uploads/", "/v2/blobs/blobs/uploads/uploads",
	} {
		if _, _, _, ok := shortcut(path); !ok {
			t.Errorf("%q is not known", path)
		}
		check(t, path)
	}
}
