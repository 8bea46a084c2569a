package proxy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/notifications"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// change gives r another configuration, and returns when it has been taken or refused.
func (r *running) change(change func(*config.Config)) {
	r.t.Helper()
	next := *r.config
	next.Upstreams = slices.Clone(r.config.Upstreams)
	change(&next)
	for range 2 { // the second one is received when the first is done with
		select {
		case r.changes <- &next:
		case <-time.After(patience):
			r.t.Fatal("Run takes no change")
		}
	}
}

func (r *running) base() string { return "http://" + r.config.Listen }

func (r *running) push(tag string, tree *proxytest.Tree) {
	r.t.Helper()
	if _, err := proxytest.BuildKit(r.t.Context(), proxytest.Options{BaseURL: r.base(), Repository: "app", Tags: []string{tag}, Tree: tree, Client: r.client}); err != nil {
		r.t.Fatalf("push of %s: %v", tag, err)
	}
}

func TestAChangedConfigurationHoldsForWhatComesNextAndUploadsGoOn(t *testing.T) {
	wrap, arrived := arriving()
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: wrap})
	before := settled(t)
	r := run(t, up, inmemory.New(), nil)
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})

	// Three uploads under way: one in the middle of its body, one between two chunks, one that has its URL only.
	streaming := proxytest.RandomLayer("streaming", "", 1, 1, 512<<10)
	s := r.uploading(streaming, arrived)
	drain := make(chan struct{})
	go func() { // nobody else waits for what arrives from here on
		for {
			select {
			case <-arrived:
			case <-drain:
				return
			}
		}
	}()
	defer close(drain)
	blob := tree.Statements()[0]
	statement := blob.Bytes()
	half := len(statement) / 2
	opened := request(t, http.MethodPost, r.base()+"/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	first := request(t, http.MethodPatch, r.base()+opened, statement[:half], "Content-Range", fmt.Sprintf("0-%d", half-1)).want(t, http.StatusAccepted).Header.Get("Location")
	whole := proxytest.RandomLayer("whole", "", 2, 1, 64<<10)
	unused := request(t, http.MethodPost, r.base()+"/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")

	r.change(func(c *config.Config) {
		c.Rules = []config.Rule{{Repositories: []string{"app"}, Attestations: filters.Forward}}
	})

	r.push("forwarded", tree)
	if got := up.Inspect(t).Repository("app").Tags["forwarded"]; got != tree.Digest() {
		t.Errorf("under `forward` upstream has %s, want the index as it was pushed, %s", got, tree.Digest())
	}
	request(t, http.MethodPut, r.base()+put(unused, whole.Digest), whole.Bytes()).want(t, http.StatusCreated)
	// The earlier URL tells the truth still: what it knows was carried over.
	request(t, http.MethodPatch, r.base()+opened, statement[:half], "Content-Range", fmt.Sprintf("0-%d", half-1)).want(t, http.StatusRequestedRangeNotSatisfiable)
	request(t, http.MethodPut, r.base()+put(first, blob.Digest), statement[half:], "Content-Range", fmt.Sprintf("%d-%d", half, len(statement)-1)).want(t, http.StatusCreated)
	if _, err := s.body.Write(streaming.Bytes()[streaming.Size/2:]); err != nil {
		t.Fatal(err)
	}
	s.body.Close()
	if resp := receive(t, "answer", s.answer); resp == nil || resp.StatusCode != http.StatusCreated {
		t.Errorf("the upload that ran ends with %v", resp)
	}

	r.change(func(c *config.Config) { c.Attestations = filters.Strip })
	r.push("stripped", tree)
	if got := up.Inspect(t).Repository("app").Tags["stripped"]; got != plain.Digest() {
		t.Errorf("under `strip` upstream has %s, want %s", got, plain.Digest())
	}
	proxytest.AssertComplete(t, up)
	for _, b := range []*proxytest.Blob{streaming, whole} {
		if got := up.Inspect(t).Repository("app").Blobs[b.Digest].Size; got != b.Size {
			t.Errorf("upstream has %d bytes of a layer of %d", got, b.Size)
		}
	}
	// Counters count on: the process is the same.
	if _, metrics := r.admin("/metrics"); !strings.Contains(metrics, `sluice_pushes_total{`) || !strings.Contains(metrics, `sluice_statements_taken_total{action="strip",predicate_type="https://slsa.dev/provenance/v1"} 2`) {
		t.Error("the metrics lack what was pushed")
	}
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
	r.noneLeft(before)
}

func TestAConfigurationThatCannotBeTakenChangesNothing(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	plain := proxytest.Synthetic(proxytest.SyntheticOptions{})
	for _, tt := range []struct {
		name   string
		change func(*config.Config)
		logged []string
	}{
		{
			"listen and admin",
			func(c *config.Config) { c.Listen, c.Admin = "127.0.0.1:1", "" },
			[]string{"need a restart", `keys="[listen admin]"`},
		},
		{"storage", func(c *config.Config) { c.Storage = config.Storage{Inmemory: &config.Inmemory{}} }, []string{"need a restart", `keys=[storage]`}},
		{"tls", func(c *config.Config) { c.TLS.Certificate = "x" }, []string{"need a restart", `keys=[tls.certificate]`}},
		{
			"a file that is not there",
			func(c *config.Config) {
				c.Access = config.Access{Mode: config.AccessHtpasswd, Htpasswd: "/nonexistent"}
			},
			[]string{"configuration not changed", "/nonexistent"},
		},
		{
			"an upstream without a file",
			func(c *config.Config) { c.Upstreams[0].CA = "/nonexistent.pem" },
			[]string{"configuration not changed", "/nonexistent.pem"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := settled(t)
			r := run(t, up, inmemory.New(), nil)
			// The good part of a bad one is not taken either.
			r.change(func(c *config.Config) { c.Attestations = filters.Forward; tt.change(c) })
			r.push("1", tree)
			if got := up.Inspect(t).Repository("app").Tags["1"]; got != plain.Digest() {
				t.Errorf("upstream has %s, want %s", got, plain.Digest())
			}
			if err := r.end(); err != nil {
				t.Errorf("Run ends with %v", err)
			}
			r.noneLeft(before)
			for _, want := range tt.logged {
				if log := r.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, want) {
					t.Errorf("no error with %q in the log:\n%s", want, log)
				}
			}
		})
	}
	proxytest.AssertClean(t, up)
	proxytest.AssertComplete(t, up)
}

