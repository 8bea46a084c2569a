package observe

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	describedName = regexp.MustCompile(`fqName: "([^"]+)"`)
	describedHelp = regexp.MustCompile(`help: "([^"]*)"`)
	describedVars = regexp.MustCompile(`variableLabels: \{([^}]*)\}`)
	tableRow      = regexp.MustCompile("(?m)^\\| `(sluice_[a-z_]+)` \\| (counter|gauge|histogram) \\| ([^|]*)\\| ([^|]+) \\|$")
	quoted        = regexp.MustCompile("`([^`]+)`")
)

// registered is every metric with its labels, from the registry itself.
func registered(t *testing.T, m *Metrics) map[string][]string {
	t.Helper()
	descs := make(chan *prometheus.Desc, 1000)
	m.registry.Describe(descs)
	close(descs)
	found := map[string][]string{}
	for d := range descs {
		text := d.String()
		name := describedName.FindStringSubmatch(text)[1]
		labels := strings.FieldsFunc(describedVars.FindStringSubmatch(text)[1], func(r rune) bool { return r == ',' })
		slices.Sort(labels)
		found[name] = labels
		if describedHelp.FindStringSubmatch(text)[1] == "" {
			t.Errorf("%s has no help", name)
		}
	}
	return found
}

func TestTheTableHasEveryMetricWithItsLabelsAndNoOther(t *testing.T) {
	b, err := os.ReadFile("../../docs/operability.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for _, row := range tableRow.FindAllStringSubmatch(string(b), -1) {
		labels := []string{}
		for _, l := range quoted.FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		if _, twice := documented[row[1]]; twice {
			t.Errorf("%s is in the table twice", row[1])
		}
		documented[row[1]] = labels
		if total := strings.HasSuffix(row[1], "_total"); total != (row[2] == "counter") {
			t.Errorf("%s is a %s", row[1], row[2])
		}
	}
	m := registered(t, New("test"))
	if len(m) < 10 {
		t.Fatalf("only %d metrics found: the test looks at nothing", len(m))
	}
	for name, labels := range m {
		got, ok := documented[name]
		if !ok {
			t.Errorf("%s is not in the table of docs/operability.md", name)
		} else if !slices.Equal(got, labels) {
			t.Errorf("%s has the labels %v, the table says %v", name, labels, got)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("%s is in the table of docs/operability.md, and does not exist", name)
	}
}

// series counts what a scrape has of our own.
func series(t *testing.T, m *Metrics) int {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

// Whoever pushes may not grow the process: whatever is counted, the series stay those of the start.
func TestHostileValuesMakeNoSeries(t *testing.T) {
	m := New("test")
	u := m.Upstream("registry.example.com")
	before := series(t, m)
	for i := range 1000 {
		hostile := strings.Repeat("\xff{}\"", i%7) + string(rune('a'+i%26)) + strings.Repeat("x", i)
		m.Arrived()
		m.Answered(Route(i%int(routeCount)), hostile, i, 0, int64(i))
		m.Answered(RouteOther, hostile, -i, 0, 0)
		m.Left()
		m.Pushed(hostile, i%2 == 0, PushEnded(i))
		m.Taken("store", []string{hostile, "https://spdx.dev/Document"})
		m.Taken("strip", []string{hostile})
		u.Answered(hostile, i, 0)
		u.Answered("read", i, 0)
		u.Failed(hostile)
	}
	if after := series(t, m); after != before {
		t.Errorf("%d series became %d", before, after)
	}
	t.Logf("%d series with one upstream", before)
}

func TestCountingARequestAllocatesNothing(t *testing.T) {
	m := New("test")
	u := m.Upstream("registry.example.com")
	if n := testing.AllocsPerRun(100, func() {
		m.Arrived()
		u.Answered("stream", 201, 1)
		m.Pushed("store", true, PushHeld)
		m.Answered(RouteManifest, "PUT", 201, 1, 2)
		m.Left()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
