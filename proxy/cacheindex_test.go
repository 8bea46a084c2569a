package proxy_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// refusesCacheIndexes is what ECR does with an index of blobs.
func refusesCacheIndexes(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if t := r.Header.Get("Content-Type"); r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && ocidoc.KindOf(t) == ocidoc.KindIndex {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_INVALID","message":"Invalid parameter"}]}`))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestACacheIndexIsForwardedAsTheManifestThatBuildKitWrites(t *testing.T) {
	want := proxytest.Documents(t, "h-cache-image-manifest")
	for _, scenario := range []string{"h-cache-oci-index", "h-cache-docker-list"} {
		for _, act := range []filters.Action{filters.Store, filters.Strip, filters.Forward} {
			t.Run(scenario+" "+string(act), func(t *testing.T) {
				tree := proxytest.Documents(t, scenario)
				up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: refusesCacheIndexes})
				up.Seed(t, "app", tree)
				r := newRig(t, up, action(act), with(func(c *config.Config) { c.CacheIndex = filters.CacheIndexManifest }))
				for _, b := range want.Blobs() {
					if !b.Missing() {
						r.request(http.MethodPut, put(r.upload("app"), b.Digest), b.Bytes()).want(t, http.StatusCreated)
					}
				}
				for range 2 {
					a := r.request(http.MethodPut, "/v2/app/manifests/cache", tree.Root.Bytes(), "Content-Type", tree.Root.MediaType).want(t, http.StatusCreated)
					if a.Header.Get("Docker-Content-Digest") != tree.Digest() || a.Header.Get("Sluice-Forwarded-Digest") != want.Digest() {
						t.Errorf("%v", a.Header)
					}
				}
				a := r.direct(http.MethodGet, "/v2/app/manifests/cache", nil, acceptAll...).want(t, http.StatusOK)
				if string(a.body) != string(want.Root.Bytes()) || a.Header.Get("Content-Type") != ociManifest {
					t.Errorf("upstream has %s\n%s", a.Header.Get("Content-Type"), a.body)
				}
				for _, method := range []string{http.MethodHead, http.MethodGet} {
					a = r.request(method, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusOK)
					if a.Header.Get("Content-Type") != tree.Root.MediaType || method == http.MethodGet && string(a.body) != string(tree.Root.Bytes()) {
						t.Errorf("%s of the original: %v\n%s", method, a.Header, a.body)
					}
					a = r.request(method, "/v2/app/manifests/cache", nil, acceptAll...).want(t, http.StatusOK)
					if a.Header.Get("Docker-Content-Digest") != want.Digest() {
						t.Errorf("%s of the tag: %v", method, a.Header)
					}
				}
				// The manifest form passes byte for byte.
				a = r.request(http.MethodPut, "/v2/app/manifests/cache2", want.Root.Bytes(), "Content-Type", ociManifest).want(t, http.StatusCreated)
				if a.Header.Get("Sluice-Forwarded-Digest") != "" || r.upstreamDigest("app", "cache2") != want.Digest() {
					t.Errorf("%v", a.Header)
				}
			})
		}
	}
}

func TestACacheIndexIsKeptWhereUpstreamIsNotECR(t *testing.T) {
	tree := proxytest.Documents(t, "h-cache-oci-index")
	var types []string
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
				types = append(types, r.Header.Get("Content-Type"))
			}
			refusesCacheIndexes(next).ServeHTTP(w, r)
		})
	}})
	up.Seed(t, "app", tree)
	r := newRig(t, up)
	r.request(http.MethodPut, "/v2/app/manifests/cache", tree.Root.Bytes(), "Content-Type", ociIndex).want(t, http.StatusBadRequest, "MANIFEST_INVALID")
	if len(types) == 0 || slices.ContainsFunc(types, func(s string) bool { return s != ociIndex }) {
		t.Errorf("sent as %v", types)
	}
}
