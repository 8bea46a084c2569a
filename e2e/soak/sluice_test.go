//go:build soak

package soak

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startTime = 2 * time.Minute
	forward   = "forward" // of on_storage_error
)

// A sluice is a real process.
type sluice struct {
	name           string
	up             *registry
	forwards       bool // what its storage fails to keep
	cmd            *exec.Cmd
	address, admin string
	file, log      string
	configurations []string // good, also good, broken, and such that need a restart
	*certificates
}

// startSluice starts one that does as onStorageError says; reject is strip after some of the SIGHUPs.
func startSluice(t *testing.T, name, program, storage, onStorageError string, up *registry, c *clock) *sluice {
	t.Helper()
	dir := t.TempDir()
	s := &sluice{
		name: name, up: up, forwards: onStorageError == forward, address: freeAddress(t), admin: freeAddress(t), file: filepath.Join(dir, "sluice.yml"), log: filepath.Join(dir, "log"),
		certificates: newCertificates(t, dir),
	}
	// Unlike the default, a storage that hangs is given up before its moment is over.
	base := fmt.Sprintf(`listen: %s
admin: %s
pprof: true
tls: {certificate: %q, key: %q}
upstreams: [{url: "http://%s", credentials: anonymous}]
rules: [{repositories: ["strip/**"], attestations: strip}]
storage_timeout: 1s
storage: %s
`, s.address, s.admin, s.certificate, s.key, up.address, storage)
	often, atTimes := base+"on_storage_error: "+onStorageError+"\n", base+"on_storage_error: strip\n"
	if s.forwards {
		atTimes = often
	}
	s.configurations = []string{
		often, often + "access_log: true\nretention: 3d\n", often + "unknown: 1\nview: sideways\n",
		atTimes, strings.Replace(often, "admin: ", "admin: localhost:1 # ", 1),
	}
	s.write(t, often)
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd = exec.CommandContext(t.Context(), program, "serve", "--config", s.file)
	s.cmd.Env = append(os.Environ(), clockVariable+"="+c.file, "AWS_ACCESS_KEY_ID="+bucketKey, "AWS_SECRET_ACCESS_KEY="+bucketSecret)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(startTime); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := asking.Get("http://" + s.admin + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return s
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready after %s:\n%s", startTime, s.tail())
		}
	}
}

func (s *sluice) url() string { return "https://" + s.address }

// write puts a configuration in place at once: half a file would be a mistake of ours.
func (s *sluice) write(t *testing.T, yml string) {
	t.Helper()
	err := os.WriteFile(s.file+".new", []byte(yml), 0o600)
	if err == nil {
		err = os.Rename(s.file+".new", s.file)
	}
	if err != nil {
		t.Error(err)
	}
}

// reload sends SIGHUP.
func (s *sluice) reload(t *testing.T, configuration int) {
	t.Helper()
	s.write(t, s.configurations[configuration])
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Error(err)
	}
}

func (s *sluice) reloads(ctx context.Context, t *testing.T, d *dice, n *tally) {
	for ctx.Err() == nil {
		for _, i := range d.shuffled(len(s.configurations)) {
			d.pause(ctx, 4*time.Second)
			s.reload(t, i)
			n.did("SIGHUPs")
		}
	}
}

// stop ends the process as an operator does.
func (s *sluice) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%s ends with %v:\n%s", s.name, err, s.tail())
	}
	log := s.logged(t)
	for what, wanted := range map[string]bool{
		"bug: handler panicked": false, "panic:": false, "DATA RACE": false, "requests that were cut have not ended": false,
		"configuration changed": true, "need a restart": true, "view: \\\"sideways\\\"": true,
	} {
		if n := bytes.Count(log, []byte(what)); (n > 0) != wanted {
			t.Errorf("the log of %s says %q %d times", s.name, what, n)
		}
	}
}

func (s *sluice) logged(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *sluice) tail() string {
	b, _ := os.ReadFile(s.log)
	return string(b[max(0, len(b)-4000):])
}
