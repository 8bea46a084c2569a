package proxytest

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// mangled answers as the registry does, but for what change makes of it.
func mangled(change func(r *http.Request, status int, header http.Header) int) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			status := change(r, rec.Code, rec.Header())
			for k, v := range rec.Header() {
				w.Header()[k] = v
			}
			if status != rec.Code && status >= 400 {
				refuse(w, r, status, map[int]string{429: "TOOMANYREQUESTS", 503: "UNAVAILABLE"}[status])
				return
			}
			w.WriteHeader(status)
			if r.Method != http.MethodHead {
				_, _ = w.Write(rec.Body.Bytes())
			}
		})
	}
}

func manifestPut(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
}

func blobPut(r *http.Request) bool {
	return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/")
}

// What a pusher accepts and refuses is what the real client was seen to.
func TestEachClientChecksAnswersAsTheRealOneDoes(t *testing.T) {
	const other = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	status := func(matches func(*http.Request) bool, to int) func(*http.Request, int, http.Header) int {
		return func(r *http.Request, s int, _ http.Header) int {
			if matches(r) && s == 201 {
				return to
			}
			return s
		}
	}
	digest := func(matches func(*http.Request) bool, to string) func(*http.Request, int, http.Header) int {
		return func(r *http.Request, s int, h http.Header) int {
			if matches(r) && s == 201 {
				if h.Del("Docker-Content-Digest"); to != "" {
					h.Set("Docker-Content-Digest", to)
				}
			}
			return s
		}
	}
	all := "buildkit docker-29 containerd-1.6 docker-20.10 skopeo crane oras regctl imagetools"
	for _, c := range []struct {
		answer string
		change func(*http.Request, int, http.Header) int
		fails  string // clients
		says   map[string]string
	}{
		{"manifest PUT with another digest", digest(manifestPut, other), "buildkit imagetools docker-29 containerd-1.6 regctl oras", map[string]string{
			"buildkit": "got digest " + other + ", expected sha256:", "regctl": "unexpected digest returned", "oras": "digest mismatch in Docker-Content-Digest",
		}},
		{"manifest PUT without digest", digest(manifestPut, ""), "docker-20.10 containerd-1.6", map[string]string{
			"docker-20.10": "invalid checksum digest format", "containerd-1.6": "invalid checksum digest format",
		}},
		{"blob PUT with another digest", digest(blobPut, other), "buildkit imagetools docker-29 containerd-1.6", map[string]string{"buildkit": "failed commit on ref"}},
		{"blob PUT without digest", digest(blobPut, ""), "containerd-1.6", nil},
		{"manifest PUT answered 200", status(manifestPut, 200), "regctl oras", nil},
		{"manifest PUT answered 202", status(manifestPut, 202), "buildkit imagetools docker-29 containerd-1.6 regctl oras", nil},
		{"every HEAD answered 404", func(r *http.Request, s int, _ http.Header) int {
			if r.Method == http.MethodHead {
				return 404
			}
			return s
		}, "docker-20.10", map[string]string{"docker-20.10": "unknown blob"}},
		{"mount answered 404", func(r *http.Request, s int, _ http.Header) int {
			if r.Method == http.MethodPost && r.URL.Query().Has("mount") {
				return 404
			}
			return s
		}, "buildkit docker-29 containerd-1.6", nil},
		{"manifest HEAD answered 405", func(r *http.Request, s int, _ http.Header) int {
			if r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/manifests/") {
				return 405
			}
			return s
		}, "crane", nil},
		{"blob PUT refused", status(blobPut, 403), all, nil},
		{"manifest PUT refused", status(manifestPut, 403), all, nil},
	} {
		for _, client := range Clients() {
			t.Run(c.answer+"/"+client.Name, func(t *testing.T) {
				u := NewDistribution(t, UpstreamOptions{Wrap: mangled(c.change)})
				_, err := client.Push(testContext(t), Options{
					BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: Synthetic(SyntheticOptions{Form: FormLegacy}), MountFrom: "other",
				})
				if want := strings.Contains(" "+c.fails+" ", " "+client.Name+" "); want != (err != nil) {
					t.Fatalf("the push fails: %v (%v), with the real client %v", err != nil, err, want)
				}
				if says := c.says[client.Name]; says != "" && !strings.Contains(err.Error(), says) {
					t.Errorf("it says %q, the real one %q", err, says)
				}
			})
		}
	}
}

func TestEachClientRetriesAManifestAsTheRealOneDoes(t *testing.T) {
	for status, retries := range map[int]string{
		429: " buildkit imagetools docker-29 containerd-1.6 crane regctl oras ",
		503: " buildkit imagetools docker-29 crane oras ",
	} {
		for _, client := range Clients() {
			t.Run(http.StatusText(status)+"/"+client.Name, func(t *testing.T) {
				var refused atomic.Bool
				u := NewDistribution(t, UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if manifestPut(r) && refused.CompareAndSwap(false, true) {
							refuse(w, r, status, map[int]string{429: "TOOMANYREQUESTS", 503: "UNAVAILABLE"}[status])
							return
						}
						next.ServeHTTP(w, r)
					})
				}})
				_, err := client.Push(testContext(t), Options{
					BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: Synthetic(SyntheticOptions{}), Retries: 3,
				})
				if want := strings.Contains(retries, " "+client.Name+" "); want != (err == nil) {
					t.Errorf("the push succeeds: %v (%v), with the real client %v", err == nil, err, want)
				}
			})
		}
	}
}

