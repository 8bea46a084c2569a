package proxy_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// storeTo keeps attestations in a registry.
func storeTo(to config.StoreTo) setting { return with(func(c *config.Config) { c.Store.To = to }) }

// inRegistry are the destinations, with the repository that attestations of app go to.
var inRegistry = map[config.StoreTo]string{config.StoreToRepository: "app-attestations", config.StoreToReferrers: "app"}

// listedUpstream is what the registry itself lists about an image in a repository: by its referrers API or by the
// referrers tag (distribution-spec, "Listing Referrers").
func (r *rig) listedUpstream(repo, image string) (list referrersIndex) {
	r.t.Helper()
	a := r.direct(http.MethodGet, "/v2/"+repo+"/referrers/"+image, nil)
	if a.StatusCode == http.StatusNotFound || a.StatusCode == http.StatusMethodNotAllowed { // olareg without its API
		a = r.direct(http.MethodGet, "/v2/"+repo+"/manifests/"+filters.FallbackTag(image), nil, acceptAll...)
	}
	if a.StatusCode == http.StatusNotFound {
		return list
	}
	a.want(r.t, http.StatusOK)
	if err := json.Unmarshal(a.body, &list); err != nil {
		r.t.Fatal(err)
	}
	return list
}

// attestedUpstream asserts that whoever reads the registry without Sluice finds each image's statements, once.
func (r *rig) attestedUpstream(repo string, tree *proxytest.Tree, subject bool) {
	r.t.Helper()
	statements := map[string]bool{}
	for _, image := range tree.Images() {
		list := r.listedUpstream(repo, image.Digest)
		if len(list.Manifests) != 1 || list.Manifests[0].ArtifactType != filters.ArtifactTypeAttestation {
			r.t.Errorf("%s lists %v about %s, want one attestation", repo, list, image.Name)
			continue
		}
		a := r.direct(http.MethodGet, "/v2/"+repo+"/manifests/"+list.Manifests[0].Digest, nil, acceptAll...).want(r.t, http.StatusOK)
		doc, err := ocidoc.Parse(a.body, a.Header.Get("Content-Type"))
		if err != nil {
			r.t.Fatal(err)
		}
		if subject != (doc.Subject != nil) || subject && doc.Subject.Digest != image.Digest {
			r.t.Errorf("the attestation of %s in %s has the subject %v", image.Name, repo, doc.Subject)
		}
		for _, l := range doc.Layers {
			blob := r.direct(http.MethodGet, "/v2/"+repo+"/blobs/"+l.Digest, nil)
			if blob.StatusCode == http.StatusTemporaryRedirect { // Amazon ECR
				blob = request(r.t, http.MethodGet, blob.Header.Get("Location"), nil)
			}
			blob.want(r.t, http.StatusOK)
			if ocidoc.DigestOf(blob.body) != l.Digest {
				r.t.Errorf("statement %s has other bytes", l.Digest)
			}
			statements[l.Digest] = true
		}
	}
	for _, s := range tree.Statements() {
		if !statements[s.Digest] {
			r.t.Errorf("%s has no %s", repo, s.Name)
		}
	}
}

// imagesOnly asserts I2 for the repository of the image itself.
func (r *rig) imagesOnly(repo string) {
	r.t.Helper()
	for _, f := range r.upstream.Inspect(r.t).Attestations() {
		if strings.HasPrefix(f, repo+":") {
			r.t.Errorf("the image's repository must hold no attestation (I2): %s", f)
		}
	}
}

