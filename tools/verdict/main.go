// Command verdict reads `go test -json` and says what a person and CI want to know: go test's own line for each
// package, everything that a failed test printed, every skipped test with its reason, and a last
// line that counts. Before that line stands once more what failed and the first that each failed test said of it: a log
// that is kept is often cut to its end, and what a test prints is often long.
//
//	go test -json ./... | go run ./tools/verdict [-strict] [-slow 10s]
//
// It exits with 1 when a test or a package failed, when nothing was tested, and, with -strict, when a test was
// skipped: on a machine that has everything a skip is a test that silently stopped testing.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	strict := flag.Bool("strict", os.Getenv("CI") == "true", "a skipped test is a failure")
	slow := flag.Duration("slow", 20*time.Second, "show the passed tests that took longer")
	flag.Parse()
	v := verdict{strict: *strict, slow: *slow, out: os.Stdout, output: map[test][]string{}}
	if err := v.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "verdict:", err)
		os.Exit(1)
	}
	if !v.conclude() {
		os.Exit(1)
	}
}

// An event is a line of `go test -json`, as `go doc test2json` describes it.
type event struct {
	Action     string
	Package    string
	ImportPath string // instead of Package, for what the compiler says
	Test       string
	Elapsed    float64
	Output     string
}

type test struct{ pkg, name string }

type verdict struct {
	strict bool
	slow   time.Duration
	out    io.Writer

	output                  map[test][]string
	passed, failed, skipped int
	packages                int      // that failed without a test that did: they do not compile, or crashed
	skips                   []string // with their reasons
	failures                []failure
}

type failure struct {
	what string
	said []string
}

func (v *verdict) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if strings.TrimSpace(line) != "" {
			v.line(line)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (v *verdict) line(line string) {
	var e event
	if json.Unmarshal([]byte(line), &e) != nil || e.Action == "" {
		fmt.Fprint(v.out, line) // not of the stream: the go command itself
		return
	}
	if e.Action == "build-output" {
		fmt.Fprint(v.out, e.Output)
		return
	}
	t := test{e.Package, e.Test}
	switch {
	case e.Action == "output" && e.Test == "" && summary(e.Output):
		fmt.Fprint(v.out, e.Output)
	case e.Action == "output":
		v.output[t] = append(v.output[t], e.Output)
	case e.Test == "":
		v.finishPackage(e, t)
	default:
		v.finishTest(e, t)
	}
}

func (v *verdict) finishTest(e event, t test) {
	switch e.Action {
	case "pass":
		v.passed++
		if d := time.Duration(e.Elapsed * float64(time.Second)); d >= v.slow && !strings.Contains(e.Test, "/") {
			fmt.Fprintf(v.out, "    %s took %s\n", e.Test, d.Round(time.Second))
		}
	case "fail":
		v.failed++
		v.failures = append(v.failures, failure{t.pkg + " " + t.name, v.said(t)})
		v.dump(t)
	case "skip":
		v.skipped++
		v.skips = append(v.skips, t.pkg+" "+t.name+": "+v.reason(t))
	default:
		return
	}
	delete(v.output, t)
}

func (v *verdict) finishPackage(e event, t test) {
	if e.Action == "fail" {
		if !slices.ContainsFunc(v.failures, func(f failure) bool { return strings.HasPrefix(f.what, t.pkg+" ") }) {
			v.packages++
			v.failures = append(v.failures, failure{what: t.pkg + " as a whole"})
		}
		// A test that never ended, because another crashed the binary or the time was up, has its say here.
		for other := range v.output {
			if other.pkg == t.pkg {
				v.dump(other)
			}
		}
	}
	if e.Action == "fail" || e.Action == "pass" || e.Action == "skip" {
		for other := range v.output {
			if other.pkg == t.pkg {
				delete(v.output, other)
			}
		}
	}
}

func (v *verdict) dump(t test) {
	for _, line := range v.output[t] {
		if !strings.HasPrefix(line, "=== ") {
			fmt.Fprint(v.out, line)
		}
	}
}

var ofTheTest = regexp.MustCompile(`^\s+(\w+_test\.go:\d+: .+)`)

// said is the first few lines that the test itself printed, by Error or by Log, cut to a readable length.
func (v *verdict) said(t test) (lines []string) {
	const most, longest = 5, 300
	for _, line := range v.output[t] {
		if m := ofTheTest.FindStringSubmatch(line); m != nil && len(lines) < most {
			lines = append(lines, m[1][:min(len(m[1]), longest)])
		}
	}
	return lines
}

// reason is what the test gave to Skip, without the lines that go test adds.
func (v *verdict) reason(t test) string {
	var said []string
	for _, line := range v.output[t] {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			said = append(said, line)
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

// summary tells go test's line for a package from what the package printed.
func summary(line string) bool {
	for _, prefix := range []string{"ok  \t", "FAIL\t", "?   \t", "---\t"} {
		if strings.HasPrefix(line, prefix) {
			return true
		}
	}
	return false
}

func (v *verdict) conclude() bool {
	for _, s := range v.skips {
		fmt.Fprintln(v.out, "skipped:", s)
	}
	for _, f := range v.failures {
		fmt.Fprintln(v.out, "failed: ", f.what)
		for _, line := range f.said {
			fmt.Fprintln(v.out, "        ", line)
		}
	}
	fmt.Fprintf(v.out, "%d passed, %d failed, %d skipped\n", v.passed, v.failed+v.packages, v.skipped)
	switch {
	case v.failed+v.packages > 0:
		return false
	case v.passed == 0:
		fmt.Fprintln(v.out, "no test ran")
		return false
	case v.strict && v.skipped > 0:
		fmt.Fprintln(v.out, "here a skipped test counts as failed (CI=true or -strict)")
		return false
	}
	return true
}
