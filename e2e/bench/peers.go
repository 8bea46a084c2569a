//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	_ "net/http/pprof" // of the reverse proxies, for what they allocate
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A peer is a proxy as its users would set it up for a registry: bodies of any size that are not stored first, no
// access log, connections to the registry that stay.
type peer struct {
	name    string
	program string // "" is this one
	debian  bool
	// start writes what the program needs into a folder of its own, and is its command line.
	start func(o options, p place) ([]string, error)
	pprof func(p place) string
}

// A place is where one proxy runs, and the registry that it runs for.
type place struct {
	dir, listen, admin, upstream string
}

func (p place) secure() bool { return strings.HasPrefix(p.upstream, "https:") }
func (p place) host() string { _, host, _ := strings.Cut(p.upstream, "://"); return host }

func peers() []peer {
	goAdmin := func(p place) string { return "http://" + p.admin }
	reverse := func(buffer string) func(options, place) ([]string, error) {
		return func(o options, p place) ([]string, error) {
			return []string{o.self, "reverseproxy", p.listen, p.admin, p.upstream, buffer}, nil
		}
	}
	sluice := func(action string) func(options, place) ([]string, error) {
		return func(o options, p place) ([]string, error) { return sluiceCommand(o, p, action) }
	}
	return []peer{
		{name: "nginx", program: "usr/sbin/nginx", debian: true, start: nginxCommand},
		{name: "haproxy", program: "usr/sbin/haproxy", debian: true, start: haproxyCommand},
		{name: "caddy", program: "usr/bin/caddy", debian: true, start: caddyCommand, pprof: goAdmin},
		{name: "reverseproxy", start: reverse("0"), pprof: goAdmin},
		{name: "reverseproxy-256k", start: reverse("262144"), pprof: goAdmin},
		{name: "sluice-strip", start: sluice("strip"), pprof: goAdmin},
		{name: "sluice-store", start: sluice("store"), pprof: goAdmin},
	}
}

// debianRoot is where e2e/tools/debian.sh unpacks.
func debianRoot() string {
	cache := os.Getenv("SLUICE_CACHE")
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		cache = filepath.Join(base, "sluice")
	}
	return filepath.Join(cache, "tools", "debian")
}

