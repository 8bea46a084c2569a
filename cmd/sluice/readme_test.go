package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sluice/proxy/config"
)

func TestTheConfigurationOfTheReadmeHasNoMistakes(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(listen:.*?)```").FindAllSubmatch(b, -1)
	if len(blocks) != 1 {
		t.Fatalf("%d configurations in the README, want 1", len(blocks))
	}
	if _, err := config.Parse("README.md", blocks[0][1]); err != nil {
		t.Error(err)
	}
}

// The demo builds in a clone, where .dockerignore keeps out what the Dockerfile there does not need.
func TestTheImageOfTheReadmesDemoIsMadeOfAFileThatBuildKitGets(t *testing.T) {
	b, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	copied := regexp.MustCompile(`printf 'FROM scratch\\nCOPY (\S+) /\\n'`).FindSubmatch(b)
	if copied == nil {
		t.Fatal("the README has no build of one file")
	}
	ignore, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(string(ignore), "\n"); slices.Contains(lines, "*") && !slices.Contains(lines, "!"+string(copied[1])) {
		t.Errorf(".dockerignore keeps %s out of the build", copied[1])
	}
	if _, err := os.Stat("../../" + string(copied[1])); err != nil {
		t.Error(err)
	}
}
