//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/ecrsim"
)

// A fleet is three Sluice processes behind HAProxy, which gives each request to the next of them. They share a bucket and
// nothing else. With SLUICE_E2E_FLEET=1 it is what every test pushes through.

func onFleet() bool { return os.Getenv("SLUICE_E2E_FLEET") != "" }

// A replicaOption is what one replica has for itself.
type replicaOption struct {
	settings string        // lines of config.yml beyond those for all
	clock    time.Duration // how far its clock is ahead
}

type fleetOptions struct {
	each   []replicaOption // nil: three, all the same
	bucket *bucket         // nil: a new one
	// watched takes a replica that died out of the turn when the balancer notices, so that not every one has its turn.
	watched bool
}

func startFleet(t testing.TB, i instructions, o fleetOptions) *sluice {
	t.Helper()
	haproxy := tool(t, "haproxy")
	if o.bucket == nil {
		o.bucket = newBucket(t)
	}
	if o.each == nil {
		o.each = make([]replicaOption, 3)
	}
	i.env = append(slices.Clone(bucketCredentials), i.env...)
	s := &sluice{bucket: o.bucket}
	for _, own := range o.each {
		its := i
		its.settings += "\n" + own.settings
		r := newReplica(t, "127.0.0.1", its, o.bucket.storage)
		if own.clock != 0 {
			r.bin = shared(t, bench.shifted)
			r.env = append(slices.Clone(r.env), clockVariable+"="+own.clock.String())
		}
		s.replicas = append(s.replicas, r)
	}
	s.bin = shared(t, bench.sluice)
	t.Cleanup(func() { s.end(t) })
	s.start(t)
	s.host = startBalancer(t, haproxy, i, s.replicas, o.watched)
	return s
}

const bucketKey, bucketSecret = ecrsim.DefaultAccessKey, "sluice-secret"

// bucketCredentials are from the environment, as on a machine with a role. ECR's double knows the same key: there one role
// is for both.
var bucketCredentials = []string{"AWS_ACCESS_KEY_ID=" + bucketKey, "AWS_SECRET_ACCESS_KEY=" + bucketSecret}

// A gateway serves a folder as S3: each folder in it is a bucket.
type gateway struct {
	endpoint string
	buckets  string
	log      string // one line for each request
	made     atomic.Uint32
}

func (b *workbench) startGateway() (*gateway, error) {
	versitygw, err := b.need("versitygw")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "s3")
	g := &gateway{endpoint: fmt.Sprintf("http://127.0.0.1:%d", port), buckets: filepath.Join(dir, "buckets"), log: filepath.Join(dir, "access.log")}
	meta := filepath.Join(dir, "meta")
	for _, d := range []string{g.buckets, meta} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	_, err = b.start(daemon{
		name: "versitygw",
		// The sidecar keeps metadata in files: not every file system has extended attributes.
		argv: []string{versitygw, "--port", strings.TrimPrefix(g.endpoint, "http://"), "--region", "us-east-1", "--quiet", "--access-log", g.log, "posix", "--sidecar", meta, g.buckets},
		env:  []string{"ROOT_ACCESS_KEY=" + bucketKey, "ROOT_SECRET_KEY=" + bucketSecret},
		ready: func() error {
			resp, err := http.Get(g.endpoint)
			if err == nil {
				resp.Body.Close()
			}
			return err
		},
	})
	return g, err
}

// A bucket is for one fleet, or for two that follow one another.
type bucket struct {
	*gateway
	name    string
	folder  string
	storage string // of config.yml
}

func newBucket(t testing.TB) *bucket {
	t.Helper()
	g := shared(t, bench.gateway)
	b := &bucket{gateway: g, name: fmt.Sprintf("state-%d", g.made.Add(1))}
	b.folder = filepath.Join(g.buckets, b.name)
	if err := os.Mkdir(b.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	b.storage = fmt.Sprintf("s3: {bucket: %s, region: us-east-1, regionendpoint: %q, forcepathstyle: true}", b.name, g.endpoint)
	return b
}

// startBalancer gives each request to the next replica, and where there is TLS, which it cannot look into, each connection.
// What it could not connect for goes to another replica: what any balancer does. It has one thread, because several may
// take turns at the same moment, and then the order that is asserted is not kept.
func startBalancer(t testing.TB, haproxy string, i instructions, replicas []*replica, watched bool) (host string) {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	host = fmt.Sprintf("%s:%d", i.address, port)
	mode, format, ready := "http", "%ST %HM %HU", httpReady("http://"+host+"/v2/")
	if i.tls() {
		mode, format, ready = "tcp", "%ts", listening(host)
	}
	config := fmt.Sprintf(`global
  log stdout format raw local0
  maxconn 1000
  nbthread 1
defaults
  mode %s
  log global
  option logasap
  log-format "served-by %%s retried %%rc %s"
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 3
  option redispatch 1
listen sluice
  bind %s
  balance roundrobin
`, mode, format, host)
	if watched {
		config += "  default-server check inter 100ms fall 1 rise 1\n"
	}
	for i, r := range replicas {
		config += fmt.Sprintf("  server r%d %s\n", i, r.host)
	}
	file := filepath.Join(scratch(t), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	p, err := bench.start(daemon{
		name: "haproxy", argv: []string{haproxy, "-db", "-f", file}, ready: ready,
		env: []string{"LD_LIBRARY_PATH=" + filepath.Join(bench.cache, "debian/usr/lib", machine+"-linux-gnu")},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop() // so that its log is whole
		b, err := os.ReadFile(p.log)
		if err != nil {
			t.Error(err)
		} else if t.Failed() {
			t.Logf("the balancer's log ends with:\n%s", lastLines(b, 30))
		} else {
			assertEveryoneWorked(t, b, len(replicas), watched)
		}
	})
	return host
}

var servedBy = regexp.MustCompile(`(?m)^served-by (\S+) retried \+?(\d+) `)

// assertEveryoneWorked reads in the balancer's log that every replica had its turn, one after another. A retry may take
// two turns. What ended before it was a whole request came to no replica and took no turn.
func assertEveryoneWorked(t testing.TB, log []byte, replicas int, watched bool) {
	t.Helper()
	served, retries, unserved := map[string]int{}, 0, 0
	for i := range replicas {
		served[fmt.Sprintf("r%d", i)] = 0
	}
	for _, m := range servedBy.FindAllSubmatch(log, -1) {
		if _, known := served[string(m[1])]; known {
			served[string(m[1])]++
		} else {
			unserved++
		}
		n, _ := strconv.Atoi(string(m[2]))
		retries += n
	}
	t.Logf("requests by replica: %v, %d retries, %d not served", served, retries, unserved)
	counts := slices.Sorted(maps.Values(served))
	least, most := counts[0], counts[len(counts)-1]
	if watched && least == 0 || !watched && most-least > 1+retries {
		t.Errorf("the balancer did not give each request to the next replica: %v, %d retries, %d not served", served, retries, unserved)
	}
}
