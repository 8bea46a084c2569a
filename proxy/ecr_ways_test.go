package proxy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	godigest "github.com/opencontainers/go-digest"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/ecrsim"
	"sluice/proxy/proxytest"
)

// Every client pushes attestations to ECR, and ECR then has what `provenance: false` would have sent, with each
// behaviour of ECR that is not settled one way and the other.
func TestEveryClientPushesToECR(t *testing.T) {
	for name, change := range map[string]func(*ecrsim.Switches){
		"the likeliest": nil,
		"the other": func(s *ecrsim.Switches) {
			s.RelativeLocation, s.Monolithic, s.TrueRange, s.SmallPartCuts, s.CancelUploads = true, true, true, true, true
			s.BlobMounting, s.AnonymousMount, s.HideUnreferenced, s.RequireMediaType = true, true, true, true
			s.NoReferrers, s.ExpiredToken = true, http.StatusUnauthorized
		},
		"a gap after writing": func(s *ecrsim.Switches) { s.ReadAfterWriteReads = 2 },
	} {
		for _, client := range proxytest.Clients() {
			if !client.Indexes {
				continue
			}
			t.Run(name+", "+client.Name, func(t *testing.T) {
				r := newAWSRig(t, change)
				plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
				form := forms[len(client.Name)%len(forms)] // each with some clients
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true})
				for range 2 { // the second finds everything
					r.push(client.Push, "app", "1", tree)
				}
				a := r.direct("HEAD", "/v2/app/manifests/1", nil, acceptAll...)
				for n := 0; n < 3 && a.StatusCode == http.StatusNotFound; n++ { // the gap
					a = r.direct("HEAD", "/v2/app/manifests/1", nil, acceptAll...)
				}
				a.want(t, http.StatusOK)
				if got := a.Header.Get("Docker-Content-Digest"); got != plain.Digest() {
					t.Errorf("ECR's tag is %s, want %s", got, plain.Digest())
				}
				back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
				if err != nil {
					t.Fatal(err)
				}
				if err := back.Equal(tree); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// ECR converts what is read by tag, and leaves the digest out. A client that compares digests, as regctl and
// oras do, must not see the one with the other.
func TestATagOnECRReadsAsTheDocumentUnderIt(t *testing.T) {
	for _, v := range []config.View{config.ViewUpstream, config.ViewOriginal} {
		t.Run(string(v), func(t *testing.T) {
			r := newAWSRig(t, nil, view(v))
			digest := r.tag(t, "app", "1", noise(1000))
			const docker, oci = "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.oci.image.manifest.v1+json"
			for name, accept := range map[string][]string{
				"OCI":               {"Accept", oci},
				"both":              {"Accept", docker + ", " + oci},
				"both, in lines":    {"Accept", docker, "Accept", oci},
				"anything":          {"Accept", "*/*"},
				"nothing said":      {},
				"applications":      {"Accept", "application/*;q=0.5"},
				"Docker's own only": {"Accept", docker},
			} {
				t.Run(name, func(t *testing.T) {
					head := r.request("HEAD", "/v2/app/manifests/1", nil, accept...).want(t, http.StatusOK)
					get := r.request("GET", "/v2/app/manifests/1", nil, accept...).want(t, http.StatusOK)
					if head.Header.Get("Content-Type") != get.Header.Get("Content-Type") || head.Header.Get("Content-Length") != fmt.Sprint(len(get.body)) {
						t.Errorf("HEAD says %v, GET has %v and %d bytes", head.Header, get.Header, len(get.body))
					}
					got := godigest.FromBytes(get.body).String()
					for _, a := range []*answer{head, get} {
						if d := a.Header.Get("Docker-Content-Digest"); d != "" && d != got {
							t.Errorf("%s says %s, the body has %s", a.Request.Method, d, got)
						}
					}
					if want := map[bool]string{true: docker, false: oci}[name == "Docker's own only"]; get.Header.Get("Content-Type") != want {
						t.Errorf("type %s", get.Header.Get("Content-Type"))
					}
					if name != "Docker's own only" && (got != digest || get.Header.Get("Docker-Content-Digest") != digest) {
						t.Errorf("GET has %s as %s, want %s", got, get.Header.Get("Docker-Content-Digest"), digest)
					}
				})
			}
			r.request("GET", "/v2/app/manifests/none", nil, acceptAll...).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
			r.request("HEAD", "/v2/app/manifests/none", nil, acceptAll...).want(t, http.StatusNotFound)
		})
	}
}

func TestWhatWasJustPushedToECRIsFoundWithinThePatience(t *testing.T) {
	r := newAWSRig(t, func(s *ecrsim.Switches) { s.ReadAfterWriteReads = 3 })
	digest := r.tag(t, "app", "1", noise(1000))
	r.request("GET", "/v2/app/manifests/"+digest, nil, acceptAll...).want(t, http.StatusOK)
	r.tag(t, "app", "2", noise(2000))
	r.request("GET", "/v2/app/manifests/2", nil, acceptAll...).want(t, http.StatusOK)
	before := r.rec.Count()
	r.request("GET", "/v2/app/manifests/"+godigest.FromString("never pushed").String(), nil, acceptAll...).want(t, http.StatusNotFound)
	if n := r.rec.Count() - before; n != 1 {
		t.Errorf("%d requests for what was never pushed", n)
	}
}

// What was deleted is not waited for.
func TestWhatWasDeletedFromECRIsAskedForOnce(t *testing.T) {
	r := newAWSRig(t, nil)
	digest := r.tag(t, "app", "1", noise(100))
	r.request("DELETE", "/v2/app/manifests/"+digest, nil).want(t, http.StatusAccepted)
	for _, ref := range []string{digest, "1"} {
		before := len(r.rec.Exchanges())
		r.request("GET", "/v2/app/manifests/"+ref, nil).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
		if n := len(r.rec.Exchanges()) - before; n > 2 { // a tag is resolved first
			t.Errorf("%s is asked for %d times", ref, n)
		}
	}
}

// ECR refuses an index right after its children were put, for a moment.
func TestAnIndexIsPutAgainWhileECRDoesNotSeeItsChildren(t *testing.T) {
	for _, missing := range []ecrsim.Answer{{Status: 400, Code: "MANIFEST_BLOB_UNKNOWN"}, {Status: 404, Code: "MANIFEST_UNKNOWN"}} {
		t.Run(missing.Code, func(t *testing.T) {
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0], SBOM: true})
			r := newAWSRig(t, func(s *ecrsim.Switches) {
				s.Faults = []ecrsim.Fault{{Action: "PutImage", Skip: 2, Times: 3, Answer: missing}} // after the two images
			})
			r.push(proxytest.BuildKit, "app", "1", tree)
			if n := len(r.sent("PUT")); n < 6 {
				t.Errorf("%d PUTs", n)
			}
		})
	}
	t.Run("an index whose children another replica has just pushed", func(t *testing.T) {
		r := newAWSRig(t, nil)
		other := newRig(t, &proxytest.Upstream{Kind: "ecrsim", URL: r.upstream.URL}, with(ecrCredentials))
		first := r.tag(t, "app", "1", noise(1000))
		r.ecr.Update(func(s *ecrsim.Switches) { s.ReadAfterWriteReads = 2 })
		second := r.tag(t, "app", "2", noise(2000))
		var entries []string
		for _, digest := range []string{first, second} {
			size := len(r.request("GET", "/v2/app/manifests/"+digest, nil, acceptAll...).want(t, 200).body)
			entries = append(entries, fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"linux"}}`, digest, size))
		}
		r.ecr.Update(func(s *ecrsim.Switches) {
			s.Faults = []ecrsim.Fault{
				{Action: "PutImage", Times: 2, Answer: ecrsim.Answer{Status: 400, Code: "MANIFEST_BLOB_UNKNOWN"}},
				{Action: "BatchGetImage", Skip: 1, Times: 2, Answer: ecrsim.Answer{Status: 404, Code: "MANIFEST_UNKNOWN"}},
			}
		})
		body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + strings.Join(entries, ",") + `]}`
		other.request("PUT", "/v2/app/manifests/3", []byte(body), "Content-Type", "application/vnd.oci.image.index.v1+json").want(t, 201)
	})
	t.Run("an index one of whose children is nowhere is put once, although the other was just pushed", func(t *testing.T) {
		r := newAWSRig(t, nil)
		digest := r.tag(t, "app", "1", noise(1000))
		size := len(r.request("GET", "/v2/app/manifests/"+digest, nil, acceptAll...).want(t, 200).body)
		entry := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"platform":{"architecture":"amd64","os":"linux"}}`
		body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`+entry+","+entry+`]}`,
			digest, size, godigest.FromString("nowhere"), 7)
		before := len(r.sent("PUT"))
		r.request("PUT", "/v2/app/manifests/2", body, "Content-Type", "application/vnd.oci.image.index.v1+json").want(t, 400, "MANIFEST_BLOB_UNKNOWN")
		if n := len(r.sent("PUT")) - before; n != 1 {
			t.Errorf("the index was put %d times", n)
		}
	})
	t.Run("an index whose child is nowhere is put once", func(t *testing.T) {
		r := newAWSRig(t, nil)
		r.tag(t, "app", "1", noise(1000))
		body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":7,"platform":{"architecture":"amd64","os":"linux"}}]}`, godigest.FromString("nowhere"))
		r.request("PUT", "/v2/app/manifests/2", body, "Content-Type", "application/vnd.oci.image.index.v1+json").want(t, 400, "MANIFEST_BLOB_UNKNOWN")
	})
}

