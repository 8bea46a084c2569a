package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a real sluice serve with its embedded registry.
type process struct {
	*exec.Cmd
	url    string
	data   string
	stderr io.Reader // the log after "serving"
}

func startServe(t *testing.T, arguments ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.CommandContext(t.Context(), self), data: filepath.Join(t.TempDir(), "data")}
	p.Args = append([]string{"sluice", "serve", "--log-format", "json", "--data", p.data}, arguments...) // the name makes TestMain run main
	p.Env = append(os.Environ(), "SLUICE_LISTEN=127.0.0.1:0", "SLUICE_ADMIN=127.0.0.1:0", "GORACE=atexit_sleep_ms=0")
	pipe, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	log := bufio.NewReader(pipe)
	var entry struct{ Msg, Listen string }
	for entry.Msg != "serving" {
		line, err := log.ReadBytes('\n')
		if err != nil {
			t.Fatalf("never served: %v, %s", p.Wait(), line)
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	p.url, p.stderr = "http://"+entry.Listen, log
	return p
}

// end stops the process as an operator does.
func (p *process) end(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(p.stderr)
	if err := p.Wait(); err != nil {
		t.Errorf("%v: %s", err, rest)
	}
}

func TestServeOutlivesASighupAndEndsInGoodOrder(t *testing.T) {
	p := startServe(t)
	if level, entry := p.hangup(t); level != "WARN" || !strings.Contains(entry, "--config") {
		t.Errorf("SIGHUP without a file is told as %s: %s", level, entry)
	}
	client := &http.Client{Timeout: time.Minute}
	resp, err := client.Get(p.url + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET /v2/: %s", resp.Status)
	}
	client.CloseIdleConnections()
	p.end(t)
	if info, err := os.Stat(p.data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data folder, with the seal key in it: %v, %v", info, err)
	}
}
