package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestABugInHousekeepingIsLoggedAndEndsNothingElse(t *testing.T) {
	var log bytes.Buffer
	s := &site{proxy: &Proxy{log: slog.New(slog.NewTextHandler(&log, nil))}} // what it has not got it stumbles over
	var never time.Time
	s.keepHouse(t.Context(), &never, &never, &never)
	s.proxy.handlers.Wait()
	if !strings.Contains(log.String(), "housekeeping broke off") || !strings.Contains(log.String(), "bug: panic: ") {
		t.Errorf("logged: %s", log.String())
	}
}
