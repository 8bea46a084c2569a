package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A manager is what systemd is to a unit of Type=notify.
type manager struct{ *net.UnixConn }

func newManager(t *testing.T) manager {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", socket)
	return manager{conn}
}

func (m manager) told(t *testing.T, want string) {
	t.Helper()
	_ = m.SetReadDeadline(time.Now().Add(time.Minute))
	b := make([]byte, 1<<10)
	n, err := m.Read(b)
	if err != nil {
		t.Fatalf("systemd waits for %s: %v", want, err)
	}
	if got := string(b[:n]); got != want {
		t.Errorf("systemd is told %q, want %q", got, want)
	}
}

// nothing is told by a process that has ended: what it said would wait in the socket.
func (m manager) nothing(t *testing.T) {
	t.Helper()
	_ = m.SetReadDeadline(time.Now().Add(time.Millisecond))
	b := make([]byte, 1<<10)
	if n, err := m.Read(b); err == nil {
		t.Errorf("systemd is told %q too", b[:n])
	}
}

func TestSystemdIsToldOfStartReloadAndEnd(t *testing.T) {
	m := newManager(t)
	file := filepath.Join(t.TempDir(), "sluice.yml")
	write := func(yml string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(yml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	p := startServe(t, "--config", file)
	m.told(t, "READY=1")
	resp, err := http.Get(p.url + "/v2/")
	if err != nil {
		t.Fatalf("it is ready and does not answer: %v", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	for _, c := range []struct{ yml, level string }{
		{"unwrap: never\n", "INFO"},
		{"unwarp: never\n", "ERROR"},
		{"pprof: true\n", "INFO"},
	} {
		write(c.yml)
		if level, entry := p.hangup(t); level != c.level {
			t.Errorf("%q: %s", c.yml, entry)
		}
		m.told(t, "RELOADING=1")
		m.told(t, "READY=1")
	}
	http.DefaultClient.CloseIdleConnections()
	p.end(t)
	m.told(t, "STOPPING=1")
	m.nothing(t)
}

func TestNobodyIsToldWithoutASocket(t *testing.T) {
	var log strings.Builder
	notify := newNotify(func(string) (string, bool) { return "", false }, slog.New(slog.NewTextHandler(&log, nil)))
	notify(stateReady)
	if log.Len() > 0 {
		t.Error(log.String())
	}
	newNotify(func(string) (string, bool) { return filepath.Join(t.TempDir(), "gone"), true }, slog.New(slog.NewTextHandler(&log, nil)))(stateReady)
	if !strings.Contains(log.String(), "NOTIFY_SOCKET") {
		t.Errorf("a socket that is not there is told as %q", log.String())
	}
}

func TestSystemdIsNotToldThatAStartThatFailsIsReady(t *testing.T) {
	m := newManager(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, flag := range []string{"--listen", "--admin"} {
		other := map[string]string{"--listen": "--admin", "--admin": "--listen"}[flag]
		var said strings.Builder
		code := execute(t.Context(), []string{"serve", flag, taken.Addr().String(), other, "127.0.0.1:0", "--data", t.TempDir()}, io.Discard, &said)
		if code != exitFailed || !strings.Contains(said.String(), syscall.EADDRINUSE.Error()) {
			t.Errorf("%s of another program: exit code %d, %s", flag, code, said.String())
		}
		m.told(t, "STOPPING=1")
	}
	m.nothing(t)
}
