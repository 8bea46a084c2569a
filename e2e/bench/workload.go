//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A workload is what every proxy is measured with.
type workload struct {
	name, says string
	job        job
	far        bool // the registry is 10 ms away
	tlsOnly    bool
	rounds     int
}

func workloads(quick bool) []workload {
	size := func(full, small int64) int64 {
		if quick {
			return small
		}
		return full
	}
	pushes := int(size(200, 64))
	all := []workload{
		{"layer", "one layer of " + bytesOf(size(gib, 256*mib)), job{Pushes: 1, AtOnce: 1, Layers: 1, LayerSize: size(gib, 256*mib)}, false, false, 5},
		{"parallel", "8 pushes at once of 4 layers of " + bytesOf(size(128*mib, 16*mib)), job{Pushes: 8, AtOnce: 8, Layers: 4, LayerSize: size(128*mib, 16*mib)}, false, false, 1},
		{"eight", "8 layers of 1 GiB at once", job{Pushes: 8, AtOnce: 8, Layers: 1, LayerSize: size(gib, 64*mib)}, false, true, 1},
		{"small", fmt.Sprintf("%d pushes of 2 platforms, 3 layers of 4 KiB and 2 attestations, 16 at once", pushes), job{Pushes: pushes, AtOnce: 16, Attested: true}, false, false, 5},
		{"images", fmt.Sprintf("%d pushes of the same without attestations: every request is proxied", pushes), job{Pushes: pushes, AtOnce: 16}, false, false, 5},
		{"far", fmt.Sprintf("%d pushes as in small, registry 10 ms away", pushes), job{Pushes: pushes, AtOnce: 16, Attested: true}, true, false, 3},
		{"far-few", fmt.Sprintf("%d pushes as in far, 4 at once: so few processors are no bound", pushes/4), job{Pushes: pushes / 4, AtOnce: 4, Attested: true}, true, false, 3},
		{"slow", "64 uploads at once, each " + bytesOf(size(32*mib, 8*mib)) + " at 4 MiB/s", job{Pushes: 64, AtOnce: 64, Layers: 1, LayerSize: size(32*mib, 8*mib), Rate: 4 * mib}, false, false, 1},
	}
	if quick {
		for i := range all {
			all[i].rounds = 1
		}
	}
	return all
}

// idle is how long nothing was asked of a program that is called so: after 5 to 10 s Sluice gives memory back.
const idle = 12 * time.Second

func bytesOf(n int64) string {
	if n >= gib {
		return fmt.Sprintf("%d GiB", n/gib)
	}
	return fmt.Sprintf("%d MiB", n/mib)
}

func (w workload) layers() bool { return w.job.Layers > 0 }

// warm is a little of the same, before anything is measured.
func (w workload) warm(url string) job {
	if w.layers() {
		return job{URL: url, Prefix: "warm", Pushes: 4, AtOnce: 2, Layers: 2, LayerSize: 4 * mib}
	}
	return job{URL: url, Prefix: "warm", Pushes: 8, AtOnce: 8, Attested: true}
}

func (w workload) gib() float64 {
	return float64(w.job.LayerSize) * float64(w.job.Layers*w.job.Pushes) / gib
}

// A measured is what one proxy spent on one workload. Of several rounds each number is the smallest.
type measured struct {
	name             string
	cpu              float64 // s
	wall             float64 // s
	requests         float64 // of the client
	upstream         float64 // that the registry got
	objects, bytes   float64 // allocated; 0: not known
	start, idle      float64 // ms, MiB
	rise             float64 // MiB of peak over what was resident before
	client, registry float64 // s of processor time: what measuring costs
}