// ECR's refusals come out as they are: its 405 is no "method not allowed", and its 403 at the quota no
// question of rights.
func TestECRsRefusalsArePassedOnUntouched(t *testing.T) {
	const manifest = "application/vnd.oci.image.manifest.v1+json"
	for name, c := range map[string]struct {
		change func(*ecrsim.Switches)
		status int
		code   string
		text   string
	}{
		"the quota of images":  {func(s *ecrsim.Switches) { s.Limits.ImagesPerRepository = 1 }, 403, "DENIED", "maximum allowed number of images"},
		"a missing right":      {func(s *ecrsim.Switches) { s.Deny = []string{"ecr:PutImage"} }, 403, "DENIED", "not authorized to perform: ecr:PutImage"},
		"an artifact's config": {func(s *ecrsim.Switches) { s.RefuseEmptyConfig = true }, 405, "UNSUPPORTED", "Invalid parameter at 'ImageManifest'"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newAWSRig(t, nil)
			r.tag(t, "app", "1", noise(1000))
			r.ecr.Update(c.change)
			layer := noise(2000)
			upload(t, "app", layer, []part{{size: len(layer), last: true}}, r.rig).want(t, 201)
			upload(t, "app", []byte("{}"), []part{{size: 2, last: true}}, r.rig).want(t, 201)
			body := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/x","digest":%q,"size":%d}]}`,
				manifest, godigest.FromString("{}"), godigest.FromBytes(layer), len(layer))
			through := r.request("PUT", "/v2/app/manifests/2", body, "Content-Type", manifest).want(t, c.status, c.code)
			direct := r.direct("PUT", "/v2/app/manifests/2", body, "Content-Type", manifest).want(t, c.status, c.code)
			if string(through.body) != string(direct.body) || !strings.Contains(string(through.body), c.text) {
				t.Errorf("through Sluice %s, directly %s", through.body, direct.body)
			}
		})
	}
	t.Run("a repository that is missing", func(t *testing.T) {
		r := newAWSRig(t, func(s *ecrsim.Switches) { s.Templates = nil })
		a := r.request("POST", "/v2/app/blobs/uploads/", nil).want(t, 404, "NAME_UNKNOWN")
		if !strings.Contains(string(a.body), "The repository with name 'app' does not exist in the registry with id") {
			t.Errorf("%s", a.body)
		}
	})
	t.Run("an empty blob", func(t *testing.T) {
		r := newAWSRig(t, nil)
		upload(t, "app", nil, []part{{last: true}}, r.rig).want(t, 500)
	})
	t.Run("a HEAD without the right to read", func(t *testing.T) {
		r := newAWSRig(t, func(s *ecrsim.Switches) { s.Deny = []string{"ecr:BatchGetImage"} })
		r.request("HEAD", "/v2/app/manifests/1", nil, acceptAll...).want(t, 403)
	})
}

