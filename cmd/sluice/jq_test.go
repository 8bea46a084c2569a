package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// Users copy the pipes with jq from the help and from the README, so they are run here, over what
// the commands print for one image and for several. Every filter must have something to print.
func TestTheJQExamplesWork(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	r, err := startRegistry(t, "")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(wire, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	old := strings.NewReplacer("buildDefinition", "x", "resolvedDependencies", "y", `"predicate":{`, `"predicate":{"materials":[{"uri":"pkg:docker/base"}],`)
	slsa1 := read("6ecd3cd6982eb6343dfa4c86035d5b378ef8ac5d8821db57c494885e981e6500")
	inputs := map[string][]string{
		"show": {
			sluice(t, "attestations", "show", r.host+"/app:1"),
			sluice(t, "attestations", "show", r.host+"/app:amd64", "--predicate-type", "https://slsa.dev/provenance/v1"),
			old.Replace(slsa1),
		},
		"list":     {sluice(t, "attestations", "list", r.host+"/app:1", "--output", "json")},
		"metadata": {`{"containerimage.digest": "sha256:1"}`},
		"token":    {`{"count": 1, "value": "e30.e30.AA"}`}, // GitHub's answer to a job that wants an ID token
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := string(readme)
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		examples += "\n" + c.Example
		for _, below := range c.Commands() {
			visit(below)
		}
	}
	visit(newRoot())
	found := map[string]bool{}
	pipes := regexp.MustCompile(`(?:attestations (show|list)[^\n]*\|\s+|\$\(|ID_TOKEN_REQUEST_URL&(audience)[^\n]*\|\s+)jq (?:(-\w+) )?(?:'([^']*)'|(\.\w+))`).FindAllStringSubmatch(examples, -1)
	for _, m := range pipes {
		of, flag, filter := m[1], m[3], m[4]+m[5]
		switch {
		case m[2] != "":
			of = "token"
		case of == "":
			of = "metadata"
		}
		if flag == "" {
			flag = "-c"
		}
		found[of] = true
		for _, input := range inputs[of] {
			cmd := exec.Command("jq", flag, filter)
			cmd.Stdin = strings.NewReader(input)
			if cmd.Err != nil {
				t.Log("no jq on this machine")
				continue
			}
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Trim(string(out), "\n") == "" || strings.Contains(string(out), "null") {
				t.Errorf("jq %s '%s' of %.100s: %v, %s", flag, filter, input, err, out)
			}
		}
	}
	if n := len(regexp.MustCompile(`\bjq\b`).FindAllString(examples, -1)); n != len(pipes) || len(found) != len(inputs) {
		t.Errorf("%d of %d uses of jq were run, for %v", len(pipes), n, found)
	}
}
