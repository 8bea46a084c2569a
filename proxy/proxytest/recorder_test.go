package proxytest

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
)

// What each client says, first and on a repeated push, direct to distribution: the files are to be read.
func TestTranscriptsOfDirectPushes(t *testing.T) {
	for _, client := range Clients() {
		for _, scenario := range []string{"b-multi-max-sbom", "d-oci-artifact"} {
			t.Run(client.Name+"/"+scenario, func(t *testing.T) {
				tree := Documents(t, scenario)
				recorder := NewRecorder(tree)
				u := NewDistribution(t, UpstreamOptions{Wrap: recorder.Handler})
				u.Seed(t, "demo/app", tree)
				o := Options{BaseURL: u.URL, Repository: "demo/app", Tags: []string{"1.0"}, Tree: tree, Sequential: true}
				var text strings.Builder
				for _, heading := range []string{"# first push\n", "\n# pushed again\n"} {
					recorder.Reset()
					result, err := client.Push(testContext(t), o)
					if err != nil {
						t.Fatal(err)
					}
					recorder.Name(result.Pushed.Names())
					text.WriteString(heading + recorder.Text())
				}
				Golden(t, "golden/direct/"+client.Name+"-"+scenario+".txt", text.String())
			})
		}
	}
}

func TestATranscriptOfBothSidesOfAProxy(t *testing.T) {
	tree := Synthetic(SyntheticOptions{Platforms: []string{"linux/amd64"}, Form: FormLegacy})
	both := NewTranscript(tree)
	u := NewDistribution(t, UpstreamOptions{Wrap: both.Upstream.Handler})
	target, err := url.Parse(u.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		ModifyResponse: func(r *http.Response) error {
			// A proxy that asks twice, and cancels something in the background.
			if r.Request.Method != http.MethodPut {
				return nil
			}
			req, err := http.NewRequestWithContext(context.Background(), http.MethodDelete, u.URL+"/v2/app/blobs/uploads/none", nil)
			if err != nil {
				return err
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				return err
			}
			return resp.Body.Close()
		},
	}
	front := httptest.NewServer(both.Client.Handler(proxy))
	defer front.Close()
	_, err = BuildKit(testContext(t), Options{BaseURL: front.URL, Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true})
	if err != nil {
		t.Fatal(err)
	}
	Golden(t, "golden/transcript.txt", both.Text())
}

