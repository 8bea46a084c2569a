//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	readyWithin = 90 * time.Second // a cold dockerd on two busy cores takes about ten
	runWithin   = 4 * time.Minute
	stopWithin  = 20 * time.Second
)

// A process is a started daemon. Its log is a file, and nobody leaves before it was waited for.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process was waited for
}

// A daemon says how to start a process and how to know that it is ready.
type daemon struct {
	name  string
	argv  []string
	env   []string
	ready func() error
	// A private mount namespace: what dockerd, containerd and buildkitd mount disappears with them,
	// also when they are killed, and cannot keep the test's folder busy.
	privateMounts bool
	// A private network: what dockerd does to addresses and packet filters leaves the machine's alone.
	privateNetwork bool
}

func (d daemon) start(logDir string) (*process, error) {
	logFile, err := os.CreateTemp(logDir, d.name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	cmd := exec.Command(d.argv[0], d.argv[1:]...)
	cmd.Env = append(environment(), d.env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	// Pdeathsig ends the daemons of a test run that is itself killed, by its timeout for example.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if d.privateMounts {
		cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNS
	}
	if d.privateNetwork {
		cmd.SysProcAttr.Unshareflags |= syscall.CLONE_NEWNET
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", d.name, err)
	}
	p := &process{name: d.name, log: logFile.Name(), cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in cmd.ProcessState
	}()
	if err := p.await(d.ready); err != nil {
		p.kill()
		return nil, err
	}
	return p, nil
}

// await polls ready until it says yes, the process ends, or the time is up.
func (p *process) await(ready func() error) error {
	deadline := time.NewTimer(readyWithin)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it was ready (%s); its log ends with:\n%s", p.name, p.cmd.ProcessState, p.tail())
		case <-deadline.C:
			return fmt.Errorf("%s is not ready after %s (%w); its log ends with:\n%s", p.name, readyWithin, err, p.tail())
		case <-poll.C:
		}
	}
}

// stop asks the process to end, then insists, and waits.
func (p *process) stop() {
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopWithin):
	}
	p.kill()
}

// kill is kill -9 of the process and of everything that it started and left in its group.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return lastLines(b, 30)
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// environment is what every program of a test runs in: nothing of the developer's own configuration,
// credentials or proxies.
func environment() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + bench.dir,
		"DOCKER_CONFIG=" + filepath.Join(bench.dir, "docker-config"),
		"BUILDX_CONFIG=" + filepath.Join(bench.dir, "buildx-config"),
		"XDG_RUNTIME_DIR=" + filepath.Join(bench.dir, "run"),
		"TMPDIR=" + filepath.Join(bench.dir, "tmp"),
		"OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none",
		"COSIGN_PASSWORD=sluice", "COSIGN_YES=true",
		"DO_NOT_TRACK=1", "LANG=C.UTF-8",
	}
}

// tryRun executes a program to its end.
func tryRun(argv ...string) (string, error) {
	return tryRunIn("", nil, argv...)
}

func tryRunIn(dir string, env []string, argv ...string) (string, error) {
	return tryRunWithin(runWithin, dir, env, argv...)
}

func tryRunWithin(limit time.Duration, dir string, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(environment(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("not finished after %s", limit)
		}
		return stdout.String(), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err,
			lastLines(append(stdout.Bytes(), stderr.Bytes()...), 40))
	}
	return stdout.String(), nil
}

// run is tryRun for what has to succeed. It returns standard output.
func run(t testing.TB, argv ...string) string {
	t.Helper()
	return runIn(t, "", nil, argv...)
}

func runIn(t testing.TB, dir string, env []string, argv ...string) string {
	t.Helper()
	out, err := tryRunIn(dir, env, argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// mustFail is run for what has to be refused. It returns the reason as the client shows it.
func mustFail(t testing.TB, argv ...string) string {
	t.Helper()
	_, err := tryRun(argv...)
	if err == nil {
		t.Fatalf("%s succeeded; it must be refused", strings.Join(argv, " "))
	}
	return err.Error()
}

// freePort finds a port of the loopback address that nobody listens on. A program that cannot say which port it got for
// :0 is given this one. It is below those that the kernel gives to connections (from 32768), one of which would otherwise
// have it now and then before the program listens, and no two get the same.
func freePort() (int, error) {
	const first, ports = 20000, 12000
	for range ports {
		port := first + int(portsGiven.Add(1))%ports
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port")
}

var portsGiven = func() *atomic.Uint32 {
	var n atomic.Uint32
	n.Store(uint32(os.Getpid()) * 61) // where another run of the tests does not begin
	return &n
}()

func httpReady(url string) func() error {
	return func() error {
		resp, err := http.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
			return errors.New(resp.Status)
		}
		return nil
	}
}

func listening(host string) func() error {
	return func() error {
		c, err := net.Dial("tcp", host)
		if err == nil {
			err = c.Close()
		}
		return err
	}
}

func commandReady(argv ...string) func() error {
	return func() error {
		_, err := tryRun(argv...)
		return err
	}
}
