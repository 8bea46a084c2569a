//go:build soak

package soak

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A clock is what the processes' wall clocks are ahead of the machine's: a page of memory that they share with the test.
// Monotonic time is left alone, as it is when somebody sets the clock of a machine.
type clock struct {
	file  string
	ahead *atomic.Int64 // seconds
}

// The programs read that page in Go's own time.Now, so that all in them follows: Sluice, TLS, signatures of requests.
const (
	clockVariable = "SLUICE_SOAK_CLOCK"
	nowInGo       = "\tsec, nsec, mono := runtimeNow()\n"
	nowHere       = nowInGo + "\tsec += SoakAhead.Load()\n"
	aheadInTime   = `package time

import "sync/atomic"

var SoakAhead = new(atomic.Int64)
`
	aheadInSluice = `package main

import (
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

func init() {
	f, err := os.Open(os.Getenv("` + clockVariable + `"))
	if err != nil {
		panic(err)
	}
	defer f.Close()
	page, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	time.SoakAhead = (*atomic.Int64)(unsafe.Pointer(&page[0]))
}
`
)

func newClock(t *testing.T) *clock {
	t.Helper()
	c := &clock{file: filepath.Join(t.TempDir(), "clock")}
	if err := os.WriteFile(c.file, make([]byte, 8), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(c.file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page, err := syscall.Mmap(int(f.Fd()), 0, 8, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Munmap(page) })
	c.ahead = (*atomic.Int64)(unsafe.Pointer(&page[0]))
	return c
}

// buildSluice makes the program, the same but for time.Now. Go compiles everything anew for it, once: it is cached.
func buildSluice(t *testing.T) (program string) {
	t.Helper()
	dir := t.TempDir()
	program = filepath.Join(dir, "sluice")
	root, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Dir}}", "time", "sluice/cmd/sluice").Output()
	if err != nil {
		t.Fatal(err)
	}
	folders := strings.Fields(string(root))
	timeGo, err := os.ReadFile(filepath.Join(folders[0], "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(timeGo), nowInGo) != 1 {
		t.Fatal("this Go has another time.Now: clock_test.go must learn it")
	}
	overlay := map[string]string{}
	for path, content := range map[string]string{
		filepath.Join(folders[0], "time.go"):      strings.Replace(string(timeGo), nowInGo, nowHere, 1),
		filepath.Join(folders[0], "soakahead.go"): aheadInTime,
		filepath.Join(folders[1], "soakahead.go"): aheadInSluice,
	} {
		file, err := os.CreateTemp(dir, "*.go")
		if err == nil {
			_, err = file.WriteString(content)
			file.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		overlay[path] = file.Name()
	}
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "overlay.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// jump sets the clocks wrong for moments.
func (c *clock) jump(ctx context.Context, d *dice, n *tally) {
	defer c.ahead.Store(0)
	jumps := []time.Duration{time.Hour, -time.Hour, 26 * time.Hour, -26 * time.Hour, 11 * time.Minute}
	for ctx.Err() == nil {
		d.pause(ctx, 6*time.Second)
		c.ahead.Store(int64(jumps[d.n(len(jumps))] / time.Second))
		d.pause(ctx, 2*time.Second)
		c.ahead.Store(0)
		n.did("the clock jumped")
	}
}
