package proxy_test

import (
	"context"
	"net/http"

	"sluice/filters"
	"sluice/proxy/proxytest"
)

// holdsNow asserts what must be true whatever happened: nothing of an attestation upstream (I2),
// nothing dangling (I7), and if the tag answers it is the rewrite (I6).
func (r *rig) holdsNow(plain *proxytest.Tree) {
	r.t.Helper()
	proxytest.AssertClean(r.t, r.upstream)
	proxytest.AssertComplete(r.t, r.upstream)
	a := r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...)
	if a.StatusCode == http.StatusOK && a.Header.Get("Docker-Content-Digest") != plain.Digest() {
		r.t.Errorf("upstream's tag is %s, the only right answer is %s (I6)", a.Header.Get("Docker-Content-Digest"), plain.Digest())
	}
}

// finished asserts what a 201 for the tag means.
func (r *rig) finished(tree, plain *proxytest.Tree, act filters.Action) {
	r.t.Helper()
	if got := r.upstreamDigest("app", "1"); got != plain.Digest() {
		r.t.Errorf("upstream's tag is %s, want %s (I6)", got, plain.Digest())
	}
	a := r.request(http.MethodHead, "/v2/app/manifests/"+tree.Digest(), nil, acceptAll...)
	if a.StatusCode != http.StatusOK {
		r.t.Errorf("original is answered %s, want 200 (I6)", a.Status)
	}
	if got := a.Header.Get("Sluice-Forwarded-Digest"); got != plain.Digest() && tree.Digest() != plain.Digest() {
		r.t.Errorf("original is said to be forwarded as %q, want %s (I6)", got, plain.Digest())
	}
	if act != filters.Store {
		return
	}
	back, err := proxytest.PullAll(context.Background(), r.url(), "app", tree.Digest())
	if err != nil {
		r.t.Errorf("what was stored cannot be read: %v", err)
	} else if err := back.Equal(tree); err != nil {
		r.t.Error(err)
	}
}

// quiet returns when nothing runs any more that a push has begun. A client that sends several requests at once and gives
// up leaves some of them behind: after an error the proxy must therefore be restarted before it is asked anything.
func (r *rig) quiet(pushed error) {
	r.t.Helper()
	if pushed != nil {
		r.server.Close()
	}
	r.proxy.HandlersEnd()
	r.proxy.Settle()
	if pushed != nil {
		eventually(r.t, "an idle registry", func() bool { return r.upstream.Running() == 0 })
	}
}

func tryPush(r *rig, push proxytest.Pusher, tree *proxytest.Tree) error {
	_, err := push(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true})
	return err
}

// A faultCase is one kind of push that is tried with a fault at every place.
type faultCase struct {
	name     string
	push     proxytest.Pusher
	form     proxytest.Form
	act      filters.Action
	options  proxytest.SyntheticOptions // but for the form; one platform if none is named
	docker   bool                       // with media_types: docker
	together bool                       // as many requests at once as the client sends
	from     string                     // where blobs are mounted from, if from anywhere
}

// ordinary is what most faults are tried with.
var ordinary = faultCase{name: "buildkit legacy store", push: proxytest.BuildKit, form: proxytest.FormLegacy, act: filters.Store}

func (c faultCase) trees() (tree, plain *proxytest.Tree) {
	o := c.options
	if len(o.Platforms) == 0 {
		o.Platforms = []string{"linux/amd64"}
	}
	o.Form = c.form
	tree = proxytest.Synthetic(o)
	o.Form, o.DockerTypes = proxytest.FormNone, o.DockerTypes || c.docker
	return tree, proxytest.Synthetic(o)
}

func (c faultCase) settings(more ...setting) []setting {
	if c.docker {
		more = append(more, mediaTypes(filters.MediaTypesDocker))
	}
	return append(more, action(c.act))
}

func (c faultCase) try(r *rig, tree *proxytest.Tree) error {
	_, err := c.push(context.Background(), proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: !c.together, MountFrom: c.from})
	return err
}

// check is the same after every fault: what is upstream is right although the push broke off, and
// the retry converges, also in a new process.
func (c faultCase) check(r *rig, tree, plain *proxytest.Tree, heal func()) {
	first := c.try(r, tree)
	r.quiet(first)
	heal()
	r.holdsNow(plain)
	if first == nil {
		r.finished(tree, plain, c.act)
	}
	r.restart()
	if err := c.try(r, tree); err != nil {
		r.t.Fatalf("the retry fails too: %v (the first time: %v)", err, first)
	}
	r.quiet(nil)
	r.holdsNow(plain)
	r.finished(tree, plain, c.act)
}