func TestAThrottledRequestIsTriedAgainInsideThePatience(t *testing.T) {
	for _, action := range []string{"InitiateLayerUpload", "CompleteLayerUpload", "PutImage", "BatchCheckLayerAvailability"} {
		t.Run(action, func(t *testing.T) {
			r := newAWSRig(t, func(s *ecrsim.Switches) {
				s.Faults = []ecrsim.Fault{{Action: action, Times: 2, Throttle: true}}
			})
			r.push(proxytest.BuildKit, "app", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0], SBOM: true}))
		})
	}
}

func TestATokenThatEndsAnywhereInAPushToECRIsRenewed(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusUnauthorized} {
		for _, action := range []string{"InitiateLayerUpload", "CompleteLayerUpload", "PutImage", "BatchGetImage", "BatchCheckLayerAvailability"} {
			t.Run(fmt.Sprint(action, " ", status), func(t *testing.T) {
				r := newAWSRig(t, func(s *ecrsim.Switches) {
					s.ExpiredToken = status
					s.Faults = []ecrsim.Fault{{Action: action, Skip: 1, Times: 1, ExpireTokens: true}}
				})
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0], SBOM: true})
				r.push(proxytest.BuildKit, "app", "1", tree)
			})
		}
	}
}

// Connections that ECR cuts end in an error that says so, and nothing wrong is upstream; the next push is whole.
func TestACutConnectionToECRIsAClearErrorAndTheNextPushIsWhole(t *testing.T) {
	for _, action := range []string{"CompleteLayerUpload", "UploadLayerPart"} {
		t.Run(action, func(t *testing.T) {
			r := newAWSRig(t, func(s *ecrsim.Switches) {
				s.Faults = []ecrsim.Fault{{Action: action, Times: 1, Cut: true, CutAfter: 100 << 10}}
			})
			content := noise(mib)
			parts := []part{{size: mib, last: true}}
			if action == "UploadLayerPart" {
				parts = []part{{size: mib}}
			}
			a := upload(t, "gone", content, parts, r.rig).want(t, http.StatusBadGateway, "UNAVAILABLE")
			if !strings.Contains(string(a.body), "when repository gone does not exist") {
				t.Errorf("%s", a.body)
			}
			upload(t, "gone", content, parts, r.rig).want(t, http.StatusCreated)
			r.tag(t, "gone", "1", content)
		})
	}
}

