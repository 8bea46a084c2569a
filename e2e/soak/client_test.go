//go:build soak

package soak

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

const (
	patience = 90 * time.Second // for one push with its retries
	variants = 100              // different images of a client; more would only fill the storage
	between  = 60 * time.Millisecond
)

// A tally counts what the mix was.
type tally struct {
	pushed, retried, hungUp, garbage, wrong, cut, reloads atomic.Int64
}

func (n *tally) log(t *testing.T, what string, d time.Duration) {
	t.Logf("%s of %s: %d pushes (%d retries), %d pushers hung up, %d sent garbage, %d a wrong digest, %d cut the connection, %d SIGHUPs",
		what, d, n.pushed.Load(), n.retried.Load(), n.hungUp.Load(), n.garbage.Load(), n.wrong.Load(), n.cut.Load(), n.reloads.Load())
}

// A client does one thing after another, with tags of its own.
type client struct {
	t      *testing.T
	k      int
	sluice *sluice
	up     *registry
	n      *tally
	random *rand.Rand
	http   *http.Client
}

func newClient(t *testing.T, k int, s *sluice, up *registry, n *tally) *client {
	return &client{
		t: t, k: k, sluice: s, up: up, n: n, random: rand.New(rand.NewPCG(uint64(k), uint64(time.Now().UnixNano()))),
		http: &http.Client{Timeout: patience, Transport: &http.Transport{DisableCompression: true}},
	}
}

func (c *client) run(ctx context.Context) {
	defer c.http.CloseIdleConnections()
	for ctx.Err() == nil && !c.t.Failed() {
		switch c.random.IntN(10) {
		default:
			c.push(ctx)
		case 0, 1:
			c.hangUp(ctx)
		case 2:
			c.garbage(ctx)
		case 3:
			c.wrongDigest(ctx)
		case 4:
			c.cutConnection(ctx)
		}
		pause(ctx, c.random, between)
	}
}

// repository is one of four, of which two keep attestations.
func (c *client) repository() string {
	return []string{"store/a", "store/b", "strip/a", "strip/b"}[c.random.IntN(4)]
}

// tree is a random image in a random form, and what must be upstream of it.
func (c *client) tree() (tree, plain *proxytest.Tree) {
	o := proxytest.SyntheticOptions{Seed: uint64(c.k*variants + c.random.IntN(variants)), LayerSize: 64 << 10}
	plain = proxytest.Synthetic(o)
	o.Form = []proxytest.Form{proxytest.FormLegacy, proxytest.FormArtifact}[c.random.IntN(2)]
	o.Build, o.SBOM = c.random.IntN(1000), c.random.IntN(2) == 0
	return proxytest.Synthetic(o), plain
}

func (c *client) pusher() proxytest.Client {
	var indexes []proxytest.Client
	for _, p := range proxytest.Clients() {
		if p.Indexes && p.Name != "imagetools" { // it reads what others pushed
			indexes = append(indexes, p)
		}
	}
	return indexes[c.random.IntN(len(indexes))]
}

// push ends well, whatever happens meanwhile, and a direct reader of the registry sees what was promised (I6).
func (c *client) push(ctx context.Context) {
	tree, plain := c.tree()
	p, repo, tag := c.pusher(), c.repository(), fmt.Sprintf("%d-%d", c.k, c.random.IntN(20))
	began, limit := time.Now(), context.WithoutCancel(ctx)
	limit, stop := context.WithTimeout(limit, patience)
	defer stop()
	for {
		_, err := p.Push(limit, proxytest.Options{BaseURL: c.sluice.url, Repository: repo, Tags: []string{tag}, Tree: tree, Client: c.http})
		if err == nil {
			break
		}
		if limit.Err() != nil {
			c.t.Errorf("a push of %s with %s does not end well within %s: %v", repo, p.Name, time.Since(began), err)
			return
		}
		c.n.retried.Add(1)
		pause(limit, c.random, time.Second)
	}
	c.n.pushed.Add(1)
	got, err := c.upstreamHas(limit, repo, tag)
	if err != nil || got != plain.Digest() {
		c.t.Errorf("%s:%s was pushed with %s and upstream has %q, want %s (I6): %v", repo, tag, p.Name, got, plain.Digest(), err)
	}
}

