//go:build unix

package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/filters"
	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/folder"
	"sluice/proxy/proxytest"
)

// The benchmarks of this file push directly, through a plain httputil.ReverseProxy and through Sluice, in one
// run, since only their ratios mean anything:
//
//	go test -run - -bench . ./proxy                             about a minute
//	go test -run - -bench Layer -benchtime 64x ./proxy          4 GiB each
//	go test -run - -bench SmallPush -benchtime 200x -count 5 ./proxy
//
// Client and registry are processes of their own, so that processor time (cpu-*) and allocations (alloc*) are
// those of the proxy in the middle alone. A direct push has no proxy, and none of these numbers.

// benchPeer makes the test binary a client or a registry.
const benchPeer = "SLUICE_BENCH_PEER"

func TestMain(m *testing.M) {
	peer := strings.Fields(os.Getenv(benchPeer))
	if len(peer) == 0 {
		os.Exit(m.Run())
	}
	var err error
	switch peer[0] {
	case "registry":
		err = benchRegistry()
	case "layer", "push", "images":
		err = benchClient(peer[0], peer[1], peer[2], peer[3])
	default:
		err = errors.New("unknown peer " + peer[0])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// benchRegistry is a sink over http and over TLS, until its standard input ends.
func benchRegistry() error {
	s := &sink{}
	h := http.NewServeMux()
	h.Handle("/", s)
	h.HandleFunc("GET /requests", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, s.requests.Load()) })
	plain, secure := httptest.NewServer(h), httptest.NewTLSServer(h)
	fmt.Println(plain.URL)
	fmt.Println(secure.URL)
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// benchClient pushes as often as it is told, each time to another repository: a second push of the same to one
// would find most of it there.
func benchClient(what, base, prefix, times string) error {
	n, err := strconv.Atoi(times)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true, MaxIdleConnsPerHost: 64, WriteBufferSize: mib,
	}}
	form := proxytest.FormLegacy
	if what == "images" {
		form = proxytest.FormNone
	}
	digest, tree := layerDigest(benchLayer), smallTree(form)
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	requests := 0
	for i := range n {
		repo := prefix + "/" + strconv.Itoa(i)
		if what == "layer" {
			requests += 2
			if err := sendLayer(client, base, repo, digest); err != nil {
				return err
			}
			continue
		}
		res, err := proxytest.BuildKit(context.Background(), proxytest.Options{BaseURL: base, Repository: repo, Tags: []string{"1"}, Tree: tree, Client: client})
		if err != nil {
			return err
		}
		requests += res.Requests
	}
	fmt.Println(requests)
	return nil
}

// sendLayer is POST and one PUT, as BuildKit sends every blob.
func sendLayer(c *http.Client, base, repo, digest string) error {
	resp, err := c.Post(base+"/v2/"+repo+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	location, err := resp.Location()
	if err != nil {
		return fmt.Errorf("POST: %s: %w", resp.Status, err)
	}
	location.RawQuery = url.Values{"digest": {digest}}.Encode()
	req, err := http.NewRequest(http.MethodPut, location.String(), &blocks{block: layerStart(64 * kib), left: benchLayer})
	if err != nil {
		return err
	}
	req.ContentLength = benchLayer
	if resp, err = c.Do(req); err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("PUT: %s", resp.Status)
	}
	return nil
}

// blocks is what layerDigest is the digest of, at the price of a copy.
type blocks struct {
	block []byte
	at    int
	left  int64
}

