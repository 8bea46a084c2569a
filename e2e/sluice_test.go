//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// A sluice is what a test pushes through: one process on a folder of its own, or the replicas of a fleet.
type sluice struct {
	host     string // host:port to push to: the process's, or the balancer's
	bin      string
	replicas []*replica // the one process, or those behind the balancer
	bucket   *bucket    // of a fleet
}

// A replica is a running Sluice process.
type replica struct {
	host   string
	data   string // "" if its state is in a bucket
	config string
	bin    string
	args   []string
	env    []string
	ready  func() error
	proc   *process
}

// What Sluice is told, beyond where it listens and where its state is.
type instructions struct {
	address  string   // of this machine
	settings string   // lines of config.yml
	args     []string // flags
	env      []string
}

func startSluice(t testing.TB, upstream *registry, credentials string, settings ...string) *sluice {
	t.Helper()
	return startSluiceOn(t, "127.0.0.1", upstream, credentials, settings...)
}

// startSluiceOn listens on an address of this machine, with TLS if the settings say so.
func startSluiceOn(t testing.TB, address string, upstream *registry, credentials string, settings ...string) *sluice {
	t.Helper()
	return startSluiceWith(t, instructionsFor(address, upstream, credentials, settings...))
}

func instructionsFor(address string, upstream *registry, credentials string, settings ...string) instructions {
	i := instructions{address: address, settings: fmt.Sprintf("upstreams:\n  - prefix: \"\"\n    url: http://%s\n    %s\n%s\n", upstream.host, credentials, strings.Join(settings, "\n"))}
	if strings.Contains(credentials, "basic") { // never in a file
		i.env = []string{"SLUICE_UPSTREAM_PASSWORD=robot-secret"}
	}
	return i
}

func startSluiceWith(t testing.TB, i instructions) *sluice {
	t.Helper()
	if onFleet() {
		return startFleet(t, i, fleetOptions{})
	}
	dir := scratch(t)
	data := filepath.Join(dir, "data")
	r := newReplica(t, i.address, i, fmt.Sprintf("filesystem: {rootdirectory: %q}", data))
	r.data = data
	s := &sluice{host: r.host, bin: r.bin, replicas: []*replica{r}}
	s.start(t)
	t.Cleanup(func() { s.end(t) })
	return s
}

// newReplica writes the configuration of a process and does not start it.
func newReplica(t testing.TB, address string, i instructions, storage string) *replica {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{
		host: fmt.Sprintf("%s:%d", address, port), config: filepath.Join(scratch(t), "config.yml"),
		bin: shared(t, bench.sluice), args: i.args, env: i.env,
	}
	r.ready = httpReady("http://" + r.host + "/v2/")
	if i.tls() {
		r.ready = listening(r.host) // who may do a handshake is the test's business
	}
	config := fmt.Sprintf("listen: %s\nadmin: \"\"\nstorage: {%s}\n%s\n", r.host, storage, i.settings)
	if err := os.WriteFile(r.config, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

func (i instructions) tls() bool { return strings.Contains(i.settings, "tls:") }

func (r *replica) start() (err error) {
	r.proc, err = bench.start(daemon{
		name: "sluice", argv: append([]string{r.bin, "serve", "--config", r.config}, r.args...), env: r.env, ready: r.ready,
	})
	return err
}

// start starts all of it at the same time.
func (s *sluice) start(t testing.TB) {
	t.Helper()
	var g errgroup.Group
	for _, r := range s.replicas {
		g.Go(r.start)
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// stop ends it in the orderly way.
func (s *sluice) stop() {
	var g errgroup.Group
	for _, r := range s.replicas {
		if r.proc != nil {
			g.Go(func() error { r.proc.stop(); return nil })
		}
	}
	_ = g.Wait()
}

func (s *sluice) end(t testing.TB) {
	t.Helper()
	s.stop()
	if !t.Failed() {
		return
	}
	for _, r := range s.replicas {
		if r.proc != nil {
			t.Logf("the log of Sluice on %s ends with:\n%s", r.host, r.proc.tail())
		}
	}
}

// restart ends every process in the orderly way and starts it again on the same data.
func (s *sluice) restart(t testing.TB) {
	t.Helper()
	s.stop()
	s.start(t)
}

// one is the process of a Sluice that is not a fleet.
func (s *sluice) one(t testing.TB) *replica {
	t.Helper()
	if len(s.replicas) != 1 {
		t.Fatalf("this is about one process, and here are %d", len(s.replicas))
	}
	return s.replicas[0]
}

// held is how many bytes the data folder has.
func (r *replica) held(t testing.TB) int64 {
	t.Helper()
	var total int64
	err := filepath.WalkDir(r.data, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			total += info.Size()
		}
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return total
}
