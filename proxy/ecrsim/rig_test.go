package ecrsim_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"sluice/proxy/ecrsim"
	"sluice/proxy/ecrsim/ecrsimtest"
)

// rig is a double with one repository, app, and a client that shows answers as they are.
type rig struct {
	*ecrsimtest.Server
	t     *testing.T
	clock *clock
	auth  string // "" is the server's own key; "-" is none
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newRig throttles nothing, unless the test says so.
func newRig(t *testing.T, set ...func(*ecrsim.Switches)) *rig {
	t.Helper()
	c := &clock{now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}
	o := ecrsim.Options{Now: c.Now, Switches: ecrsim.Switches{NoThrottling: true}}
	for _, f := range set {
		f(&o.Switches)
	}
	r := &rig{Server: ecrsimtest.New(t, o), t: t, clock: c}
	r.create("app")
	return r
}

func (r *rig) create(name string) {
	r.t.Helper()
	if err := r.CreateRepository(name); err != nil {
		r.t.Fatal(err)
	}
}

type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

func (p reply) String() string {
	if p.err != nil {
		return p.err.Error()
	}
	return fmt.Sprintf("%d %s", p.status, p.body)
}

// do sends one request. Header fields are given as "Name: value"; a path without a scheme is below the registry.
func (r *rig) do(method, path string, body any, header ...string) reply {
	r.t.Helper()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	case []byte:
		in = bytes.NewReader(b)
	case io.Reader:
		in = b
	}
	if strings.HasPrefix(path, "/") {
		path = r.URL + path
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, path, in)
	if err != nil {
		r.t.Fatal(err)
	}
	switch r.auth {
	case "-":
	case "":
		user, password := r.Password(r.AccessKey)
		req.SetBasicAuth(user, password)
	default:
		req.Header.Set("Authorization", r.auth)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
		if value == "" {
			req.Header.Del(name)
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req) // follows nothing
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, resp.Header, string(b), err}
}

// is the status, and in the body or, for HEAD, the header the words.
func (r *rig) want(what string, p reply, status int, words ...string) {
	r.t.Helper()
	if p.err != nil || p.status != status {
		r.t.Errorf("%s: %s, want %d", what, p, status)
	}
	for _, w := range words {
		if !strings.Contains(p.body, w) {
			r.t.Errorf("%s: %s, want it to say %s", what, p, w)
		}
	}
}

func (r *rig) wantHeader(what string, p reply, name, value string) {
	r.t.Helper()
	if got := p.header.Get(name); got != value {
		r.t.Errorf("%s: %s is %q, want %q", what, name, got, value)
	}
}

func (r *rig) wantCut(what string, p reply) {
	r.t.Helper()
	if p.err == nil {
		r.t.Errorf("%s: %s, want a cut connection", what, p)
	}
}

func errorBody(code, message string) string {
	b, _ := json.Marshal(message)
	return fmt.Sprintf(`{"errors":[{"code":%q,"message":%s}]}`, code, b)
}

func sum[T string | []byte](b T) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(b))) }

// session opens an upload and returns its address.
func (r *rig) session(repo string) string {
	r.t.Helper()
	p := r.do("POST", "/v2/"+repo+"/blobs/uploads/", nil)
	r.want("POST", p, 202)
	return p.header.Get("Location")
}

// upload puts a layer into a repository, and returns its descriptor.
func (r *rig) upload(repo, content string) v1.Descriptor {
	r.t.Helper()
	r.want("PUT of a layer", r.do("PUT", r.session(repo)+"?digest="+sum(content), content), 201)
	return v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: digestOf(content), Size: int64(len(content))}
}

// manifest is an OCI image of a config and layers; edit may change it.
func (r *rig) manifest(repo, config string, layers []string, edit ...func(*v1.Manifest)) string {
	r.t.Helper()
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: r.upload(repo, config), Layers: []v1.Descriptor{}}
	m.SchemaVersion = 2
	m.Config.MediaType = v1.MediaTypeImageConfig
	for _, l := range layers {
		m.Layers = append(m.Layers, r.upload(repo, l))
	}
	for _, f := range edit {
		f(&m)
	}
	return marshal(m)
}

func marshal(v any) string {
	b, _ := json.Marshal(v)
	return string(b)
}

// put pushes a document with its own media type.
func (r *rig) put(repo, ref, body string) reply {
	r.t.Helper()
	var m struct{ MediaType string }
	_ = json.Unmarshal([]byte(body), &m)
	return r.do("PUT", "/v2/"+repo+"/manifests/"+ref, body, "Content-Type: "+m.MediaType)
}

// image pushes one that nothing is wrong with, and returns its bytes.
func (r *rig) image(repo, tag, content string) string {
	r.t.Helper()
	m := r.manifest(repo, `{"architecture":"amd64","os":"linux","x":"`+content+`"}`, []string{"layer " + content})
	ref := tag
	if ref == "" {
		ref = sum(m)
	}
	r.want("PUT of an image", r.put(repo, ref, m), 201)
	return m
}

// index lists documents.
func index(documents ...string) string {
	x := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{}}
	x.SchemaVersion = 2
	for _, d := range documents {
		x.Manifests = append(x.Manifests, v1.Descriptor{MediaType: v1.MediaTypeImageManifest, Digest: digestOf(d), Size: int64(len(d))})
	}
	return marshal(x)
}
