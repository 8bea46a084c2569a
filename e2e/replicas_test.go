//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fleet is several Sluice processes behind a balancer that gives each request to the next of them. They share a bucket
// and nothing else.
type fleet struct {
	world    // via is the balancer
	replicas []*sluice
	balancer *process
}

// newFleet starts three replicas; settings[i] are lines of the i-th one's config.yml, none of them the defaults.
func newFleet(t testing.TB, settings ...string) *fleet {
	t.Helper()
	if os.Getenv("SLUICE_E2E_DIRECT") != "" {
		t.Skip("SLUICE_E2E_DIRECT leaves Sluice out, and this test is about Sluice alone")
	}
	haproxy, versitygw := tool(t, "haproxy"), tool(t, "versitygw")
	upstream, err := startRegistry(filepath.Join(scratch(t), "upstream"))
	if err != nil {
		shared(t, func() (any, error) { return nil, err })
	}
	t.Cleanup(upstream.proc.stop)
	endpoint := startGateway(t, versitygw)
	f := &fleet{world: world{upstream: upstream, direct: upstream.host}}
	for i := range 3 {
		more := ""
		if i < len(settings) {
			more = settings[i]
		}
		f.replicas = append(f.replicas, startReplica(t, upstream, endpoint, more))
	}
	f.sluice = f.replicas[0]
	f.balance(t, haproxy)
	return f
}

const bucketKey, bucketSecret = "sluice-access", "sluice-secret"

