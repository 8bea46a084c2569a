//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// everyAlertHasATest: of both that it fires and that it does not.
func everyAlertHasATest(t *testing.T) {
	t.Helper()
	var rules struct {
		Groups []struct{ Rules []struct{ Alert string } }
	}
	var tests struct {
		Tests []struct {
			Alerts []struct {
				Name   string `yaml:"alertname"`
				Expect []any  `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	decode(t, "../deploy/prometheus/alerts.yml", &rules)
	decode(t, "../deploy/prometheus/alerts_test.yml", &tests)
	fires := map[string]map[bool]int{}
	for _, c := range tests.Tests {
		for _, a := range c.Alerts {
			if fires[a.Name] == nil {
				fires[a.Name] = map[bool]int{}
			}
			fires[a.Name][len(a.Expect) > 0]++
		}
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if fires[r.Alert][true] == 0 || fires[r.Alert][false] == 0 {
				t.Errorf("%s is expected to fire %d times, and not to %d times; want both", r.Alert, fires[r.Alert][true], fires[r.Alert][false])
			}
		}
	}
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Prometheus parses every query of the dashboard, as the recording rule that it would make. What Grafana puts in for its
// variables is put in here.
func TestPromtoolAcceptsTheQueriesOfTheDashboard(t *testing.T) {
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	decode(t, "../deploy/grafana/sluice.json", &dashboard)
	grafana := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h", "$instance", "a|b")
	type rule struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []rule
	for _, p := range dashboard.Panels {
		for _, q := range p.Targets {
			expr := grafana.Replace(q.Expr)
			if strings.Contains(expr, "$") {
				t.Errorf("%s: the query has a variable that the dashboard does not have: %s", p.Title, expr)
			}
			rules = append(rules, rule{fmt.Sprintf("panel:%d", len(rules)), expr})
		}
	}
	if len(rules) < 20 {
		t.Fatalf("only %d queries were found", len(rules))
	}
	b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(scratch(t), "dashboard.yml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, tool(t, "promtool"), "check", "rules", file)
}

// What Prometheus itself says of the rules, of their tests, and of the names and types of the metrics.
func TestPromtoolAcceptsRulesAndMetrics(t *testing.T) {
	promtool := tool(t, "promtool")
	run(t, promtool, "check", "rules", "../deploy/prometheus/alerts.yml")
	run(t, promtool, "test", "rules", "../deploy/prometheus/alerts_test.yml")
	everyAlertHasATest(t)

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