func TestCredentialsAreSentOnlyOnceAskedFor(t *testing.T) {
	authorization := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret"))
	for _, client := range Clients() {
		t.Run(client.Name, func(t *testing.T) {
			tree, ctx := Synthetic(SyntheticOptions{Form: FormLegacy}), testContext(t)
			recorder := NewRecorder(tree)
			u := NewOlareg(t, UpstreamOptions{Wrap: func(h http.Handler) http.Handler { return recorder.Handler(RequireBasic(h, "me", "secret")) }})
			o := Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree, Authorization: authorization}
			result, err := client.Push(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			first := recorder.Exchanges()[0]
			if first.Header.Get("Authorization") != "" || first.Status != http.StatusUnauthorized {
				t.Errorf("the first request is %s with credentials %v", recorder.Line(first), first.Header.Get("Authorization") != "")
			}
			for _, e := range recorder.Exchanges() {
				if e.Status == http.StatusUnauthorized && e.BodySize > 0 {
					t.Errorf("a body was sent before the challenge: %s", recorder.Line(e))
				}
			}
			if _, err := Pull(ctx, PullOptions{BaseURL: u.URL, Repository: "app", Reference: result.Digest, Authorization: authorization}); err != nil {
				t.Error(err)
			}
			o.Authorization, o.Repository = "", "other"
			if _, err := client.Push(ctx, o); err == nil {
				t.Error("a push without credentials succeeds")
			}
		})
	}
}

func TestBlobsThatAnotherRepositoryHasAreMounted(t *testing.T) {
	tree := Synthetic(SyntheticOptions{Layers: 2, Form: FormLegacy})
	for _, client := range Clients() {
		if client.Name == "imagetools" || client.Name == "oras" {
			continue // neither asks for a mount
		}
		t.Run(client.Name, func(t *testing.T) {
			ctx, u := testContext(t), NewDistribution(t, UpstreamOptions{})
			o := Options{BaseURL: u.URL, Repository: "base", Tags: []string{"1"}, Tree: tree}
			if _, err := BuildKit(ctx, o); err != nil {
				t.Fatal(err)
			}
			o.Repository, o.MountFrom = "team/app", "base"
			result, err := client.Push(ctx, o)
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Uploaded) > 0 || len(result.Mounted) < 3 {
				t.Errorf("mounted %v, uploaded %v", result.Mounted, result.Uploaded)
			}
			AssertComplete(t, u)
		})
	}
}

func TestBuildKitPushesByDigestAndImagetoolsCombines(t *testing.T) {
	for kind, upstream := range Upstreams() {
		t.Run(kind, func(t *testing.T) {
			ctx, u := testContext(t), upstream(t, UpstreamOptions{})
			var sources []Source
			var parts []*Tree
			for i, platform := range []string{"linux/amd64", "linux/arm64"} {
				part := Synthetic(SyntheticOptions{Seed: uint64(i), Platforms: []string{platform}, Layers: 2, Form: FormLegacy, LayerSize: 100_000})
				parts = append(parts, part)
				if _, err := BuildKit(ctx, Options{BaseURL: u.URL, Repository: "app", ByDigest: true, Tree: part}); err != nil {
					t.Fatal(err)
				}
				sources = append(sources, Source{Repository: "app", Reference: part.Digest()})
			}
			for _, destination := range []string{"app", "elsewhere"} {
				result, err := ImagetoolsCreate(ctx, Options{BaseURL: u.URL, Repository: destination, Tags: []string{"1"}, Sources: sources})
				if err != nil {
					t.Fatal(err)
				}
				back, err := PullAll(ctx, u.URL, destination, "1")
				if err != nil {
					t.Fatal(err)
				}
				if err := result.Pushed.Equal(back); err != nil {
					t.Error(err)
				}
				if len(back.Images()) != 2 || len(back.Attestations()) != 2 || back.Images()[0].Digest != parts[0].Images()[0].Digest {
					t.Errorf("the combined index lists %d images and %d attestations", len(back.Images()), len(back.Attestations()))
				}
			}
			if _, err := ImagetoolsCreate(ctx, Options{BaseURL: u.URL, Repository: "app", Tags: []string{"2"}, Sources: []Source{{Repository: "app", Reference: "none"}}}); err == nil {
				t.Error("a source that is not there is no error")
			}
		})
	}
}

// The genuine f-matrix is made the way the test above makes its own: imagetools' bytes must be the same.
func TestImagetoolsWritesTheGenuineCombinedIndex(t *testing.T) {
	trees, ctx, u := AllDocuments(t, "f-matrix"), testContext(t), NewOlareg(t, UpstreamOptions{})
	u.Seed(t, "app", trees...)
	var sources []Source
	for _, tree := range trees[:2] {
		if _, err := BuildKit(ctx, Options{BaseURL: u.URL, Repository: "app", ByDigest: true, Tree: tree}); err != nil {
			t.Fatal(err)
		}
		sources = append(sources, Source{Repository: "app", Reference: tree.Digest()})
	}
	result, err := ImagetoolsCreate(ctx, Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1.0"}, Sources: sources})
	if err != nil {
		t.Fatal(err)
	}
	if result.Digest != trees[2].Digest() {
		t.Errorf("the combined index is %s, genuinely %s:\n%s", result.Digest, trees[2].Digest(), result.Pushed.Root.Bytes())
	}
}
