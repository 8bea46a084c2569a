//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// newFleet is a world whose replicas need not be the same.
func newFleet(t testing.TB, o fleetOptions) *world {
	t.Helper()
	if leftOutSluice() {
		t.Skip("SLUICE_E2E_DIRECT leaves Sluice out, and this test is about Sluice alone")
	}
	upstream, err := startRegistry(filepath.Join(scratch(t), "upstream"))
	if err != nil {
		shared(t, func() (any, error) { return nil, err })
	}
	t.Cleanup(upstream.proc.stop)
	return fleetBefore(t, upstream, o)
}

func fleetBefore(t testing.TB, upstream *registry, o fleetOptions, settings ...string) *world {
	t.Helper()
	s := startFleet(t, instructionsFor("127.0.0.1", upstream, "credentials: anonymous", settings...), o)
	return &world{upstream: upstream, sluice: s, via: s.host, direct: upstream.host}
}

// attestedSource is an image with provenance in a registry of nobody, and the same without.
func attestedSource(t testing.TB, seed uint64) (attested, clean string) {
	t.Helper()
	src, k := shared(t, bench.source), needBuilder(t, "new")
	dir := newApplication(t, seed)
	attested, clean = fmt.Sprintf("%s/replicas:%d", src.host, seed), fmt.Sprintf("%s/replicas-clean:%d", src.host, seed)
	k.mustBuild(t, dir, bothPlatforms, append(push(attested), "--provenance=mode=max")...)
	k.mustBuild(t, dir, bothPlatforms, withoutAttestations(clean)...)
	return attested, clean
}

// attestedPushes are by client, each of an image of two platforms with two statements, and of the same without attestations.
func attestedPushes(t testing.TB) map[string]struct{ push, clean func(ref string) error } {
	t.Helper()
	attested, clean := attestedSource(t, 82)
	crane, skopeo := tool(t, "crane"), tool(t, "skopeo")
	type client = struct{ push, clean func(ref string) error }
	copies := func(argv ...string) func(scheme, from string) func(to string) error {
		return func(scheme, from string) func(to string) error {
			return func(to string) error {
				_, err := tryRun(append(slices.Clone(argv), scheme+from, scheme+to)...)
				return err
			}
		}
	}
	c, s := copies(crane, "copy", "--insecure"), copies(skopeo, "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
	all := map[string]client{
		"crane":  {c("", attested), c("", clean)},
		"skopeo": {s("docker://", attested), s("docker://", clean)},
	}
	for _, form := range forms {
		k := needBuilder(t, form.builder)
		build := func(args ...string) error {
			dir, err := os.MkdirTemp(bench.dir, "t") // one for each, since buildx writes there
			if err == nil {
				err = application(dir, 83)
			}
			if err == nil {
				_, err = k.build(dir, bothPlatforms, args...)
			}
			return err
		}
		all["buildkit-"+form.name] = client{
			func(ref string) error { return build(append(push(ref), "--provenance=mode=max")...) },
			func(ref string) error { return build(withoutAttestations(ref)...) },
		}
	}
	return all
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
	clients := attestedPushes(t)
	turns := []string{"crane", "skopeo", "crane", "buildkit-legacy", "crane", "skopeo", "crane", "buildkit-artifact"}
	f := newFleet(t, fleetOptions{watched: true})
	for name, c := range clients {
		if err := c.clean(f.direct + "/" + name + "-reference:1"); err != nil {
			t.Fatal(err)
		}
	}

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
			r := f.sluice.replicas[random.IntN(len(f.sluice.replicas))]
			r.proc.kill()
			kills++
			if err := r.start(); err != nil {
				t.Errorf("a killed replica does not start again: %v", err)
				return
			}
		}
	}()
	next, failures := make(chan int), make([]int, pushes)
	name := func(i int) (client, repository string) {
		client = turns[i%len(turns)]
		return client, fmt.Sprintf("%s-%d", client, i)
	}
	for range 4 {
		wg.Go(func() {
			for i := range next {
				client, repository := name(i)
				for try := 1; ; try++ {
					err := clients[client].push(f.via + "/" + repository + ":1")
					if err == nil {
						break
					}
					failures[i]++
					if try == 10 {
						t.Errorf("push %d of %s fails again and again: %v", i, client, err)
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
	failed := map[string]int{}
	for i, n := range failures {
		client, repository := name(i)
		failed[client] += n
		f.same(t, repository, client+"-reference")
		if found := f.sluice.list(t, f.via+"/"+repository+":1"); len(found) != 2 {
			t.Errorf("%s: %d statements are listed, want one for each platform", repository, len(found))
		}
	}
	t.Logf("%d pushes, %d kills, pushes that had to be repeated: %v", pushes, kills, failed)
	if kills == 0 {
		t.Error("no replica was killed, so this shows nothing")
	}
}

// A rollout: replicas of the old and of the new configuration serve the same pushes.
func TestReplicasOfTwoConfigurationsAgreeOnWhatGoesUpstream(t *testing.T) {
	const strict = "attestations: strip\nretention: 7d\n"
	f := newFleet(t, fleetOptions{each: []replicaOption{{}, {settings: strict}, {settings: "attestations: store\nretention: 1d\nrules: [{repositories: [\"crane-*\"], attestations: strip}]\n"}}})
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
