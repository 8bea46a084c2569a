package observe

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

var ownName = regexp.MustCompile(`\bsluice_[a-z_]+`)

// A dashboard that asks for a metric which does not exist shows nothing, and an alert never fires.
func TestTheDashboardAndTheAlertsAskForMetricsThatExist(t *testing.T) {
	m := registered(t, New("test"))
	for file, least := range map[string]int{
		"../../deploy/grafana/sluice.json": 15, "../../deploy/prometheus/alerts.yml": 7, "../../deploy/prometheus/alerts_test.yml": 5,
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid(b) {
			t.Errorf("%s is not JSON", file)
		}
		named := map[string]bool{}
		for _, name := range ownName.FindAllString(string(b), -1) {
			named[name] = true
			base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
			if m[name] == nil && m[base] == nil {
				t.Errorf("%s asks for %s, which does not exist", file, name)
			}
		}
		if len(named) < least {
			t.Errorf("%s names only %d metrics", file, len(named))
		}
	}
}
