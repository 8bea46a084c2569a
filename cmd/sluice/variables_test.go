package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestAVariableThatSetsNothingIsNamed(t *testing.T) {
	for _, tt := range []struct{ variable, want string }{
		{"SLUICE_LISTN=:5000", "did you mean SLUICE_LISTEN?"},
		{"SLUICE_UPSTREAM_PASSWD=hunter2", "did you mean SLUICE_UPSTREAM_PASSWORD?"},
		{"SLUICE_UPSTREAM_USER=bob", "did you mean SLUICE_UPSTREAM_USERNAME?"},
		{"SLUICE_LOGLEVEL=debug", "did you mean SLUICE_LOG_LEVEL?"},
		{"SLUICE_RETENTION=3d", "see sluice serve --help; all other settings are in the file of --config"},
		{"SLUICE_LISTN=", ""}, // as good as not set
		{"SLUICE_LISTEN=:5000", ""},
		{"SLUICE_CONFIG=sluice.yml", ""},
		{"SLUICE_LOG_LEVEL=debug", ""},
		{"SLUICE_SEAL_KEYS_FILE=keys", ""},
		{"SLUICE_UPSTREAM_PASSWORD=hunter2", ""},
		{"SLUICE_ACCESS_KEY=x", ""}, // of ecrsim, from the demo's compose file
		{"SLUICE_VIA=sluice:5000", ""},
		{"SLUICE_PORT=tcp://10.0.0.1:5000", ""}, // of Kubernetes
		{"SLUICE_PORT_5000_TCP_ADDR=10.0.0.1", ""},
		{"SLUICE_SERVICE_HOST=10.0.0.1", ""},
		{"SLUICE_SERVICE_PORT_REGISTRY=5000", ""},
		{"SLUICE_ADMIN_PORT=tcp://10.0.0.1:5080", ""},
		{"LISTN=:5000", ""},
	} {
		var log bytes.Buffer
		warnOfUnknownVariables([]string{tt.variable}, slog.New(slog.NewTextHandler(&log, nil)))
		if tt.want == "" && log.Len() > 0 || !strings.Contains(log.String(), tt.want) {
			t.Errorf("%s: %q, want %q", tt.variable, &log, tt.want)
		}
		name, value, _ := strings.Cut(tt.variable, "=")
		if tt.want != "" && !strings.Contains(log.String(), "variable="+name) || value != "" && strings.Contains(log.String(), value) {
			t.Errorf("%s: the name belongs into the log, and the value does not: %s", tt.variable, &log)
		}
	}
}
