//go:build soak

package soak

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"sluice/proxy/proxytest"
)

const (
	clients = 10
	// For so long the start is looked for: the least then. Nobody leaves idle connections, so nothing has to time out.
	restTime = 30 * time.Second
	// A process has so long to come back to it.
	returnTime = 3 * time.Minute
	// Memory moves with how the heap is cut up. What is lost at each fault would be more in the end.
	memorySlack = 4 << 20
)

// A world is what the soak is about.
type world struct {
	seed    uint64
	up      *registry
	folder  *folder
	bucket  *gateway
	second  second
	sluices []*sluice
	clock   *clock
	pushed  *pushed
	loads   int
}

// second is what stands by itself: a registry that may get attestations after all (on_storage_error: forward), and the folder
// of the process in front of it.
type second struct {
	up     *registry
	folder *folder
}

func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Fatalf("SOAK, how long to run, must be a duration such as 60s or 10m: %v", err)
	}
	w := &world{seed: seed(t), clock: newClock(t), folder: newFolder(t), pushed: &pushed{all: map[push]bool{}}}
	w.up, w.bucket = startRegistry(t, newDice(w.seed, 1001)), startGateway(t, newDice(w.seed, 1002))
	w.second = second{startRegistry(t, newDice(w.seed, 1003)), newFolder(t)}
	program := buildSluice(t)
	w.sluices = []*sluice{
		startSluice(t, "sluice with a folder", program, w.folder.storage(), "reject", w.up, w.clock),
		startSluice(t, "sluice with a bucket", program, fmt.Sprintf("{s3: {bucket: state, regionendpoint: \"http://%s\", forcepathstyle: true}}", w.bucket.address), "reject", w.up, w.clock),
		startSluice(t, "sluice that forwards", program, w.second.folder.storage(), forward, w.second.up, w.clock),
	}

	warm := max(duration/4, 20*time.Second)
	w.load(t, warm).log(t, "warm-up", warm)
	start := w.rest(t, nil, restTime)
	done := w.load(t, duration)
	done.log(t, "soak", duration)
	if never := done.never(); len(never) > 0 && duration >= 3*time.Minute {
		t.Errorf("a part of the mix never happened, so this shows nothing of it: %q", never)
	}
	w.rest(t, start, returnTime)

	w.pushed.pullable(t)
	for _, s := range w.sluices {
		s.stop(t)
	}
	proxytest.AssertClean(t, w.up.Upstream)
	proxytest.AssertComplete(t, w.up.Upstream)
	proxytest.AssertComplete(t, w.second.up.Upstream)
	for name, f := range map[string]*folder{"folder": w.folder, "second folder": w.second.folder} {
		sweptEmpty(t, name, open(t, "filesystem", map[string]any{"rootdirectory": f.root()}), w.up)
	}
	sweptEmpty(t, "bucket", open(t, "s3", map[string]any{
		"bucket": "state", "region": "us-east-1", "regionendpoint": w.bucket.direct, "forcepathstyle": true, "accesskey": bucketKey, "secretkey": bucketSecret,
	}), w.up)
}

// load runs the mix for d and waits until everybody has ended.
func (w *world) load(t *testing.T, d time.Duration) *tally {
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	w.loads++
	n := &tally{}
	n.expect("pushes", "pushes again", "pushes forwarded with their attestations", "SIGHUPs", "certificates replaced", "the clock jumped")
	var pushers, faults sync.WaitGroup
	for k := range clients {
		pushers.Go(func() { newClient(t, k, w.sluices[k%len(w.sluices)], w, n).run(ctx) })
	}
	pushers.Go(func() { newClient(t, clients, w.sluices[0], w, n).crowds(ctx, w) })
	whose := uint64(2000 + 100*w.loads)
	dice := func() *dice {
		whose++
		return newDice(w.seed, whose)
	}
	for _, s := range w.sluices {
		reloads, rotations := dice(), dice()
		faults.Go(func() { s.reloads(ctx, t, reloads, n) })
		faults.Go(func() { s.rotate(ctx, t, rotations, n) })
	}
	n.expect("restarts of the registry", "restarts of the bucket")
	for _, up := range []*registry{w.up, w.second.up} {
		restarts := dice()
		faults.Go(func() { up.restarts(ctx, t, restarts, func() { n.did("restarts of the registry") }) })
		faults.Go(func() { up.faulty.misbehave(ctx, n) })
	}
	for _, f := range []*folder{w.folder, w.second.folder} {
		disk := dice()
		faults.Go(func() { f.misbehave(ctx, t, disk, n) })
	}
	bucket, jumps := dice(), dice()
	faults.Go(func() { w.bucket.restarts(ctx, t, bucket, func() { n.did("restarts of the bucket") }) })
	faults.Go(func() { w.clock.jump(ctx, jumps, n) })
	faults.Go(func() { w.bucket.faulty.misbehave(ctx, n) })
	pushers.Wait()
	faults.Wait()
	for _, s := range w.sluices {
		s.shown(t, s.address)
	}
	return n
}

// rest is what the processes use when nobody asks anything of them; nothing more than start and a bit of memory, if there
// was one.
func (w *world) rest(t *testing.T, start []usage, patience time.Duration) []usage {
	t.Helper()
	used := make([]usage, len(w.sluices))
	var all sync.WaitGroup
	for i, s := range w.sluices {
		all.Go(func() {
			var limit *usage
			if start != nil {
				limit = &usage{start[i].goroutines, start[i].files, start[i].memory + memorySlack}
			}
			used[i] = s.rest(t, limit, patience)
		})
	}
	all.Wait()
	for i, s := range w.sluices {
		t.Logf("%s uses at rest: %s", s.name, used[i])
	}
	return used
}
