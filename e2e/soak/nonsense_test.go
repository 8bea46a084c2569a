//go:build soak

package soak

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"sluice/proxy/proxytest"
)

// What clients should not do. Each is over within nonsenseTime, whatever becomes of it.
const nonsenseTime = 20 * time.Second

func (c *client) nonsense() (all []func(context.Context)) {
	for _, x := range []struct {
		what string
		do   func(context.Context) bool
	}{
		{"pushers hung up", c.hangUp},
		{"garbage", c.garbage},
		{"wrong digests", c.wrongDigest},
		{"connections cut", c.cutConnection},
		{"more announced than sent", c.tooLittle},
		{"less announced than sent", c.tooMuch},
		{"trickling uploads", c.trickle},
		{"repeated PATCHes", c.repeatPatch},
	} {
		c.n.expect(x.what)
		all = append(all, func(ctx context.Context) {
			ctx, stop := context.WithTimeout(ctx, nonsenseTime)
			defer stop()
			if x.do(ctx) {
				c.n.did(x.what)
			}
		})
	}
	return all
}

// refused is what every answer to nonsense must be; none at all is one while the registry is away.
func (c *client) refused(what string, resp *http.Response, err error) {
	if err == nil && resp.StatusCode < 400 {
		c.t.Errorf("%s is answered %s", what, resp.Status)
	}
}

// kept says that a layer that was acknowledged is upstream, whole: what its digest says is looked at in the end.
func (c *client) kept(what, repo string, layer *proxytest.Blob, resp *http.Response, err error) {
	if err == nil && resp.StatusCode == http.StatusCreated && c.up.has(repo, "blobs/"+layer.Digest) == "" {
		c.t.Errorf("%s: the layer %s was acknowledged and is not in %s upstream", what, layer.Digest, repo)
	}
}

func (c *client) hangUp(ctx context.Context) bool {
	tree, _ := c.tree()
	ctx, stop := context.WithTimeout(ctx, c.duration(150*time.Millisecond))
	defer stop()
	_, err := c.pusher().Push(ctx, proxytest.Options{
		BaseURL: c.sluice.url(), Repository: c.repository(), Tags: []string{fmt.Sprintf("hung-up-%d-%d", c.k, c.dice.n(20))}, Tree: tree, Client: c.http,
	})
	return err != nil
}

func (c *client) garbage(ctx context.Context) bool {
	resp, err := c.do(ctx, http.MethodPut, c.sluice.url()+"/v2/"+c.repository()+"/manifests/garbage", bytes.NewReader(c.junk()), "Content-Type", proxytest.MediaTypeOCIIndex)
	c.refused("garbage", resp, err)
	return err == nil
}

func (c *client) wrongDigest(ctx context.Context) bool {
	location := c.upload(ctx, c.repository())
	if location == "" {
		return false
	}
	content, _ := c.content()
	resp, err := c.do(ctx, http.MethodPut, location+fmt.Sprintf("?digest=sha256:%x", sha256.Sum256([]byte("another"))), bytes.NewReader(content))
	c.refused("a wrong digest", resp, err)
	return err == nil
}