func (b *blocks) Read(p []byte) (n int, err error) {
	for n < len(p) && b.left > 0 {
		c := copy(p[n:min(int64(len(p)), int64(n)+b.left)], b.block[b.at:])
		b.at = (b.at + c) % len(b.block)
		b.left -= int64(c)
		n += c
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

const benchLayer = 64 * mib

// smallTree is a push whose cost is that of its requests.
func smallTree(form proxytest.Form) *proxytest.Tree {
	return proxytest.Synthetic(proxytest.SyntheticOptions{Layers: 3, LayerSize: 4 * kib, Form: form, SBOM: form != proxytest.FormNone})
}

func BenchmarkLayer(b *testing.B) {
	paths(b, func(b *testing.B, p *path) {
		b.SetBytes(benchLayer)
		m := p.run(b, "layer")
		if p.proxied {
			gib := float64(b.N) * benchLayer / (1 << 30)
			b.ReportMetric(m.cpu/gib, "cpu-s/GiB")
			b.ReportMetric(m.bytes/kib/gib, "alloc-KiB/GiB")
		}
	})
}

// BenchmarkSmallPush is a push with attestations, 52 requests.
func BenchmarkSmallPush(b *testing.B) { benchSmall(b, "push") }

// BenchmarkImagePush is one without: every request is proxied, and what it costs is comparable.
func BenchmarkImagePush(b *testing.B) { benchSmall(b, "images") }

func benchSmall(b *testing.B, what string) {
	paths(b, func(b *testing.B, p *path) {
		m := p.run(b, what)
		b.ReportMetric(m.requests/b.Elapsed().Seconds(), "req/s")
		b.ReportMetric(m.requests/float64(b.N), "req/push")
		b.ReportMetric(m.upstream/float64(b.N), "upstream-req/push")
		if p.proxied {
			b.ReportMetric(m.cpu*1e6/m.requests, "cpu-us/req")
			b.ReportMetric(m.allocs/m.requests, "allocs/req")
			b.ReportMetric(m.bytes/m.requests, "alloc-B/req")
		}
	})
}

// A path is a way from the client to the registry.
type path struct {
	registry string // for the count of its requests
	url      string // where the client pushes to
	proxied  bool
}

// paths runs a benchmark over every path, on http and on TLS between proxy and registry.
func paths(b *testing.B, bench func(*testing.B, *path)) {
	for _, registry := range startRegistry(b) {
		u, err := url.Parse(registry)
		if err != nil {
			b.Fatal(err)
		}
		scheme := map[string]string{"http": "http", "https": "tls"}[u.Scheme]
		through := []struct {
			name  string
			build func(*testing.B) http.Handler
		}{
			{"direct", nil},
			{"reverseproxy", func(*testing.B) http.Handler {
				p := httputil.NewSingleHostReverseProxy(u)
				p.Transport = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 256, DisableCompression: true}
				return p
			}},
		}
		for _, act := range actions {
			through = append(through, struct {
				name  string
				build func(*testing.B) http.Handler
			}{"sluice-" + string(act), func(b *testing.B) http.Handler { return benchProxy(b, u, act) }})
		}
		for _, t := range through {
			b.Run(scheme+"/"+t.name, func(b *testing.B) {
				p := &path{registry: registry, url: registry}
				if t.build != nil {
					front := httptest.NewServer(t.build(b))
					defer front.Close()
					p.url, p.proxied = front.URL, true
				}
				bench(b, p)
			})
		}
	}
}

// benchProxy is a Sluice as `serve` makes it, with its storage in memory where the machine has such a folder: every file
// is synced, and the benchmark would be the disk's.
func benchProxy(b *testing.B, registry *url.URL, act filters.Action) http.Handler {
	b.Helper()
	root, err := os.MkdirTemp("/dev/shm", "sluice-bench-")
	if err != nil {
		root = b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(root) })
	c := config.Default()
	c.Attestations = act
	c.Upstreams = []config.Upstream{{URL: registry.String(), Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass, CA: benchCA(b, registry)}}
	p, err := proxy.New(proxy.Options{
		Config: c, Storage: folder.New(root, 0),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := p.Close(); err != nil {
			b.Error(err)
		}
	})
	return p.Handler()
}

// benchCA is a file with the certificate of a server; none for plain http.
func benchCA(b *testing.B, u *url.URL) string {
	b.Helper()
	if u.Scheme != "https" {
		return ""
	}
	c, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	file := filepath.Join(b.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ConnectionState().PeerCertificates[0].Raw})
	if err := os.WriteFile(file, certificate, 0o600); err != nil {
		b.Fatal(err)
	}
	return file
}

// measured is what the proxy spent between the client's first request and its last.
type measured struct {
	cpu, bytes, allocs float64 // of this process
	requests, upstream float64
}

// run pushes b.N times.
func (p *path) run(b *testing.B, what string) (m measured) {
	b.Helper()
	client := startPeer(b, fmt.Sprintf("%s %s b%d %d", what, p.url, time.Now().UnixNano(), b.N))
	if line := client.line(b); line != "ready" {
		b.Fatalf("client says %q", line)
	}
	upstream := requestsOf(b, p.registry)
	runtime.GC() // what was there before is not this run's to clean up
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	spent := cpu()
	b.ResetTimer()
	if _, err := io.WriteString(client.in, "go\n"); err != nil {
		b.Fatal(err)
	}
	line := client.line(b)
	b.StopTimer()
	m.cpu = cpu() - spent
	runtime.ReadMemStats(&after)
	m.bytes, m.allocs = float64(after.TotalAlloc-before.TotalAlloc), float64(after.Mallocs-before.Mallocs)
	m.upstream = requestsOf(b, p.registry) - upstream
	n, err := strconv.Atoi(line)
	if err != nil {
		b.Fatalf("client says %q", line)
	}
	m.requests = float64(n)
	client.stop(b)
	return m
}

// cpu is the processor time of this process in seconds.
func cpu() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for another argument
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func requestsOf(b *testing.B, registry string) float64 {
	b.Helper()
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := c.Get(registry + "/requests")
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var n float64
	if _, err := fmt.Fscan(resp.Body, &n); err != nil {
		b.Fatal(err)
	}
	return n
}

// startRegistry serves until the benchmark ends: its address over http and over TLS.
func startRegistry(b *testing.B) []string {
	b.Helper()
	r := startPeer(b, "registry")
	b.Cleanup(func() { r.stop(b) })
	return []string{r.line(b), r.line(b)}
}

// A peer is this program in another role.
type peer struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func startPeer(b *testing.B, role string) *peer {
	b.Helper()
	p := &peer{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), benchPeer+"="+role)
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	p.in, p.lines = in, bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return p
}

func (p *peer) line(b *testing.B) string {
	b.Helper()
	if !p.lines.Scan() {
		b.Fatalf("the other process has ended: %v", p.cmd.Wait())
	}
	return p.lines.Text()
}

// stop ends a peer that reads its standard input, and waits for it.
func (p *peer) stop(b *testing.B) {
	b.Helper()
	p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		b.Error(err)
	}
}
