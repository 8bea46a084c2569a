package proxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

func passthrough(c *config.Config) {
	c.Access.Mode = config.AccessPassthrough
	c.Upstreams[0].Credentials = config.CredentialsPassthrough
}

var alice, mallory = basic("alice", "secret-of-alice"), basic("mallory", "secret-of-mallory")

// pushedByAlice is a registry of tenants in which alice has pushed an image with attestations.
func pushedByAlice(t *testing.T, wrap func(http.Handler) http.Handler, settings ...setting) (*rig, *proxytest.Tree) {
	t.Helper()
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: wrap}), append([]setting{with(passthrough)}, settings...)...)
	o := proxytest.Options{BaseURL: r.url(), Repository: "alice/app", Tags: []string{"1"}, Tree: tree, Authorization: alice}
	if _, err := proxytest.BuildKit(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	r.proxy.Settle()
	return r, tree
}

// same fails the test when two answers differ in anything but the time.
func same(t *testing.T, what string, got, want *answer) {
	t.Helper()
	got.Header.Del("Date")
	want.Header.Del("Date")
	if got.StatusCode != want.StatusCode || fmt.Sprint(got.Header) != fmt.Sprint(want.Header) || string(got.body) != string(want.body) {
		t.Errorf("%s: %s %v %s, otherwise %s %v %s", what, got.Status, got.Header, got.body, want.Status, want.Header, want.body)
	}
}

