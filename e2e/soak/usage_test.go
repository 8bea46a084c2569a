//go:build soak

package soak

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// A usage is what a process can lose a little of at each fault. Memory is RSS but for the program's own pages, of which more
// come in with each line of code that runs for the first time: the system has them back when it likes.
type usage struct{ goroutines, files, memory int }

func (u usage) within(v usage) bool {
	return u.goroutines <= v.goroutines && u.files <= v.files && u.memory <= v.memory
}

func (u usage) least(v usage) usage {
	return usage{min(u.goroutines, v.goroutines), min(u.files, v.files), min(u.memory, v.memory)}
}

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d open files, %.1f MiB of memory", u.goroutines, u.files, float64(u.memory)/(1<<20))
}

var (
	// Of the profile and not of the metrics, which count what the runtime starts for cleanups, too.
	goroutines = regexp.MustCompile(`(?m)^goroutine profile: total (\d+)$`)
	resident   = regexp.MustCompile(`(?m)^RssAnon:\s+(\d+) kB$`)
)

// asking leaves no connection behind, which would be counted, and little to collect.
var asking = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}

func (s *sluice) measure(t *testing.T) usage {
	t.Helper()
	process := "/proc/" + strconv.Itoa(s.cmd.Process.Pid)
	status, err := os.ReadFile(process + "/status")
	if err != nil {
		t.Error(err)
	}
	files, err := os.ReadDir(process + "/fd")
	if err != nil {
		t.Error(err)
	}
	number := func(pattern *regexp.Regexp, text []byte) int {
		m := pattern.FindSubmatch(text)
		if m == nil {
			t.Errorf("no %s in %.2000s", pattern, text)
			return 0
		}
		n, _ := strconv.Atoi(string(m[1]))
		return n
	}
	return usage{goroutines: number(goroutines, s.ask(t, "/debug/pprof/goroutine?debug=1")), files: len(files), memory: number(resident, status) << 10}
}

func (s *sluice) ask(t *testing.T, path string) []byte {
	t.Helper()
	resp, err := asking.Get("http://" + s.admin + path)
	if err != nil {
		t.Errorf("%v\n%s", err, s.tail())
		return nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return b
}

// rest is the least of each that a quiet process uses, within patience: what is lost stays for ever, and the rest comes and
// goes, also with the asking. With a limit it is over as soon as that is met.
func (s *sluice) rest(t *testing.T, limit *usage, patience time.Duration) usage {
	t.Helper()
	// The last of several changes of the configuration, which take with them what the one before had open.
	s.reload(t, 1)
	time.Sleep(100 * time.Millisecond)
	s.reload(t, 0)
	least := s.measure(t)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		least = least.least(s.measure(t))
		if limit != nil && least.within(*limit) {
			return least
		}
	}
	if limit != nil {
		t.Errorf("%s after %s has at least %s, allowed are %s", s.name, patience, least, *limit)
		t.Logf("goroutines:\n%s", s.ask(t, "/debug/pprof/goroutine?debug=1"))
		t.Logf("memory:\n%s", s.ask(t, "/debug/pprof/heap?debug=1&gc=1"))
	}
	return least
}
