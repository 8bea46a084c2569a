package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// recorded builds a rig with a recorder on both sides.
func recorded(t *testing.T, newUpstream func(testing.TB, proxytest.UpstreamOptions) *proxytest.Upstream, tr *proxytest.Transcript, settings ...setting) *rig {
	up := newUpstream(t, proxytest.UpstreamOptions{Wrap: tr.Upstream.Handler})
	return newRig(t, up, append(settings, before(tr.Client.Handler))...)
}

// What Sluice asks of upstream for what a client asks of it, request by request. A request more in
// one of these files is a cost that somebody has to defend.
func TestTranscripts(t *testing.T) {
	pushers := map[string]proxytest.Pusher{
		"buildkit": proxytest.BuildKit, "docker-20.10": proxytest.Docker20, "skopeo": proxytest.Skopeo,
		"crane": proxytest.Crane, "oras": proxytest.Oras,
	}
	for name, push := range pushers {
		for _, act := range []filters.Action{filters.Store, filters.Strip, filters.Forward} {
			t.Run(name+" "+string(act), func(t *testing.T) {
				for _, genuine := range []bool{false, true} {
					transcript(t, name, push, act, genuine)
				}
			})
		}
	}
}

// transcript records a first and a repeated push: of a generated image with layers, and of a genuine
// one over layers that upstream has already.
func transcript(t *testing.T, name string, push proxytest.Pusher, act filters.Action, genuine bool) {
	t.Helper()
	tree, file := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}), name+"-"+string(act)
	if genuine {
		tree, file = proxytest.Documents(t, "b-multi-max-sbom"), "genuine/"+file
	}
	plain, err := proxytest.Stripped(tree)
	if err != nil {
		t.Fatal(err)
	}
	tr := proxytest.NewTranscript()
	tr.Name(map[string]string{plain.Digest(): "forwarded-index"})
	tr.Name(tree.Names())
	r := recorded(t, proxytest.NewDistribution, tr, action(act))
	if genuine {
		r.upstream.Seed(t, "app", tree)
	}
	var b strings.Builder
	for _, title := range []string{"first", "repeated"} {
		tr.Reset()
		if _, err := push(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "# %s push\n%s\n", title, tr.Text())
	}
	if act != filters.Forward {
		proxytest.AssertNotSent(t, tr.Upstream, tree)
	}
	proxytest.Golden(t, "transcripts/"+file+".txt", b.String())
}

// Genuine documents of BuildKit, over layers that upstream has already.
func TestTranscriptsOfGenuineDocuments(t *testing.T) {
	for _, scenario := range []string{"a-multi-min", "b-multi-max-sbom", "c-single-min", "d-oci-artifact", "k-nested-index", "m-docker-engine"} {
		t.Run(scenario, func(t *testing.T) {
			tree := proxytest.Documents(t, scenario)
			tr := proxytest.NewTranscript(tree)
			r := recorded(t, proxytest.NewDistribution, tr)
			r.upstream.Seed(t, "app", tree)
			if _, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true}); err != nil {
				t.Fatal(err)
			}
			stripped, err := proxytest.Stripped(tree)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.upstreamDigest("app", "1"); got != stripped.Digest() {
				t.Errorf("upstream has %s, want %s", got, stripped.Digest())
			}
			proxytest.AssertNotSent(t, tr.Upstream, tree)
			proxytest.AssertClean(t, r.upstream)
			tr.Name(stripped.Names())
			proxytest.Golden(t, "transcripts/genuine-"+scenario+".txt", tr.Text())
		})
	}
}

// A push of two platforms with two statements each takes 52 requests directly and 30 without
// attestations. The two more are HEADs of the attestations' configs, which look like those of images; the
// digests of their manifests follow from their blobs (foretold.go).
func TestAPushOf52RequestsNeedsAtMost36Upstream(t *testing.T) {
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Layers: 3, Form: proxytest.FormLegacy, SBOM: true})
	for _, sequential := range []bool{true, false} {
		for _, act := range []filters.Action{filters.Strip, filters.Store} {
			t.Run(fmt.Sprintf("%s sequential %v", act, sequential), func(t *testing.T) {
				tr := proxytest.NewTranscript(tree)
				r := recorded(t, proxytest.NewDistribution, tr, action(act))
				res, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: sequential})
				if err != nil {
					t.Fatal(err)
				}
				if res.Requests != 52 {
					t.Errorf("the client sent %d requests, this test is about a push of 52", res.Requests)
				}
				if n := tr.Upstream.Count(); n > 32 {
					t.Errorf("%d requests upstream:\n%s", n, tr.Text())
				} else {
					t.Logf("%d requests upstream", n)
				}
			})
		}
	}
}
