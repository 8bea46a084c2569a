package proxy_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// byTenant is a registry that lets each user into the repositories under its own name, and everybody into the shared ones.
func byTenant(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, ok := r.BasicAuth()
		if !ok || password != "secret-of-"+user {
			w.Header().Set("WWW-Authenticate", `Basic realm="tenants"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}`, http.StatusUnauthorized)
			return
		}
		own := func(path string) bool { return strings.HasPrefix(path, user+"/") || strings.HasPrefix(path, "shared/") }
		if r.URL.Path != "/v2/" && !own(strings.TrimPrefix(r.URL.Path, "/v2/")) {
			// What a registry that hides says: a 404 proves nothing (I9).
			http.Error(w, `{"errors":[{"code":"NAME_UNKNOWN","message":"not found"}]}`, http.StatusNotFound)
			return
		}
		if q := r.URL.Query(); q.Has("from") && !own(q.Get("from")) {
			q.Del("from") // as a registry that may not read the source: 202 and an upload
			q.Del("mount")
			r.URL.RawQuery = q.Encode()
		}
		next.ServeHTTP(w, r)
	})
}

// I9: nothing that Sluice holds, remembers or stores is answered to whom upstream does not let in.
func TestATenantSeesNothingOfAnother(t *testing.T) {
	for _, form := range forms {
		for _, act := range []filters.Action{filters.Store, filters.Strip} {
			t.Run(string(form)+" "+string(act), func(t *testing.T) {
				tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true})
				up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: byTenant, Delete: true})
				r := newRig(t, up, action(act), with(func(c *config.Config) {
					c.Access.Mode = config.AccessPassthrough
					c.Upstreams[0].Credentials = config.CredentialsPassthrough
				}))
				alice, mallory := basic("alice", "secret-of-alice"), basic("mallory", "secret-of-mallory")
				if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Authorization: alice}); err != nil {
					t.Fatal(err)
				}
				var signatures []*signature
				for _, m := range tree.Attestations() {
					s := bundleOf(m)
					s.push(r.request, "alice/app", "Authorization", alice).want(t, http.StatusCreated)
					signatures = append(signatures, s)
				}
				// Half a push: held, and not claimed by any index.
				half := proxytest.Synthetic(proxytest.SyntheticOptions{Seed: 5, Form: form, Build: 9})
				if act == filters.Store {
					pushHalf(t, r, "alice/app", alice, half)
				}
				var paths []string
				for _, tr := range []*proxytest.Tree{tree, half} {
					for _, m := range tr.Manifests() {
						paths = append(paths, "/v2/alice/app/manifests/"+m.Digest, "/v2/alice/app/referrers/"+m.Digest)
					}
					for _, b := range tr.Blobs() {
						paths = append(paths, "/v2/alice/app/blobs/"+b.Digest)
					}
				}
				for _, s := range signatures {
					paths = append(paths, "/v2/alice/app/manifests/"+s.digest, "/v2/alice/app/referrers/"+s.digest, "/v2/alice/app/blobs/"+ocidoc.DigestOf(s.blob))
				}
				paths = append(paths, "/v2/alice/app/manifests/1", "/v2/alice/app/tags/list")
				seen := 0
				for _, path := range paths {
					for _, auth := range []string{mallory, basic("alice", "guessed"), ""} {
						for _, method := range []string{http.MethodHead, http.MethodGet} {
							a := r.request(method, path, nil, append([]string{"Authorization", auth, "Accept", "application/vnd.in-toto+json"}, acceptAll...)...)
							referrers := strings.Contains(path, "/referrers/")
							if a.StatusCode == http.StatusOK && !(referrers && !strings.Contains(string(a.body), "sha256:")) {
								t.Errorf("%s %s as %q: %s %s", method, path, auth, a.Status, a.body)
							}
							if v := a.Header.Get("Sluice-Forwarded-Digest"); v != "" {
								t.Errorf("%s %s tells mallory %s", method, path, v)
							}
						}
						for _, method := range []string{http.MethodDelete} {
							if a := r.request(method, path, nil, "Authorization", auth); a.StatusCode < 400 {
								t.Errorf("%s %s as %q: %s", method, path, auth, a.Status)
							}
						}
					}
					if a := r.request(http.MethodGet, path, nil, append([]string{"Authorization", alice}, acceptAll...)...); a.StatusCode == http.StatusOK {
						seen++
					}
				}
				if seen < len(paths)/2 {
					t.Errorf("alice herself sees only %d of %d: the test proves nothing", seen, len(paths))
				}
			})
		}
	}
}

