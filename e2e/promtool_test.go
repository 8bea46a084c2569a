//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
)

// What Prometheus itself says of the rules, of their tests, and of the names and types of the metrics.
func TestPromtoolAcceptsRulesAndMetrics(t *testing.T) {
	promtool := tool(t, "promtool")
	run(t, promtool, "check", "rules", "../deploy/prometheus/alerts.yml")
	run(t, promtool, "test", "rules", "../deploy/prometheus/alerts_test.yml")

	listen, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	host := fmt.Sprintf("http://127.0.0.1:%d", admin)
	p, err := bench.start(daemon{
		name: "sluice",
		argv: []string{
			shared(t, bench.sluice), "serve", "--data", scratch(t),
			"--listen", fmt.Sprintf("127.0.0.1:%d", listen), "--admin", fmt.Sprintf("127.0.0.1:%d", admin),
		},
		ready: httpReady(host + "/readyz"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	resp, err := http.Get(host + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var own bytes.Buffer // those of libraries have names that promtool does not like
	for line := range strings.Lines(string(all)) {
		if strings.HasPrefix(line, "sluice_") || strings.HasPrefix(line, "# HELP sluice_") || strings.HasPrefix(line, "# TYPE sluice_") {
			own.WriteString(line)
		}
	}
	if own.Len() < 1000 {
		t.Fatalf("hardly any metrics:\n%s", all)
	}
	cmd := exec.Command(promtool, "check", "metrics")
	cmd.Stdin = &own
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}