// I9: what a digest was forwarded as is part of the push, and not for who may not push.
func TestSigningTellsStrangersNothingOfWhatWasPushed(t *testing.T) {
	for _, mode := range []config.SignedOriginals{config.SignedRefuse, config.SignedWarn} {
		t.Run(string(mode), func(t *testing.T) {
			r, tree := pushedByAlice(t, byTenant, with(func(c *config.Config) { c.SignedOriginals = mode }))
			sign := func(auth, digest string, bySubject bool) *answer {
				subject := ""
				if bySubject {
					subject = fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":%d}`, ociIndex, digest, tree.Root.Size)
				}
				m := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[]%s}`,
					ociManifest, filters.EmptyDigest, subject))
				ref := filters.FallbackTag(digest) + ".sig"
				if bySubject {
					ref = ocidoc.DigestOf(m)
				}
				return r.request(http.MethodPut, "/v2/alice/app/manifests/"+ref, m, "Authorization", auth, "Content-Type", ociManifest)
			}
			never := "sha256:" + strings.Repeat("ab", 32)
			for _, bySubject := range []bool{false, true} {
				for _, auth := range []string{mallory, basic("alice", "guessed"), ""} {
					pushed, other := sign(auth, tree.Digest(), bySubject), sign(auth, never, bySubject)
					same(t, fmt.Sprintf("signing alice's original as %q, by subject %t", auth, bySubject), pushed, other)
					if pushed.StatusCode != http.StatusNotFound && pushed.StatusCode != http.StatusUnauthorized {
						t.Errorf("%q may sign in alice's repository: %s %s", auth, pushed.Status, pushed.body)
					}
				}
				a := sign(alice, tree.Digest(), bySubject)
				if told := fmt.Sprint(a.Header.Values("Warning"), string(a.body)); !strings.Contains(told, tree.Digest()+" was forwarded as ") {
					t.Errorf("alice is not told either, the test proves nothing: %s %s", a.Status, told)
				}
			}
		})
	}
}

// I9: an index is judged by what is held, and what is taken out of it is kept: both only for who may push.
func TestAnIndexOfAStrangerIsNeitherJudgedNorKept(t *testing.T) {
	r, tree := pushedByAlice(t, byTenant)
	held := tree.Attestations()[0]
	kept, tags := r.files("/", ""), len(r.upstream.Inspect(t).Repository("alice/app").Tags)
	for name, ref := range map[string]string{"referrers tag": "sha256-" + strings.Repeat("ab", 32), "tag": "2", "digest": ""} {
		for _, auth := range []string{mallory, basic("alice", "guessed"), ""} {
			put := func(digest string) *answer {
				body, to := indexOf(entryOf(ociManifest, digest, int(held.Size))), ref
				if to == "" {
					to = ocidoc.DigestOf(body)
				}
				return r.request(http.MethodPut, "/v2/alice/app/manifests/"+to, body, "Authorization", auth, "Content-Type", ociIndex)
			}
			known, unknown := put(held.Digest), put("sha256:"+strings.Repeat("cd", 32))
			same(t, fmt.Sprintf("an index by %s as %q", name, auth), known, unknown)
			if known.StatusCode != http.StatusNotFound && known.StatusCode != http.StatusUnauthorized {
				t.Errorf("an index by %s as %q: %s %s", name, auth, known.Status, known.body)
			}
		}
	}
	if now := r.files("/", ""); !slices.Equal(now, kept) {
		t.Errorf("storage has changed: %d files before, %d after", len(kept), len(now))
	}
	if n := len(r.upstream.Inspect(t).Repository("alice/app").Tags); n != tags {
		t.Errorf("%d tags upstream, %d before", n, tags)
	}
}

// I9: a front end may send everybody elsewhere before it looks at credentials.
func TestARedirectProvesNoAuthority(t *testing.T) {
	r, tree := pushedByAlice(t, func(next http.Handler) http.Handler {
		tenants := byTenant(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/tags/list") {
				http.Redirect(w, r, "https://region.registry.example"+r.URL.RequestURI(), http.StatusTemporaryRedirect)
				return
			}
			tenants.ServeHTTP(w, r)
		})
	})
	statement := tree.Statements()[0].Digest
	for _, path := range []string{"blobs/" + statement, "manifests/" + tree.Attestations()[0].Digest} {
		for _, auth := range []string{mallory, ""} {
			a := r.request(http.MethodGet, "/v2/alice/app/"+path, nil, "Authorization", auth)
			if a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusUnauthorized {
				t.Errorf("%q reads alice's %s: %s %.80s", auth, path, a.Status, a.body)
			}
		}
	}
	// A manifest that she is shown proves it.
	r.request(http.MethodGet, "/v2/alice/app/manifests/1", nil, append([]string{"Authorization", alice}, acceptAll...)...).want(t, http.StatusOK)
	r.request(http.MethodGet, "/v2/alice/app/blobs/"+statement, nil, "Authorization", alice).want(t, http.StatusOK)
}

// I9: where Sluice's own credentials reach further than the client's permissions, upstream is not
// asked to find a blob anywhere, nor in a repository that the client may not read.
func TestAMountReachesNoFurtherThanThePermissions(t *testing.T) {
	var mu sync.Mutex
	var asked []url.Values
	up := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				mu.Lock()
				asked = append(asked, r.URL.Query())
				mu.Unlock()
			}
			next.ServeHTTP(w, r)
		})
	}})
	r := newRig(t, up, with(func(c *config.Config) {
		c.Access.Permissions = []config.Permission{
			{Identity: "*", Repositories: []string{"mine/**"}, Actions: []string{"pull", "push"}},
			{Identity: "*", Repositories: []string{"inbox/**"}, Actions: []string{"push"}},
		}
	}))
	for from, mounts := range map[string]bool{"": false, "other/app": false, "inbox/app": false, "mine/base": true} {
		asked = nil
		q := url.Values{"mount": {filters.EmptyDigest}}
		if from != "" {
			q.Set("from", from)
		}
		a := r.request(http.MethodPost, "/v2/mine/app/blobs/uploads/?"+q.Encode(), nil).want(t, http.StatusAccepted)
		if a.Header.Get("Location") == "" {
			t.Errorf("from %q: a refused mount is no upload", from)
		}
		if got := slices.ContainsFunc(asked, func(q url.Values) bool { return q.Has("mount") }); got != mounts {
			t.Errorf("from %q: upstream is asked %v", from, asked)
		}
	}
}

// I7, I9: deleted is deleted. Neither a digest nor the sweeper brings an attestation back.
func TestADeletedAttestationStaysDeleted(t *testing.T) {
	for _, act := range []filters.Action{filters.Store, filters.Strip} {
		t.Run(string(act), func(t *testing.T) {
			now := time.Now()
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Delete: true}), action(act), clock(func() time.Time { return now }))
			r.push(proxytest.BuildKit, "app", "1", tree)
			attestation, statement := tree.Attestations()[0].Digest, tree.Statements()[0].Digest
			r.request(http.MethodDelete, "/v2/app/manifests/"+attestation, nil).want(t, http.StatusAccepted)
			gone := func() {
				t.Helper()
				r.request(http.MethodGet, "/v2/app/manifests/"+attestation, nil, acceptAll...).want(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
				r.request(http.MethodGet, "/v2/app/blobs/"+statement, nil).want(t, http.StatusNotFound, "BLOB_UNKNOWN")
				if n := len(r.referrers("app", tree.Images()[0].Digest).Manifests); n != 0 {
					t.Errorf("%d referrers", n)
				}
			}
			gone()
			r.request(http.MethodDelete, "/v2/app/manifests/"+attestation, nil).want(t, http.StatusNotFound)
			now = now.Add(97 * time.Hour)
			r.proxy.Sweep(context.Background())
			gone()
			if kept := r.files("/attestations", "/_unclaimed/"); len(kept) > 0 {
				t.Errorf("the sweeper keeps aside what was deleted: %v", kept)
			}
		})
	}
}

// A token that ends in the middle of an upload that is held ends nothing else: who has signed in again goes on.
func TestAHeldUploadOutlivesTheTokenItBeganWith(t *testing.T) {
	now := time.Now()
	var ended atomic.Bool
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if ended.Load() {
				w.Header().Set("WWW-Authenticate", `Bearer realm="https://token.example/token"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, q)
		})
	}})
	r := newRig(t, up, clock(func() time.Time { return now }), with(passthrough))
	ask := func(method, path string, body []byte) *answer {
		t.Helper()
		return r.request(method, path, body, "Authorization", alice)
	}
	statement := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, StatementSize: 4096}).Statements()[0]
	b := statement.Bytes()
	// again sends something before and after signing in again.
	again := func(method, path string, body []byte) *answer {
		t.Helper()
		now = now.Add(2 * time.Minute) // what upstream agreed to lately counts no more
		ended.Store(true)
		ask(method, path, body).want(t, http.StatusUnauthorized)
		ended.Store(false)
		return ask(method, path, body)
	}
	location := ask(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	location = ask(http.MethodPatch, location, b[:2000]).want(t, http.StatusAccepted).Header.Get("Location")
	location = again(http.MethodPatch, location, b[2000:3000]).want(t, http.StatusAccepted).Header.Get("Location")
	again(http.MethodPut, put(location, statement.Digest), b[3000:]).want(t, http.StatusCreated)
}
