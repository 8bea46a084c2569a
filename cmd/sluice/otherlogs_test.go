package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// lockedBuffer is written by whoever logs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What net/http and logrus would print by themselves are lines like all others, without what a registry said.
func TestLibrariesLogInTheFormOfEverythingElse(t *testing.T) {
	flags, level := log.Flags(), logrus.GetLevel()
	t.Cleanup(func() {
		log.SetFlags(flags)
		log.SetOutput(os.Stderr)
		logrus.SetLevel(level)
		logrus.SetOutput(os.Stderr)
	})
	var out lockedBuffer
	takeOverLogs(slog.New(slog.NewJSONHandler(&out, nil)))

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	asked := make(chan struct{})
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Read(make([]byte, 4<<10))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		<-asked
		_, _ = io.WriteString(c, "HTTP/1.1 202 Accepted\r\nLocation: /v2/app/blobs/uploads/1?state=secret\r\n\r\n")
		_, _ = c.Read(make([]byte, 1))
	}()
	client := &http.Transport{}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	close(asked)
	for end := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "Unsolicited response"); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("net/http says nothing about it any more, or elsewhere")
		}
	}
	logrus.WithField("path", "/docker").Warn("no such thing")
	logrus.Info("ignoring deleted path")

	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for _, line := range lines {
		if err := json.Unmarshal([]byte(line), &map[string]any{}); err != nil {
			t.Errorf("%q: %v", line, err)
		}
	}
	if said := out.String(); len(lines) != 2 || strings.Contains(said, "secret") || !strings.Contains(said, "path=/docker") {
		t.Errorf("the log is\n%s", said)
	}
}
