//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/proxy/proxytest"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// A job is what one client process does: pushes at the same time, each of layers, or of a small image.
type job struct {
	URL, Prefix string
	Pushes      int   // in all
	AtOnce      int   // pushes under way at the same time
	Layers      int   // of each push; 0: the small image
	LayerSize   int64 //
	Rate        int64 // bytes per second of each layer; 0: as fast as it goes
	Attested    bool  // the small image has attestations
}

// A result is what a client process prints.
type result struct {
	Requests int64
	Seconds  float64
}

// load does a job when a line comes on standard input.
func load(args []string) error {
	var j job
	if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
		return err
	}
	l := &loader{job: j}
	if j.Layers > 0 {
		if err := l.makeBlock(); err != nil {
			return err
		}
		defer l.block.Close()
	} else {
		l.image(j.Attested)
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	began := time.Now()
	if err := l.run(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result{Requests: l.requests.Load(), Seconds: time.Since(began).Seconds()})
}

type loader struct {
	job
	block    *os.File // a part of a layer, again and again
	blobs    []*proxytest.Blob
	children []*proxytest.Manifest
	root     *proxytest.Manifest
	tree     *proxytest.Tree
	requests atomic.Int64
}

const blockSize = 16 * mib

// makeBlock is a file in memory, since sendfile then moves its pages into the socket without a copy.
func (l *loader) makeBlock() (err error) {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = ""
	}
	if l.block, err = os.CreateTemp(dir, "sluice-bench-block-"); err != nil {
		return err
	}
	if err := os.Remove(l.block.Name()); err != nil {
		return err
	}
	b := make([]byte, blockSize)
	copy(b, "\x1f\x8b\x08")
	_, err = l.block.Write(b)
	return err
}

// image is a push of two platforms with three layers of 4 KiB each, and two statements for each.
func (l *loader) image(attested bool) {
	o := proxytest.SyntheticOptions{Layers: 3, LayerSize: 4 * kib}
	if attested {
		o.Form, o.SBOM = proxytest.FormLegacy, true
	}
	l.tree = proxytest.Synthetic(o)
	l.root, l.blobs = l.tree.Root, l.tree.Blobs()
	for i := len(l.root.Children) - 1; i >= 0; i-- { // BuildKit: last pushed onto its stack, first off it
		l.children = append(l.children, l.root.Children[i])
	}
}

