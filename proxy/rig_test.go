package proxy_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/observe"
	"sluice/proxy/proxytest"
)

// A rig is a proxy in front of a registry, both real servers in this process.
type rig struct {
	t        testing.TB
	upstream *proxytest.Upstream
	storage  storagedriver.StorageDriver
	proxy    *proxy.Proxy
	server   *httptest.Server
	config   *config.Config
	log      *logBuffer
	wrap     func(http.Handler) http.Handler
	now      func() time.Time
	traces   *observe.Traces
}

// A setting changes what a rig is built from.
type setting func(*rig)

func with(change func(*config.Config)) setting { return func(r *rig) { change(r.config) } }

func action(a filters.Action) setting {
	return with(func(c *config.Config) { c.Attestations = a })
}

func view(v config.View) setting { return with(func(c *config.Config) { c.View = v }) }

// atOnce answers at once, as a folder does, so that what is asked in turn there is asked in turn here. Tests that give a
// rig another storage see it asked all at the same time, as a bucket is.
type atOnce struct{ storagedriver.StorageDriver }

func (atOnce) Immediate() bool { return true }

func storage(d storagedriver.StorageDriver) setting { return func(r *rig) { r.storage = d } }

func clock(now func() time.Time) setting { return func(r *rig) { r.now = now } }

// before puts a handler between clients and the proxy.
func before(wrap func(http.Handler) http.Handler) setting { return func(r *rig) { r.wrap = wrap } }

// newRig serves a proxy in front of an upstream until the test ends.
func newRig(t testing.TB, upstream *proxytest.Upstream, settings ...setting) *rig {
	t.Helper()
	r := &rig{t: t, upstream: upstream, storage: atOnce{inmemory.New()}, config: config.Default(), log: &logBuffer{}, now: time.Now}
	r.config.Upstreams = []config.Upstream{{URL: upstream.URL, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
	for _, s := range settings {
		s(r)
	}
	r.start()
	return r
}

func (r *rig) start() {
	r.t.Helper()
	p, err := proxy.New(proxy.Options{
		Config: r.config, Storage: r.storage, Now: r.now, Traces: r.traces,
		Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	p.HoldBack(0)
	r.proxy = p
	r.listen()
	r.t.Cleanup(func() {
		r.server.Close()
		if err := p.Close(); err != nil {
			r.t.Errorf("close: %v", err)
		}
		if r.t.Failed() && testing.Verbose() {
			r.t.Logf("log of the proxy:\n%s", r.log)
		}
	})
}

// listen lets clients in to the proxy, by a new address.
func (r *rig) listen() {
	h := r.proxy.Handler()
	if r.wrap != nil {
		h = r.wrap(h)
	}
	r.server = httptest.NewUnstartedServer(h)
	r.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.server.Start()
}

// restart is another process on the same storage: nothing in memory survives.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

// stop is for a test that makes many rigs: each has connections, which a test keeps to its end.
func (r *rig) stop() {
	r.server.Close()
	_ = r.proxy.Close()
}

func (r *rig) url() string { return r.server.URL }

func (r *rig) push(push proxytest.Pusher, repo, tag string, tree *proxytest.Tree) proxytest.Result {
	r.t.Helper()
	res, err := push(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: repo, Tags: []string{tag}, Tree: tree})
	if err != nil {
		r.t.Fatalf("push %s:%s: %v", repo, tag, err)
	}
	r.proxy.Settle()
	return res
}

// request is one request to the proxy, its answer read whole.
func (r *rig) request(method, path string, body []byte, header ...string) *answer {
	r.t.Helper()
	return request(r.t, method, r.url()+path, body, header...)
}

// direct is the same to the registry behind it.
func (r *rig) direct(method, path string, body []byte, header ...string) *answer {
	r.t.Helper()
	return request(r.t, method, r.upstream.URL+path, body, header...)
}

type answer struct {
	*http.Response
	body []byte
}

// transport is not the default one: closing any httptest.Server closes that one's connections, also
// those of tests that run beside it.
var transport = &http.Transport{DisableCompression: true}

func request(t testing.TB, method, url string, body []byte, header ...string) *answer {
	t.Helper()
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	req, err := http.NewRequest(method, url, rd)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return &answer{resp, b}
}

// want fails the test unless the answer has the status, and the code in its body if one is given.
func (a *answer) want(t testing.TB, status int, code ...string) *answer {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s %s: %s, want %d: %.500s", a.Request.Method, a.Request.URL.Path, a.Status, status, a.body)
	}
	for _, c := range code {
		if !strings.Contains(string(a.body), `"`+c+`"`) {
			t.Fatalf("%s %s: no %s in %s", a.Request.Method, a.Request.URL.Path, c, a.body)
		}
	}
	return a
}

var acceptAll = []string{
	"Accept", "application/vnd.oci.image.index.v1+json", "Accept", "application/vnd.oci.image.manifest.v1+json",
	"Accept", "application/vnd.docker.distribution.manifest.list.v2+json", "Accept", "application/vnd.docker.distribution.manifest.v2+json",
}

// upstreamDigest is what a direct reader of the registry sees under a tag.
func (r *rig) upstreamDigest(repo, ref string) string {
	r.t.Helper()
	a := r.direct(http.MethodHead, "/v2/"+repo+"/manifests/"+ref, nil, acceptAll...)
	if a.StatusCode != http.StatusOK {
		r.t.Fatalf("upstream has no %s:%s: %s", repo, ref, a.Status)
	}
	return a.Header.Get("Docker-Content-Digest")
}