// attestedHere asserts that Sluice shows each image's attestations, once, and the original with all of it.
func (r *rig) attestedHere(repo string, tree *proxytest.Tree) {
	r.t.Helper()
	for _, image := range tree.Images() {
		list := r.referrers(repo, image.Digest)
		if len(list.Manifests) != 1 {
			r.t.Errorf("sluice lists %d referrers of %s, want 1: %v", len(list.Manifests), image.Name, list)
			continue
		}
		a := r.request(http.MethodGet, "/v2/"+repo+"/manifests/"+list.Manifests[0].Digest, nil, acceptAll...).want(r.t, http.StatusOK)
		doc, err := ocidoc.Parse(a.body, a.Header.Get("Content-Type"))
		if err != nil {
			r.t.Fatal(err)
		}
		if doc.Subject == nil || doc.Subject.Digest != image.Digest {
			r.t.Errorf("what sluice lists about %s has the subject %v", image.Name, doc.Subject)
		}
		for _, l := range doc.Layers {
			if blob := r.request(http.MethodGet, "/v2/"+repo+"/blobs/"+l.Digest, nil).want(r.t, http.StatusOK); ocidoc.DigestOf(blob.body) != l.Digest {
				r.t.Errorf("statement %s has other bytes", l.Digest)
			}
		}
	}
	back, err := proxytest.PullAll(context.Background(), r.url(), repo, tree.Digest())
	if err != nil {
		r.t.Errorf("the original cannot be read: %v", err)
	} else if err := back.Equal(tree); err != nil {
		r.t.Error(err)
	}
}

func TestAttestationsStoredInARegistryAreFoundThereAndHere(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for to, repo := range inRegistry {
			for _, form := range forms {
				t.Run(string(to)+" "+string(form), func(t *testing.T) {
					now := time.Now()
					tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true, StatementSize: 300 << 10})
					plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
					r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{Delete: true}), storeTo(to), clock(func() time.Time { return now }))
					r.push(proxytest.BuildKit, "app", "1", tree)
					for day := range 5 { // quarantine is swept in between: what is read is read from the registry
						if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
							t.Fatalf("upstream's tag is %s, want %s", got, plain.Digest())
						}
						r.attestedUpstream(repo, tree, true)
						r.attestedHere("app", tree)
						proxytest.AssertComplete(t, r.upstream)
						if to == config.StoreToRepository {
							r.imagesOnly("app")
						}
						now = now.Add(24 * time.Hour)
						r.proxy.Sweep(context.Background())
						if day == 3 {
							r.restart()
						}
					}
					before := len(r.upstream.Inspect(t).Repository(repo).Manifests)
					r.push(proxytest.BuildKit, "app", "1", tree)
					if after := len(r.upstream.Inspect(t).Repository(repo).Manifests); after != before {
						t.Errorf("the same push again made %d manifests of %d", after, before)
					}
					for _, image := range tree.Images() {
						d := r.referrers("app", image.Digest).Manifests[0].Digest
						r.request(http.MethodDelete, "/v2/app/manifests/"+d, nil).want(t, http.StatusAccepted)
						if left := r.listedUpstream(repo, image.Digest); len(left.Manifests) != 0 {
							t.Errorf("after the delete the registry lists %v", left)
						}
						r.direct(http.MethodGet, "/v2/"+repo+"/manifests/"+d, nil, acceptAll...).want(t, http.StatusNotFound)
						if left := r.referrers("app", image.Digest); len(left.Manifests) != 0 {
							t.Errorf("after the delete sluice lists %v", left)
						}
					}
					r.request(http.MethodGet, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
					if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
						t.Errorf("after the delete upstream's tag is %s, want %s", got, plain.Digest())
					}
					r.push(proxytest.BuildKit, "app", "1", tree)
					r.attestedUpstream(repo, tree, true)
					r.attestedHere("app", tree)
				})
			}
		}
	})
}

// refusing is a registry that takes no manifest in which something occurs.
type refusing struct {
	text, code string
	status     int
	tried      atomic.Int32
}

