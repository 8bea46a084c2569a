package proxy_test

import (
	"os/exec"
	"strings"
	"testing"
)

// Imports go one way: cmd -> proxy, proxy/*, filters; proxy -> proxy/*, filters; packages below
// proxy/ import neither each other nor proxy, except proxy/internal/*, which several of them share
// and which imports none of them (but proxy/internal/contain, which imports nothing);
// filters -> filters/ocidoc only. What is for tests only (which may import it wherever they are) no package imports.
func TestImportsGoOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "sluice/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if len(lines) < 8 {
		t.Fatalf("only %d packages found: the test looks at nothing", len(lines))
	}
	for _, line := range lines {
		pkg, imports, _ := strings.Cut(line, " ")
		for _, imp := range strings.Fields(imports) {
			if strings.HasPrefix(imp, "sluice/") && !allowed(pkg, imp) {
				t.Errorf("%s imports %s", pkg, imp)
			}
		}
	}
}

func allowed(pkg, imp string) bool {
	core := imp == "sluice/filters" || imp == "sluice/filters/ocidoc"
	shared := strings.HasPrefix(imp, "sluice/proxy/internal/")
	forTests := imp == "sluice/proxy/proxytest" || strings.HasSuffix(imp, "/objectstest") || strings.HasSuffix(imp, "/ecrsimtest")
	switch {
	case strings.HasPrefix(pkg, "sluice/cmd/"), strings.HasPrefix(pkg, "sluice/e2e"), strings.HasPrefix(pkg, "sluice/conformance"):
		return true
	case pkg == "sluice/proxy":
		return core || strings.HasPrefix(imp, "sluice/proxy/") && !forTests
	case pkg == "sluice/proxy/ecrsim/ecrsimtest":
		return imp == "sluice/proxy/ecrsim"
	case strings.HasSuffix(pkg, "/objectstest"):
		return imp == "sluice/proxy/folder"
	case strings.HasPrefix(pkg, "sluice/proxy/internal/"):
		return core || imp == "sluice/proxy/internal/contain"
	case strings.HasPrefix(pkg, "sluice/proxy/"):
		return core || shared && !forTests
	case pkg == "sluice/filters":
		return imp == "sluice/filters/ocidoc"
	}
	return false
}
