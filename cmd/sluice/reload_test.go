package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hangup sends SIGHUP and gives the entry of the log that tells what came of it.
func (p *process) hangup(t *testing.T) (level, entry string) {
	t.Helper()
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	log := p.stderr.(*bufio.Reader)
	for {
		line, err := log.ReadBytes('\n')
		if err != nil {
			t.Fatalf("the log ends before it tells of SIGHUP: %v", err)
		}
		var e struct{ Level, Msg string }
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if strings.HasPrefix(e.Msg, "configuration ") || strings.HasPrefix(e.Msg, "SIGHUP") {
			return e.Level, string(line)
		}
	}
}

func TestSighupReadsTheFileAgainWithAPushInFlight(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sluice.yml")
	write := func(yml string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(yml), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	p := startServe(t, "--config", file)
	client := &http.Client{Timeout: time.Minute}
	do := func(method, url string, body io.Reader, want int) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, url, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Fatalf("%s: %s, want %d", method, resp.Status, want)
		}
		return resp
	}

	// A layer of which half has been sent.
	layer := bytes.Repeat([]byte("a layer "), 64<<10)
	location := do(http.MethodPost, p.url+"/v2/app/blobs/uploads/", nil, http.StatusAccepted).Header.Get("Location")
	body, half := io.Pipe()
	defer half.CloseWithError(io.ErrUnexpectedEOF)
	ended := make(chan error, 1)
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(layer))
	go func() {
		req, err := http.NewRequest(http.MethodPut, p.url+location+"?digest="+digest, body)
		if err != nil {
			ended <- err
			return
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				err = fmt.Errorf("answer %s", resp.Status)
			}
		}
		ended <- err
	}()
	if _, err := half.Write(layer[:len(layer)/2]); err != nil {
		t.Fatal(err)
	}

	write("attestations: drop\nrules:\n  - view: original\nunknown: 1\n")
	level, entry := p.hangup(t)
	for _, want := range []string{"sluice.yml:1: attestations:", "sluice.yml:4: unknown", "configuration not changed"} {
		if level != "ERROR" || !strings.Contains(entry, want) {
			t.Errorf("a bad file is told as %s without %q: %s", level, want, entry)
		}
	}
	write("admin: 127.0.0.1:1\nlisten: 127.0.0.1:1\nretention: 3d\n") // both come from the environment here, and stay
	if level, entry := p.hangup(t); level != "INFO" {
		t.Errorf("a good file is told as %s: %s", level, entry)
	}
	write("tls: {certificate: " + file + ", key: " + file + "}\n")
	if level, entry := p.hangup(t); level != "ERROR" || !strings.Contains(entry, `["tls.certificate","tls.key"]`) {
		t.Errorf("what needs a restart is told as %s: %s", level, entry)
	}
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("ci:$2y$05$rcY5aqo3.OLVlgtInPMPnOXcAhMBe.rg9X6YQK3Y9s0LhB0Xg8sxa\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	do(http.MethodGet, p.url+"/v2/", nil, http.StatusOK)
	write("access: {mode: htpasswd, htpasswd: " + users + "}\n")
	if level, entry := p.hangup(t); level != "INFO" {
		t.Errorf("a good file is told as %s: %s", level, entry)
	}
	do(http.MethodGet, p.url+"/v2/", nil, http.StatusUnauthorized)

	// What was let in before comes to its end.
	if _, err := half.Write(layer[len(layer)/2:]); err != nil {
		t.Fatal(err)
	}
	half.Close()
	if err := <-ended; err != nil {
		t.Errorf("the upload that was under way: %v", err)
	}
	write("")
	if level, entry := p.hangup(t); level != "INFO" {
		t.Errorf("a good file is told as %s: %s", level, entry)
	}
	if got := do(http.MethodHead, p.url+"/v2/app/blobs/"+digest, nil, http.StatusOK).ContentLength; got != int64(len(layer)) {
		t.Errorf("the layer has %d bytes, want %d", got, len(layer))
	}
	client.CloseIdleConnections()
	p.end(t)
}
