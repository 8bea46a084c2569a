package proxy_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// A threat is covered as long as its test is there.
func TestEveryTestThatTheThreatModelNamesExists(t *testing.T) {
	b, err := os.ReadFile("../SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", "..", "grep", "-h", "--untracked", "-E", `^func (Test|Fuzz)`, "--", "*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z][A-Za-z0-9]+`).FindAllString(string(b), -1)
	if len(names) < 20 {
		t.Fatalf("SECURITY.md names only %d tests", len(names))
	}
	for _, n := range names {
		if !strings.Contains(string(out), "func "+n+"(") {
			t.Errorf("SECURITY.md names %s, which is nowhere", n)
		}
	}
}

// Every fuzz target is in `make fuzz`.
func TestMakeFuzzRunsEveryTarget(t *testing.T) {
	b, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("git", "-C", "..", "grep", "--untracked", "-E", `^func Fuzz`, "--", "*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^(.*)/[^/]*_test\.go:func (Fuzz\w+)`).FindAllStringSubmatch(string(out), -1) {
		dir := strings.TrimPrefix(m[1], "../")
		if !strings.Contains(string(b), dir+":"+m[2]) {
			t.Errorf("the Makefile's FUZZ lacks %s:%s", dir, m[2])
		}
	}
}