// I9, where upstream has no tag and no manifest that a read could be tried on, and this replica took none of the push.
func TestWhatAFirstPushLeftIsReadByItsPusherOnAnyReplica(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		tenants := byTenant(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if user, _, _ := r.BasicAuth(); user == "reader" { // everywhere
				if r.Method != http.MethodGet && r.Method != http.MethodHead {
					http.Error(w, `{"errors":[{"code":"DENIED","message":"you may only read"}]}`, http.StatusForbidden)
					return
				}
				r.SetBasicAuth("alice", "secret-of-alice")
			}
			tenants.ServeHTTP(w, r)
		})
	}})
	shared := inmemory.New()
	first, second := newRig(t, up, storage(shared), with(passthrough)), newRig(t, up, storage(shared), with(passthrough))
	for _, form := range forms {
		tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: form, SBOM: true})
		pushHalf(t, first, "alice/app", alice, tree)
		for _, m := range tree.Attestations() {
			for path, want := range map[string][]byte{"manifests/" + m.Digest: m.Bytes(), "blobs/" + m.Blobs()[0].Digest: m.Blobs()[0].Bytes()} {
				get := func(auth string) *answer {
					return second.request(http.MethodGet, "/v2/alice/app/"+path, nil, append([]string{"Authorization", auth}, acceptAll...)...)
				}
				get(mallory).want(t, http.StatusNotFound)
				get(basic("alice", "guessed")).want(t, http.StatusUnauthorized)
				get(basic("reader", "")).want(t, http.StatusNotFound) // upstream does not say that it may read what is not there yet
				if a := get(alice).want(t, http.StatusOK); !bytes.Equal(a.body, want) {
					t.Errorf("%s %s: %.80s", form, path, a.body)
				}
				get(mallory).want(t, http.StatusNotFound)
			}
		}
	}
}

// A mount does not read another tenant's blobs, and an upload URL is worth nothing in other hands.
func TestATenantCannotUseAnothersUploads(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: byTenant})
	r := newRig(t, up, with(func(c *config.Config) {
		c.Access.Mode = config.AccessPassthrough
		c.Upstreams[0].Credentials = config.CredentialsPassthrough
	}))
	alice, mallory := basic("alice", "secret-of-alice"), basic("mallory", "secret-of-mallory")
	if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Authorization: alice}); err != nil {
		t.Fatal(err)
	}
	for _, b := range tree.Blobs() {
		a := r.request(http.MethodPost, "/v2/mallory/app/blobs/uploads/?from=alice/app&mount="+b.Digest, nil, "Authorization", mallory)
		if a.StatusCode == http.StatusCreated {
			t.Errorf("mallory mounted %s of alice", b.Name)
		}
	}
	a := r.request(http.MethodPost, "/v2/alice/app/blobs/uploads/", nil, "Authorization", alice).want(t, http.StatusAccepted)
	statement := tree.Statements()[0]
	a = r.request(http.MethodPut, a.Header.Get("Location")+"?digest="+statement.Digest, statement.Bytes(), "Authorization", mallory)
	a.want(t, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN")
}

// pushHalf sends everything of a tree but its index.
func pushHalf(t *testing.T, r *rig, repo, auth string, tree *proxytest.Tree) {
	t.Helper()
	for _, m := range tree.Attestations() {
		for _, b := range m.Blobs() {
			a := r.request(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, "Authorization", auth).want(t, http.StatusAccepted)
			r.request(http.MethodPut, a.Header.Get("Location")+"?digest="+b.Digest, b.Bytes(), "Authorization", auth).want(t, http.StatusCreated)
		}
		r.request(http.MethodPut, "/v2/"+repo+"/manifests/"+m.Digest, m.Bytes(), "Authorization", auth, "Content-Type", m.MediaType).want(t, http.StatusCreated)
	}
}
