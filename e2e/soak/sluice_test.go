//go:build soak

package soak

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startTime  = 2 * time.Minute
	settleTime = 3 * time.Minute // longer than idle connections stay on either side
)

// A sluice is the real process.
type sluice struct {
	cmd        *exec.Cmd
	url, admin string
	data, file string
	log        string
	base       string // the configuration
}

func startSluice(t *testing.T, up *registry) *sluice {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "sluice")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	listen, admin := freeAddress(t), freeAddress(t)
	s := &sluice{
		url: "http://" + listen, admin: "http://" + admin,
		data: filepath.Join(dir, "data"), file: filepath.Join(dir, "sluice.yml"), log: filepath.Join(dir, "log"),
	}
	s.base = fmt.Sprintf("listen: %s\nadmin: %s\npprof: true\nupstreams: [{url: \"http://%s\", credentials: anonymous}]\n"+
		"rules: [{repositories: [\"strip/**\"], attestations: strip}]\nstorage: {filesystem: {rootdirectory: %q}}\n", listen, admin, up.address, s.data)
	s.write(t, s.base)
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.CommandContext(t.Context(), program, "serve", "--config", s.file)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(startTime); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(s.admin + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return s
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready after %s:\n%s", startTime, s.tail())
		}
	}
}

// freeAddress is free until somebody else takes it.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// write puts a configuration in place at once: half a file would be a mistake of ours.
func (s *sluice) write(t *testing.T, yml string) {
	t.Helper()
	err := os.WriteFile(s.file+".new", []byte(yml), 0o600)
	if err == nil {
		err = os.Rename(s.file+".new", s.file)
	}
	if err != nil {
		t.Error(err)
	}
}

// reload sends SIGHUP, with a configuration that is good, good and different, broken, or needs a restart.
func (s *sluice) reload(t *testing.T, i int) {
	t.Helper()
	s.write(t, []string{s.base, s.base + "access_log: true\nretention: 3d\n", s.base + "unknown: 1\nview: sideways\n", strings.Replace(s.base, "admin: ", "admin: localhost:1 # ", 1)}[i%4])
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Error(err)
	}
}

// A usage is what a process can lose a little of at each fault.
type usage struct{ goroutines, files, rss int }

func (u usage) plus(v usage) usage {
	return usage{u.goroutines + v.goroutines, u.files + v.files, u.rss + v.rss}
}

func (u usage) within(v usage) bool {
	return u.goroutines <= v.goroutines && u.files <= v.files && u.rss <= v.rss
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d open files, RSS %.1f MiB", u.goroutines, u.files, float64(u.rss)/(1<<20))
}

var (
	goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)
	resident   = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)
)

func (s *sluice) measure(t *testing.T) usage {
	t.Helper()
	process := "/proc/" + strconv.Itoa(s.cmd.Process.Pid)
	status, err := os.ReadFile(process + "/status")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(process + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	number := func(pattern *regexp.Regexp, text []byte) int {
		m := pattern.FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in %.2000s", pattern, text)
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	return usage{goroutines: number(goroutines, s.get(t, "/metrics")), files: len(files), rss: number(resident, status) << 10}
}

func (s *sluice) get(t *testing.T, path string) []byte {
	t.Helper()
	resp, err := http.Get(s.admin + path)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.tail())
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// settled is the usage once it has not grown less for a while. A last change of the configuration ends the idle
// connections of the one before.
func (s *sluice) settled(t *testing.T) usage {
	t.Helper()
	s.reload(t, 0)
	last, since := s.measure(t), time.Now()
	for deadline := time.Now().Add(settleTime); time.Since(since) < 5*time.Second && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		if u := s.measure(t); u.goroutines < last.goroutines || u.files < last.files {
			last, since = u, time.Now()
		}
	}
	return s.measure(t)
}

// within waits until the usage is no more than limit, and says what is there if that never comes.
func (s *sluice) within(t *testing.T, limit usage) usage {
	t.Helper()
	s.reload(t, 0)
	deadline := time.Now().Add(settleTime)
	u := s.measure(t)
	for ; !u.within(limit) && time.Now().Before(deadline); u = s.measure(t) {
		time.Sleep(500 * time.Millisecond)
	}
	if !u.within(limit) {
		t.Errorf("%s later the process has %s, allowed are %s", settleTime, u, limit)
		if u.goroutines > limit.goroutines {
			t.Logf("goroutines:\n%s", s.get(t, "/debug/pprof/goroutine?debug=1"))
		}
	}
	return u
}

// stop ends the process as an operator does.
func (s *sluice) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("sluice ends with %v:\n%s", err, s.tail())
	}
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Error(err)
	}
	for what, wanted := range map[string]bool{
		"bug: handler panicked": false, "panic:": false, "DATA RACE": false, "requests that were cut have not ended": false,
		"configuration changed": true, "need a restart": true, "view: \\\"sideways\\\"": true,
	} {
		if n := bytes.Count(log, []byte(what)); (n > 0) != wanted {
			t.Errorf("the log says %q %d times", what, n)
		}
	}
}

func (s *sluice) tail() string {
	b, _ := os.ReadFile(s.log)
	return string(b[max(0, len(b)-4000):])
}
