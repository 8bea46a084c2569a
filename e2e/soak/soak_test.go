//go:build soak

package soak

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/factory"

	"sluice/proxy"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
	"sluice/proxy/quarantine"
)

const (
	clients      = 8
	reloadEvery  = 2 * time.Second
	restartEvery = 7 * time.Second
	sweepTime    = 2 * time.Minute
)

// What the process may have more at the end than after the warm-up, when nobody asks anything of it. A goroutine and a
// file that are lost at each fault would be thousands; a few come and go with timers, helpers of the runtime and idle
// connections. RSS moves with the moment of the last garbage collection and with what the largest coincidence of
// requests needed, which a longer run meets more of.
var tolerance = usage{goroutines: 10, files: 10, rss: 32 << 20}

func TestSoak(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("SOAK"))
	if err != nil {
		t.Fatalf("SOAK, how long to run, must be a duration such as 60s or 10m: %v", err)
	}
	up := startRegistry(t)
	s := startSluice(t, up)

	warm := max(duration/6, 10*time.Second)
	load(t, s, up, warm).log(t, "warm-up", warm)
	start := s.settled(t)
	t.Logf("after the warm-up: %s", start)

	done := load(t, s, up, duration)
	done.log(t, "soak", duration)
	end := s.within(t, start.plus(tolerance))
	t.Logf("at the end: %s", end)
	s.stop(t)

	if done.pushed.Load() == 0 || done.hungUp.Load() == 0 || done.reloads.Load() == 0 || up.restarts.Load() == 0 {
		t.Error("a part of the mix never happened, so this shows nothing")
	}
	proxytest.AssertClean(t, up.Upstream)
	proxytest.AssertComplete(t, up.Upstream)
	sweptEmpty(t, s.data, up)
}

// load runs the mix for d and waits until everybody has ended.
func load(t *testing.T, s *sluice, up *registry, d time.Duration) *tally {
	ctx, stop := context.WithTimeout(t.Context(), d)
	defer stop()
	n := &tally{}
	var everybody sync.WaitGroup
	for k := range clients {
		everybody.Go(func() { newClient(t, k, s, up, n).run(ctx) })
	}
	everybody.Go(func() { every(ctx, reloadEvery, func(i int) { n.reloads.Add(1); s.reload(t, i) }) })
	everybody.Go(func() { every(ctx, restartEvery, func(int) { up.restart(t) }) })
	everybody.Wait()
	return n
}

func every(ctx context.Context, d time.Duration, do func(i int)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do(i)
		}
	}
}

// sweptEmpty starts Sluice over the same data ten days later, by its own clock, and waits until its sweeper has left
// nothing in quarantine.
func sweptEmpty(t *testing.T, data string, up *registry) {
	t.Helper()
	driver, err := factory.Create(t.Context(), "filesystem", map[string]any{"rootdirectory": data})
	if err != nil {
		t.Fatal(err)
	}
	later := func() time.Time { return time.Now().Add(10 * 24 * time.Hour) }
	q, err := quarantine.New(driver, quarantine.Options{Retention: 2, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	before, bytes, err := q.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("quarantine holds %d objects with %d bytes", before, bytes)
	if before == 0 {
		t.Error("quarantine is empty before it is swept, so this shows nothing")
	}
	c := config.Default()
	c.Listen, c.Admin = "127.0.0.1:0", ""
	c.Upstreams = []config.Upstream{{URL: "http://" + up.address, Credentials: config.CredentialsAnonymous, Redirects: config.RedirectsPass}}
	p, err := proxy.New(proxy.Options{Config: c, Storage: driver, Now: later})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	began := time.Now()
	for deadline := began.Add(sweepTime + time.Duration(before)*5*time.Millisecond); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		// Looking at everything would take longer than sweeping it.
		if generations, err := q.Generations(t.Context()); err == nil && len(generations) == 0 {
			t.Logf("swept in %s", time.Since(began).Round(100*time.Millisecond))
			break
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if left, _, err := q.Usage(context.WithoutCancel(t.Context())); left > 0 || err != nil {
		t.Errorf("of %d objects in quarantine %d are left after its time: %v", before, left, err)
	}
}

// pause is a while of at most d, or shorter if ctx ends.
func pause(ctx context.Context, random *rand.Rand, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(random.Int64N(int64(d)))):
	}
}