func TestBlobsOfECRAreReadWhereItRedirects(t *testing.T) {
	for _, redirects := range []config.Redirects{config.RedirectsPass, config.RedirectsFollow} {
		t.Run(string(redirects), func(t *testing.T) {
			r := newAWSRig(t, nil, with(func(c *config.Config) { c.Upstreams[0].Redirects = redirects }))
			content := noise(10_000)
			upload(t, "app", content, []part{{size: len(content), last: true}}, r.rig).want(t, 201)
			r.tag(t, "app", "1", content)
			path := "/v2/app/blobs/" + godigest.FromBytes(content).String()
			a := r.request("GET", path, nil, "Range", "bytes=10-19")
			if redirects == config.RedirectsPass {
				a.want(t, http.StatusTemporaryRedirect)
				a = request(t, "GET", a.Header.Get("Location"), nil, "Range", "bytes=10-19")
			}
			if a.want(t, http.StatusPartialContent); string(a.body) != string(content[10:20]) {
				t.Errorf("%d bytes", len(a.body))
			}
		})
	}
}

func TestTagsOfECRArePagedByItsOwnCursors(t *testing.T) {
	r := newAWSRig(t, nil)
	var want []string
	for i := range 5 {
		r.tag(t, "app", fmt.Sprint("v", i), noise(1000))
		want = append(want, fmt.Sprint("v", i))
	}
	var got []string
	next := "/v2/app/tags/list?n=2"
	for pages := 0; next != "" && pages < 9; pages++ {
		a := r.request("GET", next, nil).want(t, 200)
		var list struct{ Tags []string }
		if err := json.Unmarshal(a.body, &list); err != nil || a.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("%v, %s", err, a.Header.Get("Content-Type"))
		}
		got, next = append(got, list.Tags...), ""
		if l := a.Header.Get("Link"); l != "" {
			next = strings.TrimSuffix(strings.TrimPrefix(strings.Split(l, ";")[0], "<"), ">")
			if u, err := url.Parse(next); err != nil || u.Host != "" {
				t.Fatalf("Link %s leads past Sluice", l)
			}
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("tags %v", got)
	}
	r.request("GET", "/v2/app/tags/list?n=5000", nil).want(t, 200)
	r.request("GET", "/v2/_catalog?n=5000", nil).want(t, 200)
	r.request("GET", "/v2/app/tags/list?last=v1", nil).want(t, 405, "UNSUPPORTED")
}