func (c *client) upstreamHas(ctx context.Context, repo, tag string) (string, error) {
	for {
		resp, err := c.do(ctx, http.MethodHead, "http://"+c.up.address+"/v2/"+repo+"/manifests/"+tag, nil, "")
		if err == nil {
			return resp.Header.Get("Docker-Content-Digest"), nil
		}
		if ctx.Err() != nil {
			return "", err
		}
		pause(ctx, c.random, time.Second)
	}
}

// do gives the answer without its body.
func (c *client) do(ctx context.Context, method, url string, body []byte, mediaType string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	for _, accepted := range []string{proxytest.MediaTypeOCIIndex, proxytest.MediaTypeOCIManifest} {
		req.Header.Add("Accept", accepted)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp, err
}

func (c *client) hangUp(ctx context.Context) {
	tree, _ := c.tree()
	ctx, stop := context.WithTimeout(ctx, time.Duration(c.random.Int64N(int64(150*time.Millisecond))))
	defer stop()
	_, err := c.pusher().Push(ctx, proxytest.Options{
		BaseURL: c.sluice.url, Repository: c.repository(), Tags: []string{fmt.Sprintf("hung-up-%d-%d", c.k, c.random.IntN(20))}, Tree: tree, Client: c.http,
	})
	if err != nil {
		c.n.hungUp.Add(1)
	}
}

// refused is what every answer to nonsense must be; none at all is one while the registry is away.
func (c *client) refused(what string, resp *http.Response, err error) {
	if err == nil && resp.StatusCode < 400 {
		c.t.Errorf("%s is answered %s", what, resp.Status)
	}
}

func (c *client) garbage(ctx context.Context) {
	junk := make([]byte, c.random.IntN(64<<10))
	for i := range junk {
		junk[i] = byte(c.random.Uint32())
	}
	if c.random.IntN(2) == 0 {
		junk = []byte(strings.Repeat(`{"manifests":[`, 1+c.random.IntN(5000)))
	}
	resp, err := c.do(ctx, http.MethodPut, c.sluice.url+"/v2/"+c.repository()+"/manifests/garbage", junk, proxytest.MediaTypeOCIIndex)
	c.refused("garbage", resp, err)
	c.n.garbage.Add(1)
}

// upload is the URL of a new upload, "" while there is none to have.
func (c *client) upload(ctx context.Context) string {
	resp, err := c.do(ctx, http.MethodPost, c.sluice.url+"/v2/"+c.repository()+"/blobs/uploads/", nil, "")
	if err != nil || resp.StatusCode != http.StatusAccepted {
		return ""
	}
	return resp.Header.Get("Location")
}

// content is a layer, or a statement: one travels through, the other stays.
func (c *client) content() []byte {
	tree, _ := c.tree()
	if c.random.IntN(2) == 0 {
		return tree.Statements()[0].Bytes()
	}
	return proxytest.RandomLayer("layer", "", c.random.Uint64(), 1, 200<<10).Bytes()
}

func (c *client) wrongDigest(ctx context.Context) {
	location := c.upload(ctx)
	if location == "" {
		return
	}
	resp, err := c.do(ctx, http.MethodPut, c.sluice.url+location+fmt.Sprintf("?digest=sha256:%x", sha256.Sum256([]byte("another"))), c.content(), "application/octet-stream")
	c.refused("a wrong digest", resp, err)
	c.n.wrong.Add(1)
}

// cutConnection sends the beginning of a body and resets the connection.
func (c *client) cutConnection(ctx context.Context) {
	location := c.upload(ctx)
	if location == "" {
		return
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(c.sluice.url, "http://"))
	if err != nil {
		if !errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			c.t.Errorf("sluice cannot be reached: %v", err)
		}
		return
	}
	body := c.content()
	_, _ = fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: sluice\r\nContent-Length: %d\r\n\r\n", location, len(body))
	_, _ = conn.Write(body[:c.random.IntN(len(body))])
	pause(ctx, c.random, 20*time.Millisecond)
	_ = conn.(*net.TCPConn).SetLinger(0) // a reset, not an end
	_ = conn.Close()
	c.n.cut.Add(1)
}