// dial is for requests that no http.Client sends.
func (c *client) dial(ctx context.Context) (*tls.Conn, bool) {
	trusted := c.sluice.trusted()
	trusted.ServerName = "127.0.0.1"
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", c.sluice.address)
	if err != nil {
		if ctx.Err() == nil {
			c.t.Errorf("%s cannot be reached: %v", c.sluice.name, err)
		}
		return nil, false
	}
	conn := tls.Client(tcp, trusted)
	if err := conn.HandshakeContext(ctx); err != nil {
		tcp.Close()
		if ctx.Err() == nil {
			c.t.Errorf("%s shows no certificate that clients trust: %v", c.sluice.name, err)
		}
		return nil, false
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	return conn, true
}

// begun is a connection with the beginning of a request with a body of so many bytes, it is said.
func (c *client) begun(ctx context.Context, method, location string, length int) (*tls.Conn, bool) {
	conn, ok := c.dial(ctx)
	if ok {
		_, _ = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", method, strings.TrimPrefix(location, c.sluice.url()), length)
	}
	return conn, ok
}

// cutConnection sends the beginning of a body and resets the connection.
func (c *client) cutConnection(ctx context.Context) bool {
	location := c.upload(ctx, c.repository())
	if location == "" {
		return false
	}
	content, _ := c.content()
	conn, ok := c.begun(ctx, http.MethodPatch, location, len(content))
	if !ok {
		return false
	}
	_, _ = conn.Write(content[:c.dice.n(len(content))])
	c.pause(ctx, 20*time.Millisecond)
	_ = conn.NetConn().(*net.TCPConn).SetLinger(0) // a reset, not an end
	_ = conn.NetConn().Close()
	return true
}

// tooLittle sends all it has and less than it said.
func (c *client) tooLittle(ctx context.Context) bool {
	repo := c.repository()
	location := c.upload(ctx, repo)
	if location == "" {
		return false
	}
	content, _ := c.content()
	conn, ok := c.begun(ctx, http.MethodPut, fmt.Sprintf("%s?digest=sha256:%x", location, sha256.Sum256(content)), 2*len(content))
	if !ok {
		return false
	}
	defer conn.Close()
	_, _ = conn.Write(content)
	_ = conn.CloseWrite()
	if answer, _ := io.ReadAll(conn); strings.HasPrefix(string(answer), "HTTP/1.1 2") {
		c.t.Errorf("half of what was announced is answered %.100s", answer)
	}
	return true
}

// tooMuch says that the first half is all; then the whole is not there.
func (c *client) tooMuch(ctx context.Context) bool {
	location := c.upload(ctx, c.repository())
	if location == "" {
		return false
	}
	content, _ := c.content()
	conn, ok := c.begun(ctx, http.MethodPut, fmt.Sprintf("%s?digest=sha256:%x", location, sha256.Sum256(content)), len(content)/2)
	if !ok {
		return false
	}
	defer conn.Close()
	_, _ = conn.Write(content)
	_ = conn.CloseWrite()
	if answer, _ := io.ReadAll(conn); strings.HasPrefix(string(answer), "HTTP/1.1 2") {
		c.t.Errorf("the first half for the whole is answered %.100s", answer)
	}
	return true
}

// trickle is an honest client at the end of a bad line.
func (c *client) trickle(ctx context.Context) bool {
	repo, layer := c.repository(), c.layer()
	location := c.upload(ctx, repo)
	if location == "" {
		return false
	}
	drops := &drops{ctx: ctx, client: c, left: layer.Bytes()}
	resp, err := c.do(ctx, http.MethodPut, location+"?digest="+layer.Digest, drops)
	c.kept("a trickling upload", repo, layer, resp, err)
	return err == nil
}

type drops struct {
	*client
	ctx  context.Context
	left []byte
}

func (d *drops) Read(p []byte) (int, error) {
	if len(d.left) == 0 {
		return 0, io.EOF
	}
	d.pause(d.ctx, 20*time.Millisecond)
	n := copy(p[:min(len(p), 1+d.dice.n(5000))], d.left)
	d.left = d.left[n:]
	return n, d.ctx.Err()
}

// repeatPatch sends a chunk again that has been taken, as who has lost the answer, and then what is missing.
func (c *client) repeatPatch(ctx context.Context) bool {
	repo, layer := c.repository(), c.layer()
	location := c.upload(ctx, repo)
	if location == "" {
		return false
	}
	half := int(layer.Size / 2)
	chunk := func(location string) (*http.Response, error) {
		return c.do(ctx, http.MethodPatch, location, bytes.NewReader(layer.Bytes()[:half]), "Content-Range", fmt.Sprintf("0-%d", half-1), "Content-Type", "application/octet-stream")
	}
	first, err := chunk(location)
	if err != nil || first.StatusCode != http.StatusAccepted {
		return false
	}
	next := c.sluice.url() + first.Header.Get("Location")
	again, err := chunk(next)
	c.refused("a chunk that was sent before", again, err)
	resp, err := c.do(ctx, http.MethodPut, next+"?digest="+layer.Digest, bytes.NewReader(layer.Bytes()[half:]))
	c.kept("an upload with a repeated PATCH", repo, layer, resp, err)
	return true
}
