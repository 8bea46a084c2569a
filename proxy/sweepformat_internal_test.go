package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy/config"
)

// During an upgrade a newer program raises the format while this one still runs. What it writes is not this one's to sweep.
func TestAStorageWhoseFormatWasRaisedIsNotSwept(t *testing.T) {
	const over = "/quarantine/2020-01-01/app/_blobs/sha256/" + "0000000000000000000000000000000000000000000000000000000000000000"
	now := time.Now().AddDate(0, 0, 10) // what is written now is ten days old
	var log bytes.Buffer
	d, c := inmemory.New(), config.Default()
	c.Upstreams = []config.Upstream{{URL: "http://127.0.0.1:1", Credentials: config.CredentialsAnonymous}}
	p, err := New(Options{Config: c, Storage: d, Now: func() time.Time { return now }, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := &site{proxy: p}
	var swept, stored, settled time.Time
	for _, step := range []struct {
		format string
		left   bool
	}{{"sluice 2\n", true}, {"sluice 1\n", false}} {
		if err := d.PutContent(t.Context(), over, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := d.PutContent(t.Context(), "/format", []byte(step.format)); err != nil {
			t.Fatal(err)
		}
		s.keepHouse(t.Context(), &swept, &stored, &settled)
		if _, err := d.Stat(t.Context(), over); (err == nil) != step.left {
			t.Errorf("%s: %v, left should be %v: %s", step.format, err, step.left, &log)
		}
		if said := strings.Contains(log.String(), "nothing is swept") && strings.Contains(log.String(), "format 2, written by a newer Sluice"); !said {
			t.Errorf("logged: %s", &log)
		}
		now = now.Add(sweepEvery)
	}
}
