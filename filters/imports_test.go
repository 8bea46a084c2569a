package filters

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The core decides and does nothing: what could reach a disk, a network or a
// clock is not imported, not even from the standard library.
func TestTheCoreImportsOnlyPureParts(t *testing.T) {
	for dir, own := range map[string][]string{
		".":      {"sluice/filters/ocidoc"},
		"ocidoc": nil,
	} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", dir, err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range f.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				if why := forbidden(path, own); why != "" {
					t.Errorf("%s imports %s: %s", file, path, why)
				}
			}
		}
	}
}

func forbidden(path string, own []string) string {
	for _, o := range own {
		if path == o {
			return ""
		}
	}
	first, _, _ := strings.Cut(path, "/")
	if strings.Contains(first, ".") || first == "sluice" {
		return "only the standard library and filters/ocidoc are allowed"
	}
	switch first {
	case "os", "net", "io", "log", "time", "context", "sync", "syscall", "unsafe":
		return "the core does no I/O, knows no time and keeps no state"
	}
	return ""
}

func TestTheImportRuleFindsWhatItForbids(t *testing.T) {
	for path, want := range map[string]bool{
		"strings": false, "crypto/sha256": false, "sluice/filters/ocidoc": false,
		"os": true, "net/http": true, "time": true, "sluice/proxy": true, "pgregory.net/rapid": true, "log/slog": true,
	} {
		if got := forbidden(path, []string{"sluice/filters/ocidoc"}) != ""; got != want {
			t.Errorf("forbidden(%q) = %v", path, got)
		}
	}
}
