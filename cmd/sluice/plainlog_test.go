package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/proxy"
	"sluice/proxy/config"
)

// What a terminal may take for a command: ESC, DEL, C1 controls as UTF-8 and as single bytes, and marks that turn text around.
var steering = []string{"\x1b[2J", "\x7f", "\u009b2J", "\u0080", "\u0090+q\u009c", "\x9b2J", "\x80", "\u202eabc", "\u200b", "\U000e0041"}

// steers tells where a log has something that a terminal might not just show.
func steers(log []byte) error {
	for i := 0; i < len(log); {
		r, n := utf8.DecodeRune(log[i:])
		if r == utf8.RuneError && n == 1 || r != '\n' && !unicode.IsPrint(r) {
			return fmt.Errorf("%q in %q", log[i:i+n], log[max(0, i-100):min(len(log), i+100)])
		}
		i += n
	}
	return nil
}

func TestNoTextInALogSteersATerminal(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		for _, text := range steering {
			var log bytes.Buffer
			logger, err := newLogger(&log, "debug", format)
			if err != nil {
				t.Fatal(err)
			}
			logger.With("with "+text, text).WithGroup("group "+text).Info("message "+text, "key "+text, text, "error", errors.New(text),
				"list", []string{text}, "any", struct{ Text string }{text}, slog.Group("inner", "bytes", []byte(text)))
			if err := steers(log.Bytes()); err != nil {
				t.Errorf("%s: %v", format, err)
			}
		}
	}
}

func TestWhatIsEscapedInJSONReadsAsBefore(t *testing.T) {
	for _, text := range append([]string{"", "plain", "Übung, 日本語, 🙂", `quo"te\`, "\ufffd", "a\u009bb\u009bc"}, steering...) {
		var log bytes.Buffer
		logger, err := newLogger(&log, "info", "json")
		if err != nil {
			t.Fatal(err)
		}
		logger.Info("message", "text", text)
		var got struct{ Text string }
		if err := json.Unmarshal(log.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s", err, log.Bytes())
		}
		if want := strings.ToValidUTF8(text, "\ufffd"); got.Text != want {
			t.Errorf("%q is read as %q: %s", text, got.Text, log.Bytes())
		}
		if strings.HasPrefix(text, "Übung") && !strings.Contains(log.String(), text) {
			t.Errorf("what prints is escaped: %s", log.Bytes())
		}
	}
}

// Everything that a client chooses, in each place of a request where it may be.
func TestNothingThatAClientSendsSteersTheTerminalThatShowsTheLog(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var log lockedBuffer
		logger, err := newLogger(&log, "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		cfg := config.Default()
		cfg.AccessLog = true
		cfg.Storage.Filesystem.RootDirectory = t.TempDir()
		p, err := proxy.New(proxy.Options{Config: cfg, Logger: logger, Storage: inmemory.New()})
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(p.Handler())
		for i, text := range steering {
			quoted := percent(text)
			login := "Basic " + base64.StdEncoding.EncodeToString([]byte("user"+text+":password"))
			statement := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q}`, "marked"+text)
			for _, q := range []string{
				"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: marked" + text + "\r\nAuthorization: " + login + "\r\nReferer: " + text + "\r\n",
				"GET /v2/app/manifests/marked" + quoted + " HTTP/1.1\r\nHost: localhost\r\n",
				"GET /v2/marked" + quoted + "/manifests/1 HTTP/1.1\r\nHost: localhost\r\n",
				"GET /marked" + quoted + " HTTP/1.1\r\nHost: localhost\r\n",
				"GET /v2/app/blobs/sha256:marked" + quoted + " HTTP/1.1\r\nHost: localhost\r\n",
				"POST /v2/app/blobs/uploads/?digest=marked" + quoted + "&mount=marked" + quoted + "&from=" + quoted + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n",
				"PATCH /v2/app/blobs/uploads/marked" + quoted + "?_state=" + quoted + " HTTP/1.1\r\nHost: localhost\r\nContent-Range: marked" + text + "\r\nContent-Length: 0\r\n",
				fmt.Sprintf("PUT /v2/app/manifests/t%d HTTP/1.1\r\nHost: localhost\r\nContent-Type: marked%s\r\nContent-Length: %d\r\n", i, text, len(statement)),
				"GET /v2/_catalog?last=" + quoted + "&n=marked" + quoted + " HTTP/1.1\r\nHost: localhost\r\n",
				"GET /v2/ HTTP/1.1\r\nHost: marked" + text + "\r\n",
			} {
				body := ""
				if strings.HasPrefix(q, "PUT") {
					body = statement
				}
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				if _, err := io.WriteString(conn, q+"Connection: close\r\n\r\n"+body); err != nil {
					t.Fatal(err)
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatalf("%q: %v", q, err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				conn.Close()
			}
		}
		server.Close()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "marked"); n < len(steering) {
			t.Errorf("%s: the log has only %d of the texts", format, n)
		}
		if err := steers([]byte(log.String())); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
}

func percent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}