func (m *measured) keep(o measured) {
	if m.name == "" {
		*m = o
		return
	}
	for _, v := range []struct{ to, from *float64 }{
		{&m.cpu, &o.cpu},
		{&m.wall, &o.wall},
		{&m.upstream, &o.upstream},
		{&m.objects, &o.objects},
		{&m.bytes, &o.bytes},
		{&m.rise, &o.rise},
		{&m.client, &o.client},
		{&m.registry, &o.registry},
	} {
		*v.to = min(*v.to, *v.from)
	}
}

// bench is one run of the program.
type bench struct {
	o    options
	runs int
	got  map[string][]measured // by workload/scheme

	mu      sync.Mutex
	proxies []*running // that are to be ended when the run is interrupted
}

// endAll ends what would outlive this process: nginx' workers are no children of ours.
func (b *bench) endAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.proxies {
		_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL)
	}
}

// workload measures every proxy, round by round, and prints its table.
func (b *bench) workload(w workload, scheme string) error {
	s, err := b.startSink()
	if err != nil {
		return err
	}
	defer s.stop()
	at := 0
	if scheme == "tls" {
		at++
	}
	if w.far {
		at += 2
	}
	upstream := s.urls[at]
	dir, err := os.MkdirTemp(b.o.dir, "run-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	var all []*running
	defer func() {
		b.mu.Lock()
		b.proxies = nil
		b.mu.Unlock()
		for _, r := range all {
			r.stop()
		}
		os.RemoveAll(dir)
	}()
	for _, p := range peers() {
		if why := p.missing(); why != "" || !b.wanted(p.name) {
			continue
		}
		r, err := p.run(b.o, dir, upstream)
		if err != nil {
			return err
		}
		all = append(all, r)
		b.mu.Lock()
		b.proxies = append(b.proxies, r)
		b.mu.Unlock()
	}
	rounds := w.rounds
	if b.o.rounds > 0 {
		rounds = b.o.rounds
	}
	sums := make([]measured, len(all)+1)
	time.Sleep(1500 * time.Millisecond) // a second after its start Sluice lets go of what only that needed
	for _, r := range all {             // connections, pools and the heap as they are in use
		if _, _, err := b.client(w.warm(r.url), nil); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	if w.job.Rate > 0 { // what is said of idle programs is measured here
		time.Sleep(idle)
	}
	for _, r := range all {
		if r.idle, err = status(r.cmd.Process.Pid, "VmRSS"); err != nil {
			return err
		}
	}
	for range rounds {
		m, err := b.measure(w, "direct", upstream, nil, s)
		if err != nil {
			return fmt.Errorf("direct: %w", err)
		}
		sums[0].keep(m)
		for i, r := range all {
			if w.layers() && w.job.AtOnce == 1 {
				// While the others had their rounds nothing was asked of this one, and Sluice gave its buffers back: what is
				// allocated for a layer is to be told from what is for the first one after a pause.
				if _, _, err := b.client(w.warm(r.url), nil); err != nil {
					return fmt.Errorf("%s: %w", r.name, err)
				}
			}
			m, err := b.measure(w, r.name, r.url, r, s)
			if err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
			sums[i+1].keep(m)
		}
	}
	if b.got == nil {
		b.got = map[string][]measured{}
	}
	b.got[w.name+"/"+scheme] = sums
	b.table(w, scheme, sums)
	return nil
}

func (b *bench) wanted(name string) bool {
	return b.o.peers == "" || name == "reverseproxy" || slices.Contains(strings.Split(b.o.peers, ","), name)
}

// measure runs one job through one proxy.
func (b *bench) measure(w workload, name, url string, r *running, s *sinkProcess) (m measured, err error) {
	b.runs++
	j := w.job
	j.URL, j.Prefix = url, fmt.Sprintf("bench/%s/%d", name, b.runs)
	m.name = name
	pid := 0
	if r != nil {
		pid, m.start, m.idle = r.cmd.Process.Pid, float64(r.started)/float64(time.Millisecond), r.idle
	}
	var stopProfile func()
	var before, after struct{ cpu, objects, bytes, resident, requests, registry float64 }
	sample := func(to *struct{ cpu, objects, bytes, resident, requests, registry float64 }, peak string) error {
		var errs [4]error
		to.requests, errs[0] = s.count()
		to.registry, errs[1] = cpu(s.cmd.Process.Pid)
		if pid != 0 {
			if peak == "VmRSS" { // before: first what costs the proxy something
				to.objects, to.bytes, errs[2] = heap(r.pprofAt)
				resetPeak(pid)
			}
			to.cpu, errs[3] = cpu(pid)
			resident, err := status(pid, peak)
			if to.resident = resident; err != nil {
				return err
			}
			if peak != "VmRSS" {
				to.objects, to.bytes, errs[2] = heap(r.pprofAt)
			}
		}
		return errors.Join(errs[:]...)
	}
	res, spent, err := b.client(j, func() error {
		if b.o.profile != "" && strings.HasPrefix(name, "sluice") {
			stopProfile = b.profile(r, w.name+"-"+name)
		}
		return sample(&before, "VmRSS")
	})
	if err != nil {
		return m, err
	}
	if err := sample(&after, "VmHWM"); err != nil {
		return m, err
	}
	if stopProfile != nil {
		stopProfile()
	}
	m.cpu, m.wall, m.requests = after.cpu-before.cpu, res.Seconds, float64(res.Requests)
	m.upstream, m.registry, m.client = after.requests-before.requests, after.registry-before.registry, spent
	m.objects, m.bytes, m.rise = after.objects-before.objects, after.bytes-before.bytes, after.resident-before.resident
	return m, nil
}

// client runs a job in a process of its own; ready is called when it only waits for its start.
func (b *bench) client(j job, ready func() error) (res result, spent float64, err error) {
	arg, err := json.Marshal(j)
	if err != nil {
		return res, 0, err
	}
	cmd := exec.Command(b.o.self, "load", string(arg))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return res, 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return res, 0, err
	}
	if err := cmd.Start(); err != nil {
		return res, 0, err
	}
	lines := bufio.NewReader(out)
	_, err = lines.ReadString('\n')
	if err == nil && ready != nil {
		err = ready()
	}
	if err == nil {
		_, err = io.WriteString(in, "go\n")
	}
	if err == nil {
		err = json.NewDecoder(lines).Decode(&res)
	}
	in.Close()
	if werr := cmd.Wait(); werr != nil {
		err = errors.Join(errors.New("the client failed"), err, werr)
	}
	if err != nil {
		return res, 0, err
	}
	return res, (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), nil
}

// A sinkProcess is the registry.
type sinkProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	urls  []string
}

func (b *bench) startSink() (*sinkProcess, error) {
	s := &sinkProcess{cmd: exec.Command(b.o.self, "sink", b.o.certificate)}
	s.cmd.Stderr = os.Stderr
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.lines = bufio.NewScanner(out)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for range 4 {
		if !s.lines.Scan() {
			return nil, errors.New("the registry does not start")
		}
		s.urls = append(s.urls, s.lines.Text())
	}
	return s, nil
}

func (s *sinkProcess) count() (float64, error) {
	if _, err := io.WriteString(s.in, "\n"); err != nil {
		return 0, err
	}
	if !s.lines.Scan() {
		return 0, errors.New("the registry has ended")
	}
	return strconv.ParseFloat(s.lines.Text(), 64)
}

func (s *sinkProcess) stop() {
	s.in.Close()
	_ = s.cmd.Wait()
}

// profile writes the CPU profile of the next seconds.
func (b *bench) profile(r *running, name string) (stop func()) {
	out := filepath.Join(b.o.profile, name+".pprof")
	cmd := exec.Command("curl", "-s", "-o", out, r.pprofAt+"/debug/pprof/profile?seconds=5")
	if err := cmd.Start(); err != nil {
		return func() {}
	}
	return func() { _ = cmd.Wait() }
}