func (f *refusing) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/sha256:") {
			body, _ := io.ReadAll(r.Body)
			if bytes.Contains(body, []byte(f.text)) {
				f.tried.Add(1)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(f.status)
				fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"Invalid parameter at 'ImageManifest' failed to satisfy constraint"}]}`, f.code)
				return
			}
			r.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, r)
	})
}

// A registry that refuses the artifact gets BuildKit's legacy form. It is asked once, and again after some hours.
func TestARegistryThatRefusesArtifactsGetsTheLegacyForm(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for to, repo := range inRegistry {
			for _, form := range []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact} {
				for name, f := range map[string]*refusing{
					"subject":             {text: `"subject"`, status: http.StatusMethodNotAllowed, code: "UNSUPPORTED"}, // Amazon ECR
					"empty config":        {text: "vnd.oci.empty.v1", status: http.StatusBadRequest, code: "MANIFEST_INVALID"},
					"subject not present": {text: `"subject"`, status: http.StatusNotFound, code: "MANIFEST_UNKNOWN"}, // GitLab
				} {
					t.Run(fmt.Sprint(to, " ", form, " ", name), func(t *testing.T) {
						now := time.Now()
						one := []string{"linux/amd64"}
						tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, Platforms: one})
						r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{Wrap: f.wrap, Delete: true, NoReferrers: true}), storeTo(to), clock(func() time.Time { return now }))
						r.push(proxytest.BuildKit, "app", "1", tree)
						r.attestedUpstream(repo, tree, false)
						r.attestedHere("app", tree)
						proxytest.AssertComplete(t, r.upstream)
						if got := f.tried.Load(); got != 1 {
							t.Errorf("an artifact was tried %d times, want 1", got)
						}
						second := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, Platforms: one, Build: 1})
						r.push(proxytest.BuildKit, "app", "2", second)
						if got := f.tried.Load(); got != 1 {
							t.Errorf("it was tried again: %d times", got)
						}
						image := tree.Images()[0].Digest
						if list := r.listedUpstream(repo, image); len(list.Manifests) != 2 {
							t.Errorf("two builds of the same image are listed as %v", list)
						}
						if list := r.referrers("app", image); len(list.Manifests) != 2 {
							t.Errorf("sluice lists two builds of the same image as %v", list)
						}
						now = now.Add(7 * time.Hour)
						third := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, Platforms: one, Build: 2})
						r.push(proxytest.BuildKit, "app", "3", third)
						if got := f.tried.Load(); got != 2 {
							t.Errorf("after seven hours it was tried %d times, want 2", got)
						}
						for _, d := range r.referrers("app", image).Manifests {
							r.request(http.MethodDelete, "/v2/app/manifests/"+d.Digest, nil).want(t, http.StatusAccepted)
						}
						if left := r.listedUpstream(repo, image); len(left.Manifests) != 0 {
							t.Errorf("after the delete the registry lists %v", left)
						}
					})
				}
			}
		}
	})
}

// One that has a referrers API and takes no subject lists the attestation under the tag only; Sluice lists it.
func TestALegacyFormBesideAReferrersAPIIsListedHere(t *testing.T) {
	for to := range inRegistry {
		t.Run(string(to), func(t *testing.T) {
			f := &refusing{text: `"subject"`, status: http.StatusMethodNotAllowed, code: "UNSUPPORTED"}
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: f.wrap}), storeTo(to))
			r.push(proxytest.BuildKit, "app", "1", tree)
			r.attestedHere("app", tree)
		})
	}
}

// What the registry's own lifecycle policy has removed is not shown any more, and the next push brings it back.
func TestWhatTheRegistryDroppedIsNotShown(t *testing.T) {
	every(t, func(t *testing.T, newUpstream upstreamFunc) {
		for to, repo := range inRegistry {
			t.Run(string(to), func(t *testing.T) {
				now := time.Now()
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
				r := newRig(t, newUpstream(t, proxytest.UpstreamOptions{Delete: true}), storeTo(to), clock(func() time.Time { return now }))
				r.push(proxytest.BuildKit, "app", "1", tree)
				for range 4 {
					now = now.Add(24 * time.Hour)
					r.proxy.Sweep(context.Background())
				}
				image := tree.Images()[0].Digest
				d := r.referrers("app", image).Manifests[0].Digest
				if a := r.direct(http.MethodDelete, "/v2/"+repo+"/manifests/"+filters.FallbackTag(image), nil); a.StatusCode != http.StatusAccepted && a.StatusCode != http.StatusNotFound {
					t.Fatal(a.Status)
				}
				r.direct(http.MethodDelete, "/v2/"+repo+"/manifests/"+d, nil).want(t, http.StatusAccepted)
				r.direct(http.MethodDelete, "/v2/"+repo+"/blobs/"+tree.Statements()[0].Digest, nil).want(t, http.StatusAccepted)
				if list := r.referrers("app", image); len(list.Manifests) != 0 {
					t.Errorf("still listed: %v", list)
				}
				r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...).want(t, http.StatusNotFound)
				r.push(proxytest.BuildKit, "app", "1", tree)
				r.attestedUpstream(repo, tree, true)
				r.attestedHere("app", tree)
			})
		}
	})
}

// Images may be pushed to the repository of attestations itself: theirs stay in it.
// Whether a statement is there is asked once, and nothing else of one that is.
func TestAStatementCostsItsDestinationFewRequests(t *testing.T) {
	for to, repo := range inRegistry {
		t.Run(string(to), func(t *testing.T) {
			tr := proxytest.NewTranscript()
			r := recorded(t, proxytest.NewDistribution, tr, storeTo(to))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
			for _, want := range []string{"[HEAD PUT]", "[HEAD]"} {
				tr.Reset()
				r.push(proxytest.BuildKit, "app", "1", tree)
				for _, s := range tree.Statements() {
					var asked []string
					for _, e := range tr.Upstream.Exchanges() {
						if strings.HasPrefix(e.Path, "/v2/"+repo+"/") && (strings.HasSuffix(e.Path, s.Digest) || e.Query.Get("digest") == s.Digest) {
							asked = append(asked, e.Method)
						}
					}
					if fmt.Sprint(asked) != want { // and the POST in between, which names no digest
						t.Errorf("%s is the matter of %q in %s, want %s", s.Name, asked, repo, want)
					}
				}
			}
		})
	}
}

func TestTheDestinationsOwnAttestationsStayInIt(t *testing.T) {
	for _, name := range []string{"{repository}-attestations", "x-attestations"} {
		t.Run(name, func(t *testing.T) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storeTo(config.StoreToRepository), with(func(c *config.Config) { c.Store.Repository = name }))
			r.push(proxytest.BuildKit, "x-attestations", "1", tree)
			r.attestedUpstream("x-attestations", tree, true)
			r.attestedHere("x-attestations", tree)
			for repo := range r.upstream.Inspect(t).Repositories {
				if repo != "x-attestations" {
					t.Errorf("a repository %s was made", repo)
				}
			}
		})
	}
}

// The template may lead to another registry.
func TestAttestationsMayGoToAnotherRegistry(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	images, other := proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), proxytest.NewOlareg(t, proxytest.UpstreamOptions{})
	r := newRig(t, images, storeTo(config.StoreToRepository), with(func(c *config.Config) {
		c.Store.Repository = "attest/{repository}"
		c.Upstreams = append(c.Upstreams, config.Upstream{Prefix: "attest", URL: other.URL, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass})
	}))
	if err := r.config.Validate(); err != nil {
		t.Fatal(err)
	}
	r.push(proxytest.BuildKit, "team/app", "1", tree)
	proxytest.AssertClean(t, images)
	r.attestedHere("team/app", tree)
	r.upstream = other
	r.attestedUpstream("team/app", tree, true)
}

// A client may copy the referrers tag of an image, with the attestations that it lists: they stay listed.
func TestACopiedReferrersTagKeepsItsAttestations(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact, Platforms: []string{"linux/amd64"}})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), storeTo(config.StoreToReferrers))
	r.push(proxytest.BuildKit, "app", "1", tree)
	image := tree.Images()[0]
	tag := "/v2/app/manifests/" + filters.FallbackTag(image.Digest)
	att := tree.Attestations()[0]
	list := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"artifactType":%q},{"mediaType":%q,"digest":%q,"size":%d}]}`,
		ociIndex, ociManifest, att.Digest, att.Size, filters.ArtifactTypeAttestation, ociManifest, image.Digest, image.Size)
	r.request(http.MethodPut, tag, []byte(list), "Content-Type", ociIndex).want(t, http.StatusCreated)
	a := r.direct(http.MethodGet, tag, nil, acceptAll...).want(t, http.StatusOK)
	for _, d := range []string{att.Digest, image.Digest} {
		if !strings.Contains(string(a.body), d) {
			t.Errorf("the tag upstream lacks %s: %s", d, a.body)
		}
	}
}
