package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
	"sluice/proxy/proxytest"
)

// newECR is the double of Amazon ECR with two repositories, behind a door that signs everybody in.
func newECR(t *testing.T, sw ecrsim.Switches) *proxytest.Upstream {
	t.Helper()
	sw.NoThrottling = true
	s := ecrsimtest.New(t, ecrsim.Options{Switches: sw})
	for _, name := range inRegistry {
		if err := s.CreateRepository(name); err != nil {
			t.Fatal(err)
		}
	}
	registry := s.Registry()
	door := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.SetBasicAuth(s.Password(s.AccessKey))
		registry.ServeHTTP(w, r)
	}))
	t.Cleanup(door.Close)
	return &proxytest.Upstream{Kind: "ecr", URL: door.URL}
}

// Whether Amazon ECR takes subjects and empty configs has been reported both ways: attestations are found either way.
func TestAttestationsAreStoredInAmazonECR(t *testing.T) {
	for name, c := range map[string]struct {
		sw      ecrsim.Switches
		subject bool
		hidden  bool // listed by the tag, beside an API that lists nothing
	}{
		"as documented":         {ecrsim.Switches{}, true, false},
		"no referrers API":      {ecrsim.Switches{NoReferrers: true}, true, false},
		"no OCI-Subject":        {ecrsim.Switches{NoOCISubject: true}, true, false},
		"subject refused":       {ecrsim.Switches{RefuseSubject: true, NoReferrers: true}, false, false},
		"empty config refused":  {ecrsim.Switches{RefuseEmptyConfig: true, NoReferrers: true}, false, false},
		"refused beside an API": {ecrsim.Switches{RefuseSubject: true}, false, true},
	} {
		for to, repo := range inRegistry {
			t.Run(name+" "+string(to), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
				plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
				r := newRig(t, newECR(t, c.sw), storeTo(to), with(func(c *config.Config) {
					c.Upstreams[0].Redirects = config.RedirectsFollow
					c.Upstreams[0].Hosts = []string{"localhost"}
				}))
				r.push(proxytest.BuildKit, "app", "1", tree)
				if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
					t.Errorf("the tag is %s, want %s", got, plain.Digest())
				}
				if !c.hidden {
					r.attestedUpstream(repo, tree, c.subject)
				}
				r.attestedHere("app", tree)
				r.restart()
				second := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Build: 1})
				r.push(proxytest.BuildKit, "app", "2", second)
				for _, image := range tree.Images() {
					list := r.referrers("app", image.Digest)
					if len(list.Manifests) != 2 {
						t.Errorf("two builds of %s are listed as %v", image.Name, list)
					}
					for _, d := range list.Manifests {
						r.request(http.MethodDelete, "/v2/app/manifests/"+d.Digest, nil).want(t, http.StatusAccepted)
					}
					if left := r.listedUpstream(repo, image.Digest); len(left.Manifests) != 0 {
						t.Errorf("after the delete the registry lists %v", left)
					}
				}
			})
		}
	}
}
