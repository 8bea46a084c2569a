//go:build soak

package soak

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

const (
	patience = 3 * time.Minute // for one push with its retries
	tries    = 200             // of one push: on a busy machine many meet a fault
	variants = 100             // different images of a client; more would only fill the storage
	between  = 60 * time.Millisecond
)

// A client does one thing after another, with tags of its own.
type client struct {
	t      *testing.T
	k      int
	sluice *sluice
	up     *registry
	n      *tally
	pushed *pushed
	*dice
	http *http.Client
}

func newClient(t *testing.T, k int, s *sluice, w *world, n *tally) *client {
	return &client{
		t: t, k: k, sluice: s, up: s.up, n: n, pushed: w.pushed, dice: newDice(w.seed, uint64(k)<<32|uint64(w.loads)),
		// Containerd speaks HTTP/2 where it can.
		http: &http.Client{Transport: &http.Transport{DisableCompression: true, TLSClientConfig: s.trusted(), ForceAttemptHTTP2: k%4 > 1}},
	}
}

func (c *client) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	bad := c.nonsense()
	for ctx.Err() == nil && !c.t.Failed() {
		if c.dice.n(2) == 0 {
			c.push(ctx)
		} else {
			bad[c.dice.n(len(bad))](ctx)
		}
		c.pause(ctx, between)
	}
}

// repository is one of four, of which two keep attestations.
func (c *client) repository() string {
	return []string{"store/a", "store/b", "strip/a", "strip/b"}[c.dice.n(4)]
}

// tree is a random image in a random form, and what must be upstream of it.
func (c *client) tree() (tree, plain *proxytest.Tree) {
	o := proxytest.SyntheticOptions{Seed: uint64(c.k*variants + c.dice.n(variants)), LayerSize: 64 << 10}
	plain = proxytest.Synthetic(o)
	o.Form = []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact}[c.dice.n(2)]
	o.Build, o.SBOM = c.dice.n(1000), c.dice.n(2) == 0
	return proxytest.Synthetic(o), plain
}

func (c *client) pusher() proxytest.Client {
	var indexes []proxytest.Client
	for _, p := range proxytest.Clients() {
		if p.Indexes && p.Name != "imagetools" { // it reads what others pushed
			indexes = append(indexes, p)
		}
	}
	return indexes[c.dice.n(len(indexes))]
}

// push ends well, whatever happens meanwhile, and a direct reader of the registry sees what was promised (I6).
func (c *client) push(ctx context.Context) {
	tree, plain := c.tree()
	p, repo, tag := c.pusher(), c.repository(), fmt.Sprintf("%d-%d", c.k, c.dice.n(20))
	if !c.arrives(ctx, p, repo, tag, tree, plain) {
		return
	}
	c.n.did("pushes")
	got := c.up.has(repo, "manifests/"+tag)
	if c.sluice.forwards && got == tree.Digest() {
		c.n.did("pushes forwarded with their attestations")
		return
	}
	if got != plain.Digest() {
		c.t.Errorf("%s:%s was pushed with %s and upstream has %q, want %s (I6)", repo, tag, p.Name, got, plain.Digest())
	}
}

// arrives pushes again and again, also when the load is over: nothing is to be left half done.
func (c *client) arrives(ctx context.Context, p proxytest.Client, repo, tag string, tree, plain *proxytest.Tree) bool {
	began := time.Now()
	var errs []string // one like the one before once
	limit, stop := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer stop()
	for try := 1; ; try++ {
		err := c.tries(limit, p, repo, tag, tree)
		if err == nil {
			c.pushed.add(c.sluice, repo, tree, plain)
			return true
		}
		if limit.Err() != nil || try == tries {
			c.t.Errorf("a push of %s:%s with %s does not end well with %d tries in %s: %s", repo, tag, p.Name, try, time.Since(began), strings.Join(append(errs, err.Error()), "\n\t"))
			return false
		}
		if text := err.Error(); len(errs) == 0 || errs[len(errs)-1] != text {
			errs = append(errs, text)
		}
		c.n.did("pushes again")
		c.pause(limit, time.Second)
	}
}

// tries is one push, by somebody who does not wait for ever.
func (c *client) tries(ctx context.Context, p proxytest.Client, repo, tag string, tree *proxytest.Tree) error {
	ctx, stop := context.WithTimeout(ctx, 3*time.Second+c.duration(20*time.Second))
	defer stop()
	_, err := p.Push(ctx, proxytest.Options{
		BaseURL: c.sluice.url(), Repository: repo, Tags: []string{tag}, Tree: tree, Client: c.http, Retries: c.dice.n(4),
		Wait: func(int) error {
			c.pause(ctx, time.Second)
			return ctx.Err()
		},
	})
	return err
}

// do gives the answer without its body.
func (c *client) do(ctx context.Context, method, url string, body io.Reader, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

// upload is the URL of a new upload, "" while there is none to have.
func (c *client) upload(ctx context.Context, repo string) string {
	resp, err := c.do(ctx, http.MethodPost, c.sluice.url()+"/v2/"+repo+"/blobs/uploads/", nil)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		return ""
	}
	return c.sluice.url() + resp.Header.Get("Location")
}

// content is a layer, or a statement: one travels through, the other stays.
func (c *client) content() (content []byte, layer bool) {
	tree, _ := c.tree()
	if c.dice.n(2) == 0 {
		return tree.Statements()[0].Bytes(), false
	}
	return proxytest.RandomLayer("layer", "", uint64(c.dice.n(1<<30)), 1, 200<<10).Bytes(), true
}

func (c *client) layer() *proxytest.Blob {
	return proxytest.RandomLayer("layer", "", uint64(c.dice.n(1<<30)), 1, 200<<10)
}

func (c *client) junk() []byte {
	if c.dice.n(2) == 0 {
		return bytes.Repeat([]byte(`{"manifests":[`), 1+c.dice.n(5000))
	}
	junk := make([]byte, c.dice.n(64<<10))
	for i := range junk {
		junk[i] = byte(c.dice.n(256))
	}
	return junk
}
