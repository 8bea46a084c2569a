package main

import (
	"os"
	"regexp"
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
