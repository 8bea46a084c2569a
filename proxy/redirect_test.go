package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// moved is a registry that has moved to another address, for the requests that match: what an
// http:// address in front of an https:// one does. The rig's upstream is where it has moved to.
func moved(t *testing.T, status int, match func(*http.Request) bool) *rig {
	t.Helper()
	target := proxytest.NewDistribution(t, proxytest.UpstreamOptions{NoValidation: true, Delete: true})
	front := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if match(r) {
				http.Redirect(w, r, target.URL+r.URL.RequestURI(), status)
				return
			}
			target.Handler.ServeHTTP(w, r)
		})
	}})
	return newRig(t, target, with(func(c *config.Config) { c.Upstreams[0].URL = front.URL }))
}

func isWrite(r *http.Request) bool { return r.Method != http.MethodGet && r.Method != http.MethodHead }

// I2: a client that followed would take its index around Sluice as it is. Whoever set Sluice up is
// told the address to use instead.
func TestAWriteThatUpstreamRedirectsIsRefused(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	image := tree.Images()[0]
	layer := image.Layers[0]
	for _, status := range []int{301, 302, 307, 308} {
		for what, write := range map[string]func(r *rig) *answer{
			"start of an upload": func(r *rig) *answer { return r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil) },
			"mount": func(r *rig) *answer {
				return r.request(http.MethodPost, "/v2/app/blobs/uploads/?from=b&mount="+layer.Digest, nil)
			},
			"blob": func(r *rig) *answer {
				return r.request(http.MethodPut, put(r.upload("app"), layer.Digest), layer.Bytes())
			},
			"chunk": func(r *rig) *answer { return r.request(http.MethodPatch, r.upload("app"), layer.Bytes()) },
			"image": func(r *rig) *answer {
				return r.request(http.MethodPut, "/v2/app/manifests/"+image.Digest, image.Bytes(), "Content-Type", ociManifest)
			},
			"index": func(r *rig) *answer {
				return r.request(http.MethodPut, "/v2/app/manifests/1", indexOf(), "Content-Type", ociIndex)
			},
			"delete":          func(r *rig) *answer { return r.request(http.MethodDelete, "/v2/app/manifests/"+image.Digest, nil) },
			"delete of blobs": func(r *rig) *answer { return r.request(http.MethodDelete, "/v2/app/blobs/"+layer.Digest, nil) },
		} {
			t.Run(fmt.Sprint(status, " ", what), func(t *testing.T) {
				// Only the last request of each is redirected: those that lead to it are let through.
				r := moved(t, status, func(r *http.Request) bool {
					if strings.HasSuffix(what, "blob") || what == "chunk" {
						return r.Method == http.MethodPut || r.Method == http.MethodPatch
					}
					return isWrite(r)
				})
				a := write(r).want(t, http.StatusBadGateway, "UNAVAILABLE")
				if !strings.Contains(string(a.body), "upstream redirects writes to "+r.upstream.URL+": set upstreams[].url of sluice to it") {
					t.Errorf("no word about what to do: %s", a.body)
				}
				if l := a.Header.Get("Location"); l != "" {
					t.Errorf("the client is sent to %s", l)
				}
				if c := r.upstream.Inspect(t).Repository("app"); len(c.Manifests)+len(c.Blobs) > 0 {
					t.Errorf("upstream holds %d manifests and %d blobs", len(c.Manifests), len(c.Blobs))
				}
			})
		}
	}
}

// I2, with clients that follow any redirect, with its body where the status says so.
func TestNoClientCarriesAnIndexAroundSluice(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	client := &http.Client{Transport: transport}
	for _, only := range []string{"/v2/", "/manifests/"} {
		t.Run("redirected are writes to "+only, func(t *testing.T) {
			r := moved(t, http.StatusPermanentRedirect, func(r *http.Request) bool { return isWrite(r) && strings.Contains(r.URL.Path, only) })
			_, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Client: client})
			if err == nil || !strings.Contains(err.Error(), r.upstream.URL) {
				t.Errorf("the push does not say what is wrong: %v", err)
			}
			for _, ref := range []string{"1", tree.Digest()} {
				req, err := http.NewRequest(http.MethodPut, r.url()+"/v2/app/manifests/"+ref, bytes.NewReader(tree.Root.Bytes()))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", ociIndex)
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode < 400 {
					t.Errorf("PUT of the index as %s: %s", ref, resp.Status)
				}
			}
			r.proxy.Settle()
			if n := len(r.upstream.Inspect(t).Repository("app").Manifests); n > 0 {
				t.Errorf("%d manifests are upstream", n)
			}
			proxytest.AssertClean(t, r.upstream)
		})
	}
}

// I8: where layers are read from is upstream's choice, and the way there does not lead back through Sluice.
func TestReadsThatUpstreamRedirectsAreSentThere(t *testing.T) {
	image := proxytest.Synthetic(proxytest.SyntheticOptions{Platforms: []string{"linux/amd64"}})
	r := moved(t, http.StatusTemporaryRedirect, func(r *http.Request) bool {
		return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:")
	})
	r.push(proxytest.BuildKit, "app", "1", image)
	path := "/v2/app/blobs/" + image.Root.Layers[0].Digest
	a := r.request(http.MethodGet, path, nil).want(t, http.StatusTemporaryRedirect)
	if got := a.Header.Get("Location"); got != r.upstream.URL+path {
		t.Errorf("Location %q, want %q", got, r.upstream.URL+path)
	}
}

// What an answer says for one connection ends there (RFC 9110 section 7.6.1), also what it names itself.
func TestHeadersOfTheConnectionToTheRegistryAreNotPassedOn(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "keep-alive, x-hop")
			w.Header().Set("Keep-Alive", "timeout=5")
			w.Header().Set("X-Hop", "1")
			w.Header().Set("X-End", "1")
		})
	}}))
	a := r.request(http.MethodGet, "/v2/app/tags/list", nil).want(t, http.StatusOK)
	if a.Header.Get("X-Hop") != "" || a.Header.Get("Keep-Alive") != "" || a.Header.Get("X-End") != "1" {
		t.Errorf("%v", a.Header)
	}
}