// missing is why a peer cannot run here.
func (p peer) missing() string {
	if !p.debian {
		return ""
	}
	if path := filepath.Join(debianRoot(), p.program); !exists(path) {
		return path + " is missing (make setup)"
	}
	return ""
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func nginxCommand(_ options, p place) ([]string, error) {
	tls := ""
	if p.secure() {
		tls = "proxy_ssl_session_reuse on; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
	}
	scheme, _, _ := strings.Cut(p.upstream, "://")
	conf := fmt.Sprintf(`daemon off; worker_processes auto; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 4096; }
http {
  access_log off; server_tokens off; keepalive_requests 1000000; client_max_body_size 0; sendfile on; tcp_nodelay on;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  upstream registry { server %[3]s; keepalive 256; keepalive_requests 1000000; }
  server {
    listen %[2]s;
    location / {
      proxy_pass %[4]s://registry; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
      proxy_request_buffering off; proxy_buffering off; proxy_read_timeout 900s; proxy_send_timeout 900s; %[5]s
    }
  }
}
`, p.dir, p.listen, p.host(), scheme, tls)
	file := filepath.Join(p.dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return []string{filepath.Join(debianRoot(), "usr/sbin/nginx"), "-e", p.dir + "/error.log", "-p", p.dir, "-c", file}, nil
}

func haproxyCommand(_ options, p place) ([]string, error) {
	tls := ""
	if p.secure() {
		tls = " ssl verify none"
	}
	conf := fmt.Sprintf(`global
  maxconn 4096
defaults
  mode http
  timeout connect 10s
  timeout client 900s
  timeout server 900s
  http-reuse always
listen registry
  bind %s
  server registry %s%s pool-max-conn 256
`, p.listen, p.host(), tls)
	file := filepath.Join(p.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return []string{filepath.Join(debianRoot(), "usr/sbin/haproxy"), "-db", "-f", file}, nil
}

func caddyCommand(_ options, p place) ([]string, error) {
	tls := ""
	if p.secure() {
		tls = "tls_insecure_skip_verify\n"
	}
	conf := fmt.Sprintf("{\n admin %s\n auto_https off\n}\nhttp://%s {\n reverse_proxy %s {\n  transport http {\n   versions 1.1\n   compression off\n   keepalive_idle_conns_per_host 256\n   %s  }\n }\n}\n",
		p.admin, p.listen, p.upstream, tls)
	file := filepath.Join(p.dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return []string{filepath.Join(debianRoot(), "usr/bin/caddy"), "run", "--adapter", "caddyfile", "--config", file}, nil
}

func sluiceCommand(o options, p place, action string) ([]string, error) {
	ca := ""
	if p.secure() {
		ca = fmt.Sprintf(", ca: %q", o.certificate)
	}
	conf := fmt.Sprintf("listen: %s\nadmin: %s\npprof: true\nattestations: %s\nupstreams: [{url: %q, credentials: anonymous%s}]\nstorage: {filesystem: {rootdirectory: %q}}\n",
		p.listen, p.admin, action, p.upstream, ca, filepath.Join(p.dir, "data"))
	file := filepath.Join(p.dir, "sluice.yml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	return []string{o.sluice, "serve", "--config", file, "--log-level", "warn"}, nil
}

// reverseProxy is what Go's library has, with its own buffers of 32 KiB or with larger ones from a pool.
func reverseProxy(args []string) error {
	u, err := url.Parse(args[2])
	if err != nil {
		return err
	}
	p := httputil.NewSingleHostReverseProxy(u)
	p.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 256, DisableCompression: true,
	}
	if args[3] != "0" {
		transport := p.Transport.(*http.Transport)
		transport.WriteBufferSize, transport.ReadBufferSize = 256*kib, 256*kib
		p.BufferPool = &bufferPool{}
	}
	go func() { _ = http.ListenAndServe(args[1], nil) }()
	return http.ListenAndServe(args[0], p)
}

type bufferPool struct{ pool sync.Pool }

func (b *bufferPool) Get() []byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return *p
	}
	return make([]byte, 256*kib)
}

func (b *bufferPool) Put(p []byte) { b.pool.Put(&p) }

// A running is a proxy that has answered.
type running struct {
	peer
	cmd     *exec.Cmd
	url     string
	pprofAt string
	started time.Duration // until its first answer
	idle    float64       // MiB resident after the warm-up
}

func (p peer) run(o options, dir, upstream string) (*running, error) {
	at := place{dir: filepath.Join(dir, p.name), upstream: upstream}
	if err := os.MkdirAll(at.dir, 0o755); err != nil {
		return nil, err
	}
	var err error
	if at.listen, err = freeAddress(); err != nil {
		return nil, err
	}
	if at.admin, err = freeAddress(); err != nil {
		return nil, err
	}
	args, err := p.start(o, at)
	if err != nil {
		return nil, err
	}
	logFile, err := os.Create(filepath.Join(at.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	r := &running{peer: p, cmd: exec.Command(args[0], args[1:]...), url: "http://" + at.listen}
	r.cmd.Dir, r.cmd.Stdout, r.cmd.Stderr = at.dir, logFile, logFile
	r.cmd.Env = append(os.Environ(), "HOME="+at.dir)
	if p.debian {
		r.cmd.Env = append(r.cmd.Env, "LD_LIBRARY_PATH="+filepath.Join(debianRoot(), "usr/lib", machine()+"-linux-gnu"))
	}
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	for !answers(r.url) {
		if time.Since(began) > 20*time.Second {
			r.stop()
			b, _ := os.ReadFile(logFile.Name())
			return nil, fmt.Errorf("%s does not answer: %s", p.name, b)
		}
		time.Sleep(time.Millisecond)
	}
	r.started = time.Since(began)
	if p.pprof != nil {
		r.pprofAt = p.pprof(at)
	}
	return r, nil
}

func machine() string {
	var u syscall.Utsname
	_ = syscall.Uname(&u)
	var b []byte
	for _, c := range u.Machine {
		if c == 0 {
			break
		}
		b = append(b, byte(c))
	}
	return string(b)
}

func freeAddress() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// answers asks for a blob, which goes all the way to the registry.
func answers(base string) bool {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := c.Head(base + fmt.Sprintf("/v2/start/blobs/sha256:%064x", 1))
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusNotFound
}

// stop ends the process and its children, which are in a process group of their own.
func (r *running) stop() {
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = r.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
}