func TestManyChangesLeaveNothingBehind(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	root := t.TempDir()
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy})
	before := settled(t)
	r := run(t, up, inmemory.New(), func(c *config.Config) {
		c.Storage.Filesystem.RootDirectory = root
		c.Upstreams = append(c.Upstreams, config.Upstream{Prefix: "own", URL: config.Embedded, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass})
	})
	serving := settled(t)
	for i := range 5 {
		r.push(fmt.Sprint(i), tree)
		// With the embedded registry, without it, and with it again.
		r.change(func(c *config.Config) {
			if i%2 == 0 {
				c.Upstreams = c.Upstreams[:1]
			}
		})
	}
	r.change(func(*config.Config) {})
	request(t, http.MethodGet, r.base()+"/v2/own/none/tags/list", nil).want(t, http.StatusNotFound)
	r.noneLeft(serving + 2) // a server's connection and its request, should the client's pool keep one
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
	r.noneLeft(before)
}

func TestEventsThatWaitOutliveAChange(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	var mu sync.Mutex
	var told []string
	open := make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-open // nothing is delivered until then
		var e struct{ Events []notifications.Event }
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, &e)
		mu.Lock()
		defer mu.Unlock()
		for _, ev := range e.Events {
			if ev.Target.Tag != "" {
				told = append(told, ev.Target.Tag)
			}
		}
	}))
	defer hook.Close()
	endpoint := func(name string) config.Notifications {
		return config.Notifications{Endpoints: []config.Endpoint{{
			Name: name, URL: config.Secret(hook.URL), Timeout: config.Duration(time.Minute), Threshold: 1, Backoff: config.Duration(time.Second),
		}}}
	}
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{})
	r := run(t, up, inmemory.New(), func(c *config.Config) { c.Notifications = endpoint("first") })
	r.push("before", tree)
	r.change(func(c *config.Config) { c.Attestations = filters.Strip })
	r.push("kept", tree)
	r.change(func(c *config.Config) { c.Notifications = endpoint("second") })
	r.push("after", tree)
	close(open)
	eventually(t, "told of every push", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == 3
	})
	if slices.Sort(told); !slices.Equal(told, []string{"after", "before", "kept"}) {
		t.Errorf("told of %q", told)
	}
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
}

// A push that runs through two changes tells what its own configuration says, also when the one in between has ended.
func TestAPushThatOutlivesTwoChangesIsToldOf(t *testing.T) {
	reached, goOn := make(chan struct{}, 1), make(chan struct{})
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/slow") {
				reached <- struct{}{}
				<-goOn
			}
			next.ServeHTTP(w, r)
		})
	}})
	hook, got := listener(t)
	r := run(t, up, inmemory.New(), func(c *config.Config) { c.Notifications.Endpoints = []config.Endpoint{hook} })
	tree := proxytest.Synthetic(proxytest.SyntheticOptions{})
	pushed := make(chan error, 1)
	go func() {
		_, err := proxytest.BuildKit(t.Context(), proxytest.Options{BaseURL: r.base(), Repository: "app", Tags: []string{"slow"}, Tree: tree, Client: r.client})
		pushed <- err
	}()
	receive(t, "manifest", reached)
	r.change(func(c *config.Config) { c.AccessLog = true })
	other := hook
	other.Name = "other"
	r.change(func(c *config.Config) { c.Notifications.Endpoints = []config.Endpoint{other} })
	eventually(t, "left with the first configuration alone", func() bool {
		stacks := make([]byte, 4<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		return bytes.Count(stacks, []byte("(*Proxy).retire(")) == 1
	})
	close(goOn)
	if err := receive(t, "end of the push", pushed); err != nil {
		t.Fatal(err)
	}
	for receive(t, "event", got).Target.Tag != "slow" {
	}
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
}

// Keys that a running process is given for the first time do not end what it has begun without.
func TestUploadsGoOnWhenKeysAreConfigured(t *testing.T) {
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{})
	r := run(t, up, inmemory.New(), nil)
	layer := proxytest.RandomLayer("layer", "", 3, 1, 64<<10)
	open := func() string {
		return request(t, http.MethodPost, r.base()+"/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	}
	key := func(b byte) config.Secret {
		return config.Secret(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)))
	}
	stored := open()
	r.change(func(c *config.Config) { c.SealKeys = []config.Secret{key(1)} })
	first := open()
	r.change(func(c *config.Config) { c.SealKeys = []config.Secret{key(2)} })
	request(t, http.MethodPut, r.base()+put(stored, layer.Digest), layer.Bytes()).want(t, http.StatusCreated)
	// A key that is taken out of the configuration opens nothing any more: it may have become known.
	request(t, http.MethodPut, r.base()+put(first, layer.Digest), layer.Bytes()).want(t, http.StatusNotFound)
	if err := r.end(); err != nil {
		t.Errorf("Run ends with %v", err)
	}
}