// startGateway serves a folder as S3. In it a folder is a bucket.
func startGateway(t testing.TB, versitygw string) (endpoint string) {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	dir := scratch(t)
	for _, sub := range []string{"buckets/state", "meta"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	endpoint = fmt.Sprintf("http://127.0.0.1:%d", port)
	p, err := bench.start(daemon{
		name: "versitygw",
		// The sidecar keeps metadata in files: not every file system has extended attributes.
		argv: []string{versitygw, "--port", fmt.Sprintf("127.0.0.1:%d", port), "--region", "us-east-1", "--quiet", "posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "buckets")},
		env:  []string{"ROOT_ACCESS_KEY=" + bucketKey, "ROOT_SECRET_KEY=" + bucketSecret},
		ready: func() error {
			resp, err := http.Get(endpoint)
			if err == nil {
				resp.Body.Close()
			}
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.stop)
	return endpoint
}

func startReplica(t testing.TB, upstream *registry, endpoint, settings string) *sluice {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &sluice{
		host: fmt.Sprintf("127.0.0.1:%d", port), config: filepath.Join(scratch(t), "config.yml"), bin: shared(t, bench.sluice),
		env: []string{"AWS_ACCESS_KEY_ID=" + bucketKey, "AWS_SECRET_ACCESS_KEY=" + bucketSecret},
	}
	config := fmt.Sprintf("listen: %s\nadmin: \"\"\nupstreams: [{url: \"http://%s\", credentials: anonymous}]\nstorage: {s3: {bucket: state, regionendpoint: %q, forcepathstyle: true}}\n%s\n",
		s.host, upstream.host, endpoint, settings)
	s.serve(t, config)
	return s
}

// balance starts the balancer. It takes a replica that died out of the turn when it notices, and sends to another what
// it could not connect for: what any balancer does.
func (f *fleet) balance(t testing.TB, haproxy string) {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	f.via = fmt.Sprintf("127.0.0.1:%d", port)
	config := fmt.Sprintf(`global
  log stdout format raw local0
  maxconn 1000
defaults
  mode http
  log global
  log-format "served-by %%s %%ST %%HM"
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  retries 3
  option redispatch 1
listen sluice
  bind %s
  balance roundrobin
  default-server check inter 100ms fall 1 rise 1
`, f.via)
	for i, r := range f.replicas {
		config += fmt.Sprintf("  server r%d %s\n", i, r.host)
	}
	file := filepath.Join(scratch(t), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	machine := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	f.balancer, err = bench.start(daemon{
		name: "haproxy", argv: []string{haproxy, "-db", "-f", file},
		env:   []string{"LD_LIBRARY_PATH=" + filepath.Join(bench.cache, "debian/usr/lib", machine+"-linux-gnu")},
		ready: httpReady("http://" + f.via + "/v2/"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.balancer.stop)
}

var servedBy = regexp.MustCompile(`(?m)^served-by (r\d) `)

// everyoneWorked asserts that requests were spread as the balancer was told.
func (f *fleet) everyoneWorked(t testing.TB) {
	t.Helper()
	f.balancer.stop() // so that its log is whole
	b, err := os.ReadFile(f.balancer.log)
	if err != nil {
		t.Fatal(err)
	}
	served := map[string]int{}
	for _, m := range servedBy.FindAllSubmatch(b, -1) {
		served[string(m[1])]++
	}
	t.Logf("requests by replica: %v", served)
	if len(served) != len(f.replicas) {
		t.Errorf("%d replicas had requests, want %d", len(served), len(f.replicas))
	}
}

// attested is an image with provenance in a registry of nobody, and the same without.
func attestedSource(t testing.TB, seed uint64) (attested, clean string) {
	t.Helper()
	src, k := shared(t, bench.source), needBuilder(t, "new")
	dir := newApplication(t, seed)
	attested, clean = fmt.Sprintf("%s/replicas:%d", src.host, seed), fmt.Sprintf("%s/replicas-clean:%d", src.host, seed)
	k.mustBuild(t, dir, bothPlatforms, append(push(attested), "--provenance=mode=max")...)
	k.mustBuild(t, dir, bothPlatforms, withoutAttestations(clean)...)
	return attested, clean
}

// Invariant I10: each request of each push goes to another process.
func TestReplicasBehindABalancerAreOne(t *testing.T) {
	f := newFleet(t)
	for _, form := range forms {
		t.Run("BuildKit "+form.name, func(t *testing.T) {
			k, dir := needBuilder(t, form.builder), newApplication(t, 80)
			name := "build-" + form.name
			k.mustBuild(t, dir, bothPlatforms, withoutAttestations(f.direct+"/"+name+"-reference:1")...)
			original := k.mustBuild(t, dir, bothPlatforms, append(push(f.via+"/"+name+":1"), "--provenance=mode=max")...)
			f.same(t, name, name+"-reference")
			for _, ref := range []string{":1", "@" + original} {
				if found := f.sluice.list(t, f.via+"/"+name+ref); len(found) != 2 {
					t.Errorf("%d statements are listed for %s, want one for each platform", len(found), ref)
				}
			}
			if show := run(t, f.sluice.bin, "attestations", "show", "--platform", "linux/amd64", f.via+"/"+name+":1"); !strings.Contains(show, "buildType") {
				t.Errorf("show prints no provenance: %.500s", show)
			}
		})
	}
	attested, clean := attestedSource(t, 81)
	for _, c := range copiers() {
		if c.rewrites || slices.ContainsFunc(c.needs, func(p string) bool { _, why := bench.find(p); return why != "" }) {
			continue
		}
		if !slices.Contains([]string{"crane copy", "skopeo copy all", "regctl image copy", "oras cp"}, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			name := strings.ReplaceAll(c.name, " ", "-")
			c.copy(t, clean, f.direct+"/"+name+"-reference:1")
			c.copy(t, attested, f.via+"/"+name+":1")
			f.same(t, name, name+"-reference")
			if found := f.sluice.list(t, f.via+"/"+name+":1"); len(found) != 2 {
				t.Errorf("%d statements are listed, want one for each platform", len(found))
			}
		})
	}
	f.everyoneWorked(t)
}

// Invariant I7 for one of several: a client that tries again meets another replica, in the middle of its push.
//
// SLUICE_E2E_SEED repeats the moments of an earlier run as well as timing allows; SLUICE_E2E_PUSHES sets the number of
// pushes.
func TestAReplicaKilledAtAnyMomentIsNotMissed(t *testing.T) {
	seed, pushes := uint64(time.Now().UnixNano()), 100
	if s, err := strconv.ParseUint(os.Getenv("SLUICE_E2E_SEED"), 10, 64); err == nil {
		seed = s
	}
	if n, err := strconv.Atoi(os.Getenv("SLUICE_E2E_PUSHES")); err == nil {
		pushes = n
	}
	t.Logf("SLUICE_E2E_SEED=%d SLUICE_E2E_PUSHES=%d", seed, pushes)
	f, crane := newFleet(t), tool(t, "crane")
	attested, clean := attestedSource(t, 82)
	run(t, crane, "copy", "--insecure", clean, f.direct+"/reference:1")

	var wg sync.WaitGroup
	finished := make(chan struct{})
	kills := 0
	killer := make(chan struct{})
	go func() {
		defer close(killer)
		random := rand.New(rand.NewPCG(seed, 0))
		for {
			select {
			case <-finished:
				return
			case <-time.After(time.Duration(100+random.IntN(500)) * time.Millisecond):
			}
			r := f.replicas[random.IntN(len(f.replicas))]
			r.proc.kill()
			kills++
			p, err := bench.start(daemon{name: "sluice", argv: []string{r.bin, "serve", "--config", r.config}, env: r.env, ready: httpReady("http://" + r.host + "/v2/")})
			if err != nil {
				t.Errorf("a killed replica does not start again: %v", err)
				return
			}
			r.proc = p
		}
	}()
	next, failures := make(chan int), make([]int, pushes)
	for range 4 {
		wg.Go(func() {
			for i := range next {
				for try := 1; ; try++ {
					_, err := tryRun(crane, "copy", "--insecure", attested, fmt.Sprintf("%s/app-%d:1", f.via, i))
					if err == nil {
						break
					}
					failures[i]++
					if try == 10 {
						t.Errorf("push %d fails again and again: %v", i, err)
						break
					}
				}
			}
		})
	}
	for i := range pushes {
		next <- i
	}
	close(next)
	wg.Wait()
	close(finished)
	<-killer
	failed := 0
	for i, n := range failures {
		failed += n
		f.same(t, fmt.Sprintf("app-%d", i), "reference")
		if found := f.sluice.list(t, fmt.Sprintf("%s/app-%d:1", f.via, i)); len(found) != 2 {
			t.Errorf("app-%d: %d statements are listed, want one for each platform", i, len(found))
		}
	}
	t.Logf("%d pushes, %d kills, %d pushes had to be repeated", pushes, kills, failed)
	if kills == 0 {
		t.Error("no replica was killed, so this shows nothing")
	}
}

// A rollout: replicas of the old and of the new configuration serve the same pushes.
func TestReplicasOfTwoConfigurationsAgreeOnWhatGoesUpstream(t *testing.T) {
	const strict = "attestations: strip\nretention: 7d\n"
	f := newFleet(t, "", strict, "attestations: store\nretention: 1d\nrules: [{repositories: [\"crane-*\"], attestations: strip}]\n")
	attested, clean := attestedSource(t, 83)
	crane, k := tool(t, "crane"), needBuilder(t, "new")
	for i := range 4 { // an odd number of requests each, so that another replica gets the index
		name := fmt.Sprintf("crane-%d", i)
		run(t, crane, "copy", "--insecure", clean, f.direct+"/"+name+"-reference:1")
		run(t, crane, "copy", "--insecure", attested, f.via+"/"+name+":1")
		f.same(t, name, name+"-reference")

		name = fmt.Sprintf("build-%d", i)
		dir := newApplication(t, 84+uint64(i))
		k.mustBuild(t, dir, bothPlatforms, withoutAttestations(f.direct+"/"+name+"-reference:1")...)
		original := k.mustBuild(t, dir, bothPlatforms, push(f.via+"/"+name+":1")...)
		f.same(t, name, name+"-reference")
		if out := run(t, f.sluice.bin, "resolve", f.via+"/"+name+"@"+original); !strings.Contains(out, get(t, f.direct, name, "1").Digest) {
			t.Errorf("resolve of the original prints %q", out)
		}
	}
	f.everyoneWorked(t)
}

// The storage's secret is in the environment only, and stays there.
func TestAReplicaWithoutItsBucketSaysWhatIsWrong(t *testing.T) {
	bin := shared(t, bench.sluice)
	file := filepath.Join(scratch(t), "config.yml")
	config := "listen: 127.0.0.1:0\nadmin: \"\"\nstorage: {s3: {bucket: state, regionendpoint: \"http://127.0.0.1:1\", forcepathstyle: true}}\nupstreams: [{url: \"http://127.0.0.1:1\", credentials: anonymous}]\n"
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := tryRunIn("", []string{"AWS_ACCESS_KEY_ID=" + bucketKey, "AWS_SECRET_ACCESS_KEY=" + bucketSecret}, bin, "serve", "--config", file)
	if err == nil {
		err = errors.New("it started")
	}
	if text := err.Error(); !strings.Contains(text, "read the format of the storage") || !strings.Contains(text, "http://127.0.0.1:1") || strings.Contains(text, bucketSecret) {
		t.Error(text)
	}
}
