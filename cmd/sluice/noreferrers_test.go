package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"sluice/filters"
	"sluice/filters/ocidoc"
)

// Attestations are found by the tag wherever a registry has no referrers API, in whatever way it says so.
func TestTheReferrersTagIsReadWhereverThereIsNoAPI(t *testing.T) {
	image, attestation := "sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64)
	for _, status := range []int{303, 400, 404, 405, 406, 500, 501} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/a/web/page":
					w.Header().Set("Content-Type", "text/html")
					fmt.Fprint(w, "<html>Not a registry</html>")
				case strings.Contains(r.URL.Path, "/referrers/"):
					if status < 400 {
						w.Header().Set("Location", "/a/web/page")
					}
					w.WriteHeader(status)
				case strings.HasSuffix(r.URL.Path, "/manifests/"+filters.FallbackTag(image)):
					w.Header().Set("Content-Type", ocidoc.MediaTypeOCIIndex)
					fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":1,"artifactType":%q}]}`,
						ocidoc.MediaTypeOCIIndex, ocidoc.MediaTypeOCIManifest, attestation, filters.ArtifactTypeAttestation)
				}
			}))
			defer server.Close()
			repo, err := name.NewRepository(strings.TrimPrefix(server.URL, "http://")+"/app", name.Insecure)
			if err != nil {
				t.Fatal(err)
			}
			r := &repository{name: repo, client: &http.Client{Transport: plainHTTP{}}}
			found, err := r.attestations(t.Context(), image)
			if status == 500 {
				if err == nil {
					t.Error("a registry that fails is taken for one without the API")
				}
				return
			}
			if err != nil || len(found) != 1 || found[0] != attestation {
				t.Errorf("found %v, %v", found, err)
			}
		})
	}
}

type plainHTTP struct{}

func (plainHTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http"
	return http.DefaultTransport.RoundTrip(r)
}
