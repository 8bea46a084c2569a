package proxy_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// note is an artifact about a manifest.
func note(mediaType, digest string, size int) []byte {
	empty := `{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}`
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"text/note","config":%s,"layers":[%s],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		ocidoc.MediaTypeOCIManifest, empty, empty, mediaType, digest, size)
}

func (r *rig) pushNote(repo string, b []byte) *answer {
	r.t.Helper()
	r.request(http.MethodPut, put(r.upload(repo), "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"), []byte("{}")).want(r.t, http.StatusCreated)
	return r.request(http.MethodPut, "/v2/"+repo+"/manifests/"+ocidoc.DigestOf(b), b, "Content-Type", ocidoc.MediaTypeOCIManifest)
}

// registry.gitlab.com shows under the name of the referrers tag the subject itself. It is no list: its images are no
// referrers, and it is not deleted when a list takes its place.
func TestASubjectUnderTheNameOfItsListIsNoList(t *testing.T) {
	for name, platforms := range map[string][]string{"an index": {"linux/amd64", "linux/arm64"}, "an image": {"linux/amd64"}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}))
			r.push(proxytest.BuildKit, "app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: platforms}))
			subject := r.upstreamDigest("app", "1")
			b := r.direct(http.MethodGet, "/v2/app/manifests/"+subject, nil, acceptAll...).want(t, http.StatusOK)
			mediaType := b.Header.Get("Content-Type")
			r.direct(http.MethodPut, "/v2/app/manifests/"+strings.Replace(subject, ":", "-", 1), b.body, "Content-Type", mediaType).want(t, http.StatusCreated)
			if got := r.referrers("app", subject).Manifests; len(got) != 0 {
				t.Errorf("before any there are the referrers %v", got)
			}
			attached := note(mediaType, subject, len(b.body))
			r.pushNote("app", attached).want(t, http.StatusCreated)
			r.direct(http.MethodHead, "/v2/app/manifests/"+subject, nil, acceptAll...).want(t, http.StatusOK)
			r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusOK)
			if got := r.referrers("app", subject).Manifests; len(got) != 1 || got[0].Digest != ocidoc.DigestOf(attached) {
				t.Errorf("the referrers are %v, want the one that was pushed", got)
			}
		})
	}
}

// What registries without the referrers API answer to it, in the wild: ghcr.io leads to a web page, Artifactory does not
// accept.
func TestARegistryWithoutReferrersMaySaySoInManyWays(t *testing.T) {
	for _, status := range []int{303, 307, 400, 404, 405, 406, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true, Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if !strings.Contains(q.URL.Path, "/referrers/") {
						next.ServeHTTP(w, q)
						return
					}
					if status < 400 {
						w.Header().Set("Location", "https://registry.example/a/web/page")
					}
					w.WriteHeader(status)
				})
			}})
			r := newRig(t, up)
			r.push(proxytest.BuildKit, "app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}}))
			subject := r.upstreamDigest("app", "1")
			r.pushNote("app", note(ocidoc.MediaTypeOCIManifest, subject, 1)).want(t, http.StatusCreated)
			if got := r.referrers("app", subject).Manifests; len(got) != 1 {
				t.Errorf("%d referrers are listed, want the one that was pushed", len(got))
			}
			r = newRig(t, up, with(func(c *config.Config) { c.Store.To = config.StoreToReferrers }))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
			r.push(proxytest.BuildKit, "attested", "1", tree)
			if got := r.referrers("attested", tree.Images()[0].Digest).Manifests; len(got) != 1 {
				t.Errorf("%d attestations are listed, want one", len(got))
			}
		})
	}
}
