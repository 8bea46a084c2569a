package proxytest

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// wire holds the exact bytes of genuine pushes: one folder a scenario, a file named by its sha256, files.tsv with media
// types, README.md with the root documents. No layers.
//
//go:embed testdata/wire
var wire embed.FS

// Scenarios are the names of all wire folders.
func Scenarios() []string {
	entries, err := wire.ReadDir("testdata/wire")
	if err != nil {
		return nil // embedded: cannot fail
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// Documents is the tree of a scenario with one root, f-matrix and l-cosign2 have several: use AllDocuments.
func Documents(t testing.TB, scenario string) *Tree {
	t.Helper()
	trees := AllDocuments(t, scenario)
	if len(trees) != 1 {
		t.Fatalf("%s has %d root documents, use AllDocuments", scenario, len(trees))
	}
	return trees[0]
}

// AllDocuments are the trees of a scenario in the order its README.md names the roots; Tree.Tag is the reference.
func AllDocuments(t testing.TB, scenario string) []*Tree {
	t.Helper()
	trees, err := loadScenario(scenario)
	if err != nil {
		t.Fatal(err)
	}
	return trees
}

// A root is a line of README.md: - `1.0` = `561d9d4a…`
var rootLine = regexp.MustCompile("(?m)^- `([^`]+)` = `([0-9a-f]{64})`")

func loadScenario(scenario string) ([]*Tree, error) {
	folder := path.Join("testdata/wire", scenario)
	readme, err := wire.ReadFile(path.Join(folder, "README.md"))
	if err != nil {
		return nil, fmt.Errorf("load the scenario %s: %w", scenario, err)
	}
	table, err := wire.ReadFile(path.Join(folder, "files.tsv"))
	if err != nil {
		return nil, fmt.Errorf("load the scenario %s: %w", scenario, err)
	}
	types := map[string]string{}
	for line := range strings.Lines(string(table)) {
		if f := strings.Split(strings.TrimSpace(line), "\t"); len(f) == 4 {
			types[f[0]] = f[2]
		}
	}
	read := func(d v1.Descriptor, _ bool) ([]byte, bool, error) {
		b, err := wire.ReadFile(path.Join(folder, d.Digest.Encoded()))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		if digestOf(b) != d.Digest.String() {
			return nil, false, fmt.Errorf("the file %s of %s has other bytes than its name says, check .gitattributes", d.Digest.Encoded(), scenario)
		}
		return b, true, nil
	}
	var trees []*Tree
	for _, root := range rootLine.FindAllStringSubmatch(string(readme), -1) {
		content, err := wire.ReadFile(path.Join(folder, root[2]))
		if err != nil {
			return nil, fmt.Errorf("load the scenario %s: %w", scenario, err)
		}
		tree, err := parseTree(scenario, root[1], content, types[root[2]], read)
		if err != nil {
			return nil, fmt.Errorf("load the scenario %s: %w", scenario, err)
		}
		trees = append(trees, tree)
	}
	if len(trees) == 0 {
		return nil, fmt.Errorf("load the scenario %s: its README.md names no root document", scenario)
	}
	return trees, nil
}