func TestARecorderNamesWhatItKnows(t *testing.T) {
	tree := Synthetic(SyntheticOptions{Form: FormLegacy})
	r := NewRecorder(tree)
	unknown := digestOf([]byte("unknown"))
	for want, e := range map[string]Exchange{
		"PUT /v2/a/manifests/index (index, " + MediaTypeOCIIndex + ") 201": {
			Method: "PUT", Path: "/v2/a/manifests/" + tree.Digest(), BodySize: 1, BodyDigest: tree.Digest(), Status: 201,
			Header: headers("Content-Type", MediaTypeOCIIndex), ResponseHeader: headers("Docker-Content-Digest", tree.Digest()),
		},
		"PUT /v2/a/manifests/1 (index) 201 Docker-Content-Digest=image-amd64": {
			Method: "PUT", Path: "/v2/a/manifests/1", BodySize: 1, BodyDigest: tree.Digest(), Status: 201,
			ResponseHeader: headers("Docker-Content-Digest", tree.Images()[0].Digest),
		},
		"PUT /v2/a/blobs/uploads/<session>?digest=index 201 without Docker-Content-Digest": {
			Method: "PUT", Path: "/v2/a/blobs/uploads/x", Query: url.Values{"digest": {tree.Digest()}}, Status: 201,
		},
		"HEAD /v2/a/blobs/statement-amd64-provenance [in-toto] 404": {
			Method: "HEAD", Path: "/v2/a/blobs/" + tree.Statements()[0].Digest, Header: headers("Accept", MediaTypeStatement+", */*"), Status: 404,
		},
		"PATCH /v2/a/blobs/uploads/<session> (" + unknown[:19] + " 7 bytes) 202": {
			Method: "PATCH", Path: "/v2/a/blobs/uploads/4f6e-aa", Query: url.Values{"_state": {"x"}}, BodySize: 7, BodyDigest: unknown, Status: 202,
		},
		"POST /v2/a/blobs/uploads/?from=b&mount=image-amd64 cut": {
			Method: "POST", Path: "/v2/a/blobs/uploads/", Query: url.Values{"from": {"b"}, "mount": {tree.Images()[0].Digest}},
		},
		"GET /v2/a/manifests/sha256-<image-amd64> 200 Sluice-Forwarded-Digest=index": {
			Method: "GET", Path: "/v2/a/manifests/" + strings.Replace(tree.Images()[0].Digest, ":", "-", 1), Status: 200,
			ResponseHeader: headers("Docker-Content-Digest", unknown, "Sluice-Forwarded-Digest", tree.Digest()),
		},
	} {
		if got := r.Line(e); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestARecorderAsTransportSeesWhatOneAsHandlerSees(t *testing.T) {
	tree := Synthetic(SyntheticOptions{Form: FormArtifact, Layers: 2})
	handler, transport := NewRecorder(tree), NewRecorder(tree)
	u := NewOlareg(t, UpstreamOptions{Wrap: handler.Handler})
	_, err := Docker29(testContext(t), Options{
		BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree, Client: &http.Client{Transport: transport.Transport(nil)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := firstDifference(handler.Sorted(), transport.Sorted()); diff != "" {
		t.Error(diff)
	}
}

// fakeT counts errors instead of failing.
type fakeT struct {
	testing.TB
	errors int
}

func (f *fakeT) Helper()               {}
func (f *fakeT) Errorf(string, ...any) { f.errors++ }
func (f *fakeT) Fatalf(string, ...any) { f.errors++ }
func (f *fakeT) Name() string          { return "fake" }

func TestWhatWasSentOfAttestationsIsFoundInARecording(t *testing.T) {
	for _, form := range []Form{FormLegacy, FormArtifact, FormDSSE} {
		tree := Synthetic(SyntheticOptions{Form: form, SBOM: true})
		recorder := NewRecorder(tree)
		u := NewOlareg(t, UpstreamOptions{Wrap: recorder.Handler})
		push := func(tree *Tree) int {
			recorder.Reset()
			if _, err := Crane(testContext(t), Options{BaseURL: u.URL, Repository: "app", Tags: []string{"1"}, Tree: tree}); err != nil {
				t.Fatal(err)
			}
			f := &fakeT{TB: t}
			AssertNotSent(f, recorder, tree)
			return f.errors
		}
		want := 2*2 + 2 // statements, attestation manifests
		if form != FormArtifact {
			want += 2 // configurations
		}
		if got := push(tree); got != want {
			t.Errorf("%s: found %d, want %d", form, got, want)
		}
		if got := push(Synthetic(SyntheticOptions{Seed: 5})); got != 0 {
			t.Errorf("found %d in a push without attestations", got)
		}
	}
	// The first bytes of a statement in a request that was cut off count too.
	recorder := NewRecorder()
	req := httptest.NewRequest(http.MethodPatch, "/v2/a/blobs/uploads/x", strings.NewReader(`{"_type":"https://in-toto.io/St`))
	recorder.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // from memory
	})).ServeHTTP(httptest.NewRecorder(), req)
	f := &fakeT{TB: t}
	if AssertNotSent(f, recorder); f.errors != 1 {
		t.Error("the beginning of a statement is not found")
	}
}

func TestAGoldenThatDiffersFailsTheTest(t *testing.T) {
	if *update {
		return // Golden would write the other text
	}
	f := &fakeT{TB: t}
	if Golden(f, "golden/transcript.txt", "something else\n"); f.errors == 0 {
		t.Error("a golden with another text passes")
	}
}