func (l *loader) run() error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make(chan error, l.AtOnce)
	for range l.AtOnce {
		wg.Go(func() {
			c := newClients(l.URL, &l.requests)
			defer c.close()
			for {
				n := next.Add(1)
				if n > int64(l.Pushes) {
					return
				}
				repo := fmt.Sprintf("/v2/%s/%d", l.Prefix, n)
				push := l.push
				if l.Layers > 0 {
					push = l.layers
				}
				if err := push(c, repo); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

// layers pushes several at once, as BuildKit does.
func (l *loader) layers(c *clients, repo string) error {
	return c.each(l.Layers, func(c *client, i int) error {
		digest := fmt.Sprintf("sha256:%064x", i+1)
		path, err := c.open(repo, digest, "application/vnd.oci.image.layer.v1.tar+gzip")
		if err != nil {
			return err
		}
		return c.do(request{method: "PUT", path: path, length: l.LayerSize, file: l.block, rate: l.Rate}, 201)
	})
}

// push is what BuildKit sends: for every blob HEAD, POST and PUT, five at a time, then one manifest after the other.
func (l *loader) push(c *clients, repo string) error {
	err := c.each(len(l.blobs), func(c *client, i int) error {
		b := l.blobs[i]
		path, err := c.open(repo, b.Digest, b.MediaType)
		if err != nil {
			return err
		}
		return c.do(request{method: "PUT", path: path, body: b.Bytes(), length: b.Size}, 201)
	})
	if err != nil {
		return err
	}
	for _, m := range l.children {
		if err := c.all[0].manifest(repo, m, m.Digest); err != nil {
			return err
		}
	}
	return c.all[0].manifest(repo, l.root, "latest")
}

// blobsAtOnce is BuildKit's number of uploads of one push at the same time.
const blobsAtOnce = 5

// clients are the connections of one push.
type clients struct{ all []*client }

func newClients(base string, requests *atomic.Int64) *clients {
	u, err := url.Parse(base)
	if err != nil {
		panic(err) // written by the program itself
	}
	c := &clients{}
	for range blobsAtOnce {
		c.all = append(c.all, &client{host: u.Host, secure: u.Scheme == "https", requests: requests})
	}
	return c
}

func (c *clients) close() {
	for _, one := range c.all {
		if one.conn != nil {
			one.conn.Close()
		}
	}
}

// each does n things, as many at once as there are connections.
func (c *clients) each(n int, do func(c *client, i int) error) error {
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, len(c.all))
	for i, one := range c.all[:min(n, len(c.all))] {
		wg.Go(func() {
			for {
				at := int(next.Add(1)) - 1
				if at >= n || errs[i] != nil {
					return
				}
				errs[i] = do(one, at)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// client is one connection that speaks just enough HTTP.
type client struct {
	host     string
	secure   bool
	conn     net.Conn
	in       *bufio.Reader
	head     []byte
	location string // of the last answer
	requests *atomic.Int64
}

type request struct {
	method, path, accept, contentType string
	body                              []byte
	file                              *os.File
	length, rate                      int64
}

// open is HEAD and POST; the path is where the blob goes.
func (c *client) open(repo, digest, mediaType string) (string, error) {
	if err := c.do(request{method: "HEAD", path: repo + "/blobs/" + digest, accept: mediaType + ", */*"}, 404); err != nil {
		return "", err
	}
	if err := c.do(request{method: "POST", path: repo + "/blobs/uploads/"}, 202); err != nil {
		return "", err
	}
	path := c.location
	if _, after, found := strings.Cut(path, "://"); found {
		path = after[strings.IndexByte(after, '/'):]
	}
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	return path + separator + "digest=" + strings.Replace(digest, ":", "%3A", 1), nil
}

func (c *client) manifest(repo string, m *proxytest.Manifest, reference string) error {
	path := repo + "/manifests/" + reference
	if err := c.do(request{method: "HEAD", path: path, accept: m.MediaType + ", */*"}, 404); err != nil {
		return err
	}
	return c.do(request{method: "PUT", path: path, contentType: m.MediaType, body: m.Bytes(), length: m.Size}, 201)
}

func (c *client) do(r request, want int) error {
	c.requests.Add(1)
	if err := c.connect(); err != nil {
		return err
	}
	h := append(c.head[:0], r.method...)
	h = append(append(append(h, ' '), r.path...), " HTTP/1.1\r\nHost: "...)
	h = append(append(h, c.host...), "\r\nUser-Agent: buildkit/v0.30\r\n"...)
	if r.accept != "" {
		h = append(append(append(h, "Accept: "...), r.accept...), "\r\n"...)
	}
	if r.method == "PUT" && r.contentType == "" {
		r.contentType = "application/octet-stream"
	}
	if r.contentType != "" {
		h = append(append(append(h, "Content-Type: "...), r.contentType...), "\r\n"...)
	}
	if r.method != "HEAD" {
		h = append(strconv.AppendInt(append(h, "Content-Length: "...), r.length, 10), "\r\n"...)
	}
	h = append(h, "\r\n"...)
	h = append(h, r.body...)
	c.head = h[:0]
	if _, err := c.conn.Write(h); err != nil {
		return fmt.Errorf("%s: %w", r.method, err)
	}
	if r.file != nil {
		if err := c.send(r); err != nil {
			return fmt.Errorf("%s body: %w", r.method, err)
		}
	}
	status, err := c.answer(r.method)
	if err != nil {
		return fmt.Errorf("answer to %s %s: %w", r.method, r.path, err)
	}
	if status != want {
		return fmt.Errorf("%s %s: status %d, not %d", r.method, r.path, status, want)
	}
	return nil
}

func (c *client) connect() error {
	if c.conn != nil {
		return nil
	}
	conn, err := net.Dial("tcp", c.host)
	if err != nil {
		return err
	}
	if c.secure {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}) // the registry's certificate was made a moment ago
	}
	c.conn, c.in = conn, bufio.NewReaderSize(conn, 4*kib)
	return nil
}

// slice is how much a slow upload sends at a time.
const slice = 128 * kib

// send sends a layer: the file again and again.
func (c *client) send(r request) error {
	began, sent := time.Now(), int64(0)
	for sent < r.length {
		at := sent % blockSize
		n := min(r.length-sent, blockSize-at)
		if r.rate > 0 {
			n = min(n, slice)
			time.Sleep(time.Until(began.Add(time.Duration(float64(sent) / float64(r.rate) * float64(time.Second)))))
		}
		part, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", r.file.Fd())) // an offset of its own
		if err != nil {
			return err
		}
		_, err = part.Seek(at, io.SeekStart)
		if err == nil {
			_, err = io.CopyN(c.conn, part, n)
		}
		part.Close()
		if err != nil {
			return err
		}
		sent += n
	}
	return nil
}

// answer reads one answer whose body, if any, has a length.
func (c *client) answer(method string) (status int, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("%q is no status line", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length, closes := 0, false
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if len(line) <= 2 {
			break
		}
		if line[0]|0x20 != 'l' && line[0]|0x20 != 'c' {
			continue
		}
		name, value, _ := strings.Cut(strings.TrimRight(string(line), "\r\n"), ":")
		switch strings.ToLower(name) {
		case "location":
			c.location = strings.TrimSpace(value)
		case "content-length":
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return 0, err
			}
		case "connection":
			closes = strings.EqualFold(strings.TrimSpace(value), "close")
		}
	}
	if status == 100 {
		return c.answer(method)
	}
	if method != "HEAD" {
		if _, err := c.in.Discard(length); err != nil {
			return 0, err
		}
	}
	if closes {
		c.conn.Close()
		c.conn = nil
	}
	return status, nil
}
