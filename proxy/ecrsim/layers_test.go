package ecrsim_test

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
)

func TestALayerWithoutAnImage(t *testing.T) {
	r := newRig(t)
	layer := "/v2/app/blobs/" + string(r.upload("app", "x").Digest)
	r.want("HEAD", r.do("HEAD", layer, nil), 200)
	r.want("GET", r.do("GET", layer, nil), 404, "BLOB_UNKNOWN", "not associated with an image")
	r.Update(func(s *ecrsim.Switches) {
		s.HideUnreferenced, s.UnreferencedGet = true, ecrsim.Answer{Status: 403, Code: "DENIED"}
	})
	r.want("HEAD", r.do("HEAD", layer, nil), 404)
	r.want("GET", r.do("GET", layer, nil), 403, "DENIED")

	r.Update(func(s *ecrsim.Switches) { s.HideUnreferenced = false })
	r.ForgetUnreferenced()
	r.want("HEAD when it has been cleaned up", r.do("HEAD", layer, nil), 404)

	m := r.image("app", "1", "y")
	layer = "/v2/app/blobs/" + sum("layer y")
	r.ForgetUnreferenced()
	r.want("GET of one with an image", r.do("GET", layer, nil), 307)
	r.want("DELETE of the image", r.do("DELETE", "/v2/app/manifests/"+sum(m), nil), 202)
	r.want("GET when the image has gone", r.do("GET", layer, nil), 403, "DENIED")
}

func TestLayersAreElsewhereAndRefuseCredentials(t *testing.T) {
	r := newRig(t)
	r.image("app", "1", "x")
	p := r.do("GET", "/v2/app/blobs/"+sum("layer x"), nil)
	r.want("GET", p, 307)
	at := p.header.Get("Location")
	if !strings.HasPrefix(at, r.Blobs+"/") || !strings.Contains(at, "X-Amz-Algorithm=AWS4-HMAC-SHA256") {
		t.Errorf("Location %s", at)
	}
	r.want("with credentials", r.do("GET", at, nil), 400, "InvalidArgument", "Only one auth mechanism allowed")
	r.auth = "-"
	r.want("without", r.do("GET", at, nil), 200, "layer x")
	r.want("a range", r.do("GET", at, nil, "Range: bytes=0-4"), 206, "layer")
	r.want("another layer", r.do("GET", strings.Replace(at, sum("layer x"), sum("z"), 1), nil), 403, "AccessDenied")
	r.clock.pass(time.Hour + time.Second)
	r.want("an hour later", r.do("GET", at, nil), 403, "Request has expired")
}

func TestWithoutABlobAddressLayersAreAnswered(t *testing.T) {
	sim, err := ecrsim.New(ecrsim.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sim.Close() })
	hs := httptest.NewServer(sim.Registry())
	t.Cleanup(hs.Close)
	r := &rig{Server: &ecrsimtest.Server{Simulator: sim, URL: hs.URL, AccessKey: ecrsim.DefaultAccessKey}, t: t}
	r.create("app")
	r.image("app", "1", "x")
	r.want("GET", r.do("GET", "/v2/app/blobs/"+sum("layer x"), nil), 200, "layer x")
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, o := range []ecrsim.Options{
		{Account: "12"},
		{BlobURL: "no scheme"},
		{BlobURL: "https://host/path"},
		{BlobURL: "://"},
		{Principals: []ecrsim.Principal{{Name: "without a key"}}},
	} {
		if _, err := ecrsim.New(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

func TestMounts(t *testing.T) {
	for _, c := range []struct {
		name   string
		set    func(*ecrsim.Switches)
		query  string
		status int
	}{
		{"the account setting is off", func(*ecrsim.Switches) {}, "mount=IN-IMAGE&from=app", 202},
		{"on", func(s *ecrsim.Switches) { s.BlobMounting = true }, "mount=IN-IMAGE&from=app", 201},
		{"a layer without an image", func(s *ecrsim.Switches) { s.BlobMounting = true }, "mount=UNREFERENCED&from=app", 202},
		{"from a repository that lacks it", func(s *ecrsim.Switches) { s.BlobMounting = true }, "mount=IN-IMAGE&from=other", 202},
		{"from nowhere", func(s *ecrsim.Switches) { s.BlobMounting = true }, "mount=IN-IMAGE", 202},
		{"from anywhere", func(s *ecrsim.Switches) { s.BlobMounting, s.AnonymousMount = true, true }, "mount=IN-IMAGE", 201},
		{"without the right to read the source", func(s *ecrsim.Switches) {
			s.BlobMounting, s.Deny = true, []string{"ecr:GetDownloadUrlForLayer"}
		}, "mount=IN-IMAGE&from=app", 202},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, c.set)
			r.create("into")
			r.image("app", "1", "x")
			r.upload("app", "loose")
			q := strings.NewReplacer("IN-IMAGE", url.QueryEscape(sum("layer x")), "UNREFERENCED", url.QueryEscape(sum("loose"))).Replace(c.query)
			p := r.do("POST", "/v2/into/blobs/uploads/?"+q, nil)
			r.want("POST", p, c.status)
			if p.header.Get("Location") == "" {
				t.Error("no Location")
			}
			want := 404
			if c.status == 201 {
				want = 200
			}
			r.want("HEAD", r.do("HEAD", "/v2/into/blobs/"+sum("layer x"), nil), want)
		})
	}
}

// A mounted layer is the other repository's own.
func TestAMountedLayerMakesAnImage(t *testing.T) {
	r := newRig(t, func(s *ecrsim.Switches) { s.BlobMounting = true })
	r.create("into")
	r.image("app", "1", "x")
	r.want("POST", r.do("POST", "/v2/into/blobs/uploads/?from=app&mount="+url.QueryEscape(sum("layer x")), nil), 201)
	m := r.manifest("into", "{ }", nil, func(m *v1.Manifest) {
		m.Layers = []v1.Descriptor{{MediaType: v1.MediaTypeImageLayerGzip, Digest: digestOf("layer x"), Size: 7}}
	})
	r.want("PUT", r.put("into", "1", m), 201)
	r.want("GET", (&rig{Server: r.Server, t: t, auth: "-"}).do("GET", r.do("GET", "/v2/into/blobs/"+sum("layer x"), nil).header.Get("Location"), nil), 200, "layer x")
}
