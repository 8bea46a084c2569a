package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// saysSubject answers the push of a referrer as a registry does that lists it: with OCI-Subject.
func saysSubject(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			if doc, err := ocidoc.Parse(body, r.Header.Get("Content-Type")); err == nil && doc.Subject != nil {
				w.Header().Set("OCI-Subject", doc.Subject.Digest)
			}
		}
		next.ServeHTTP(w, r)
	})
}

// attach sends what @sigstore/oci 0.7.2 sends, by which actions/attest pushes to a registry (dist/image.js, addArtifact).
// OCI-Subject is not enough for it, nor for crane: Amazon ECR has sent that without having the API (sigstore-js pull
// request 1183). It asks for the API itself, and here Sluice answers.
func (r *rig) attach(repo string, image *proxytest.Manifest, bundle string) (digest string) {
	r.t.Helper()
	r.request(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil).want(r.t, http.StatusAccepted) // for the challenge
	r.request(http.MethodHead, "/v2/"+repo+"/manifests/"+image.Digest, nil, acceptAll...).want(r.t, http.StatusOK)
	for _, blob := range []string{bundle, "{}"} {
		d := ocidoc.DigestOf([]byte(blob))
		if r.request(http.MethodHead, "/v2/"+repo+"/blobs/"+d, nil).StatusCode != http.StatusOK {
			r.request(http.MethodPut, put(r.upload(repo), d), []byte(blob)).want(r.t, http.StatusCreated)
		}
	}
	m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d}],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		ociManifest, bundleType, filters.EmptyDigest, bundleType, ocidoc.DigestOf([]byte(bundle)), len(bundle), image.MediaType, image.Digest, image.Size)
	digest = ocidoc.DigestOf(m)
	a := r.request(http.MethodPut, "/v2/"+repo+"/manifests/"+digest, m, "Content-Type", ociManifest).want(r.t, http.StatusCreated)
	if got := a.Header.Get("OCI-Subject"); got != image.Digest {
		r.t.Errorf("OCI-Subject %q", got)
	}
	r.request(http.MethodGet, "/v2/"+repo+"/referrers/sha256:"+strings.Repeat("0", 64), nil).want(r.t, http.StatusOK)
	return digest
}

func TestAReferrerIsListedThoughTheRegistryOnlySaysSo(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{NoReferrers: true, Delete: true, Wrap: saysSubject}))
		image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
		r.push(proxytest.BuildKit, "app", "1", image)
		want := []string{r.attach("app", image.Root, "one"), r.attach("app", image.Root, "two")}
		var got []string
		for _, d := range r.referrers("app", image.Root.Digest).Manifests {
			got = append(got, d.Digest)
		}
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("listed are %v, want %v", got, want)
		}
		a := r.direct(http.MethodGet, "/v2/app/manifests/"+filters.FallbackTag(image.Root.Digest), nil, acceptAll...).want(t, http.StatusOK)
		for _, d := range want {
			if !strings.Contains(string(a.body), d) {
				t.Errorf("upstream's referrers tag lacks %s: %s", d, a.body)
			}
		}
	})
}

// The same for what Sluice itself puts into such a registry.
func TestAStoredAttestationIsListedThoughTheRegistryOnlySaysSo(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{NoReferrers: true, Delete: true, Wrap: saysSubject}), storeTo(config.StoreToReferrers))
		tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
		r.push(proxytest.BuildKit, "app", "1", tree)
		r.attestedUpstream("app", tree, true)
	})
}

// A registry that does list referrers is asked for that once, whatever else it answers to who may push and not list.
func TestARegistryThatListsReferrersIsAskedOnce(t *testing.T) {
	for name, status := range map[string]int{"as it is": 0, "for who may not list": http.StatusForbidden} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			wrap := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.Contains(r.URL.Path, "/referrers/") && !strings.HasSuffix(r.URL.Path, strings.Repeat("0", 64)) {
						asked.Add(1)
						if status != 0 {
							w.WriteHeader(status)
							return
						}
					}
					next.ServeHTTP(w, r)
				})
			}
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: wrap}))
			image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
			for _, repo := range []string{"app", "other"} {
				r.push(proxytest.BuildKit, repo, "1", image)
				for i := range 3 {
					r.attach(repo, image.Root, fmt.Sprint("bundle ", i))
				}
				r.direct(http.MethodGet, "/v2/"+repo+"/manifests/"+filters.FallbackTag(image.Root.Digest), nil, acceptAll...).want(t, http.StatusNotFound)
			}
			if n := asked.Load(); status == 0 && n != 1 {
				t.Errorf("it was asked %d times, want once", n)
			}
		})
	}
}