// A statement that ECR has and no image refers to is shown by HEAD and cannot be read. A client that does not say
// what it looks for skips it; the push is refused with the reason, and the next one brings it.
func TestAStatementThatECRDoesNotGiveBackIsAskedForAgain(t *testing.T) {
	for _, get := range []ecrsim.Answer{{}, {Status: 403, Code: "DENIED"}, {Status: 400, Code: "BLOB_UNKNOWN"}} {
		t.Run(fmt.Sprint(get.Status), func(t *testing.T) {
			r := newAWSRig(t, func(s *ecrsim.Switches) { s.UnreferencedGet = get }, action(filters.Store))
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: forms[0], SBOM: true, Platforms: []string{"linux/amd64"}})
			for _, b := range tree.Statements() { // sent directly, before Sluice was in the way
				location := r.direct("POST", "/v2/app/blobs/uploads/", nil).want(t, 202).Header.Get("Location")
				user, password := r.ecr.Password(r.ecr.AccessKey)
				request(t, "PUT", location+"?digest="+b.Digest, b.Bytes(), "Authorization", basic(user, password)).want(t, 201)
			}
			o := proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree}
			_, err := proxytest.Crane(context.Background(), o)
			if err == nil || !strings.Contains(err.Error(), "push again") {
				t.Fatalf("error = %v", err)
			}
			if _, err := proxytest.Crane(context.Background(), o); err != nil {
				t.Fatal(err)
			}
			if _, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Amazon ECR says that it has `{}`, since something there refers to it, and so no client sends it. What an attestation needs
// of that is known without a copy.
func TestAnOriginalIsWholeWithoutACopyOfTheEmptyBlob(t *testing.T) {
	for _, act := range []filters.Action{filters.Strip, filters.Store} {
		for _, client := range proxytest.Clients() {
			if !client.Indexes {
				continue
			}
			t.Run(fmt.Sprint(act, " ", client.Name), func(t *testing.T) {
				r := newAWSRig(t, nil, action(act))
				before := newRig(t, r.upstream, with(ecrCredentials), action(filters.Forward))
				before.push(proxytest.BuildKit, "app", "0", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact, Build: 1}))
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormArtifact})
				r.push(client.Push, "app", "1", tree)
				back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
				if err == nil {
					err = back.Equal(tree)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
}
