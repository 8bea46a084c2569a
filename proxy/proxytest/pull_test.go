package proxytest

import (
	"net/http"
	"strings"
	"testing"
)

func TestPullAllRefusesWhatDoesNotBelongTogether(t *testing.T) {
	tree := Synthetic(SyntheticOptions{Form: FormLegacy})
	for name, c := range map[string]struct {
		change func(*http.Request, int, http.Header) int
		says   string
	}{
		"an attestation manifest is not there": {func(r *http.Request, s int, _ http.Header) int {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, tree.Attestations()[0].Digest) {
				return 404
			}
			return s
		}, "404 Not Found"},
		"a statement is not there": {func(r *http.Request, s int, _ http.Header) int {
			if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, tree.Statements()[1].Digest) {
				return 404
			}
			return s
		}, "statement-arm64-provenance"},
		"HEAD names another digest than GET": {func(r *http.Request, s int, h http.Header) int {
			if r.Method == http.MethodHead && strings.HasSuffix(r.URL.Path, "/manifests/1") {
				h.Set("Docker-Content-Digest", tree.Images()[0].Digest)
			}
			return s
		}, "HEAD says Docker-Content-Digest"},
		"the digest is not the content's": {func(r *http.Request, s int, h http.Header) int {
			if strings.HasSuffix(r.URL.Path, "/manifests/1") {
				h.Set("Docker-Content-Digest", tree.Images()[0].Digest)
			}
			return s
		}, "Docker-Content-Digest says"},
		"a child has another media type": {func(r *http.Request, s int, h http.Header) int {
			if strings.HasSuffix(r.URL.Path, tree.Images()[0].Digest) {
				h.Set("Content-Type", "application/json")
			}
			return s
		}, "has Content-Type application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, broken := testContext(t), false
			u := NewDistribution(t, UpstreamOptions{Wrap: mangled(func(r *http.Request, s int, h http.Header) int {
				if broken {
					return c.change(r, s, h)
				}
				return s
			})})
			if _, err := BuildKit(ctx, Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := PullAll(ctx, u.URL, "app", "1"); err != nil {
				t.Fatal(err)
			}
			broken = true
			if _, err := PullAll(ctx, u.URL, "app", "1"); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("PullAll says %v, want %q", err, c.says)
			}
		})
	}
}

func TestASeededLayerIsNotTakenForItsBytes(t *testing.T) {
	tree, ctx := Documents(t, "c-single-min"), testContext(t)
	for kind, upstream := range Upstreams() {
		u := upstream(t, UpstreamOptions{})
		o := Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree}
		if _, err := BuildKit(ctx, o); err == nil || !strings.Contains(err.Error(), "seed the upstream") {
			t.Errorf("%s: a push of layers without bytes says %v", kind, err)
		}
		u = upstream(t, UpstreamOptions{})
		u.Seed(t, "app", tree)
		if _, err := BuildKit(ctx, o.at(u)); err != nil {
			t.Fatal(err)
		}
		if _, err := PullAll(ctx, u.URL, "app", "1"); err == nil || !strings.Contains(err.Error(), "has the digest") {
			t.Errorf("%s: zeroes pass for a layer: %v", kind, err)
		}
	}
}

func (o Options) at(u *Upstream) Options {
	o.BaseURL = u.URL
	return o
}
