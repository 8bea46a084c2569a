package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// A client that sends its body byte by byte, or not at all, is cut off after the time that slowbody.go gives it; until then
// it costs its own connections and nothing else, and all others go on.
func TestAClientThatTricklesItsBodyIsCutOffAndHoldsUpNobody(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), heldLimit(1<<20, 4<<20))
	r.proxy.SlowTime(30 * time.Second) // more than honest clients take, also on a busy machine
	r.push(proxytest.BuildKit, "app", "0", proxytest.Synthetic(proxytest.SyntheticOptions{}))
	location := func() string {
		return r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	}
	digest := ocidoc.DigestOf([]byte("of what never comes"))
	statement := string(statementOf(1, 10))
	transport.CloseIdleConnections()
	before := runtime.NumGoroutine()
	over := make(chan struct{})
	var all, cut sync.WaitGroup
	for i := range 8 {
		for name, c := range map[string]struct{ head, first, each string }{
			"a layer":                 {"PUT " + absolutePath(location()) + "digest=" + digest + " HTTP/1.1\r\nContent-Length: 1000000", "\x1f\x8b not a statement, and longer than what is peeked", "x"},
			"a layer of any length":   {"PATCH " + location() + " HTTP/1.1\r\nTransfer-Encoding: chunked", "31\r\n\x1f\x8b not a statement, and longer than what is peeked\r\n", "1\r\nx\r\n"},
			"a statement":             {"PUT " + absolutePath(location()) + "digest=" + digest + " HTTP/1.1\r\nContent-Length: 200000", statement, "x"},
			"a statement in parts":    {"PATCH " + location() + " HTTP/1.1\r\nContent-Length: 900000", statement + strings.Repeat("x", 300<<10), "x"},
			"a manifest":              {"PUT /v2/app/manifests/1 HTTP/1.1\r\nContent-Type: " + ociIndex + "\r\nContent-Length: 100000", "{", " "},
			"what has not been asked": {"PUT " + absolutePath(location()) + "digest=" + digest + " HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 200000", statement, "x"},
			"nothing":                 {"PUT /v2/app/manifests/1 HTTP/1.1\r\nContent-Type: " + ociIndex + "\r\nContent-Length: 100000", "", ""},
		} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() { // the client
				if _, err := io.WriteString(conn, c.head+"\r\nHost: localhost\r\n\r\n"+c.first); err != nil {
					return
				}
				for tick := time.NewTicker(100 * time.Millisecond); ; {
					select {
					case <-over:
						tick.Stop()
						return
					case <-tick.C:
						if _, err := io.WriteString(conn, c.each); err != nil {
							tick.Stop()
							return
						}
					}
				}
			})
			cut.Go(func() { // what it hears
				defer conn.Close()
				_ = conn.SetReadDeadline(time.Now().Add(5 * time.Minute))
				heard, err := io.ReadAll(conn)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s %d is never cut off", name, i)
				}
				// A reset may take the answer with it: the client keeps sending.
				if said := strings.TrimPrefix(string(heard), "HTTP/1.1 100 Continue\r\n\r\n"); said != "" && !strings.Contains(said, "HTTP/1.1 400") && !strings.Contains(said, "HTTP/1.1 413") {
					t.Errorf("%s %d hears %.200q", name, i, said)
				}
			})
		}
	}
	// Others go on meanwhile, also with what is held.
	for n := range 3 {
		r.push(proxytest.BuildKit, "app", fmt.Sprint(n), proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, SBOM: true, Seed: uint64(n) + 1}))
	}
	r.proxy.SlowTime(time.Second) // which the others have been waited for already, or will be soon
	cut.Wait()
	close(over)
	all.Wait()
	for end := time.Now().Add(time.Minute); runtime.NumGoroutine() > before+15 || r.proxy.Charged(anybody) > 0; time.Sleep(5 * time.Millisecond) {
		transport.CloseIdleConnections()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if time.Now().After(end) {
			t.Fatalf("%d goroutines are left, %d were there before; %d bytes are charged", runtime.NumGoroutine(), before, r.proxy.Charged(anybody))
		}
	}
	if left := append(r.files("/quarantine", "/_parts/"), r.files("/quarantine", "/_staging/")...); len(left) > 0 {
		t.Errorf("left in the storage: %v", left)
	}
}

// Who waits for the registry is not slow, however long it takes.
func TestAClientThatWaitsForTheRegistryIsNotCutOff(t *testing.T) {
	const window = time.Second
	slow := proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/") {
				time.Sleep(3 * window) // it reads nothing
			}
			next.ServeHTTP(w, r)
		})
	}})
	r := newRig(t, slow)
	r.proxy.SlowTime(window)
	layer := append([]byte("\x1f\x8b"), bytes.Repeat([]byte("layer"), 4<<20)...) // more than sockets hold
	location := r.request(http.MethodPost, "/v2/app/blobs/uploads/", nil).want(t, http.StatusAccepted).Header.Get("Location")
	r.request(http.MethodPut, absolutePath(location)+"digest="+ocidoc.DigestOf(layer), layer).want(t, http.StatusCreated)
}

// A client that was cut off is still there, and is told why, also where the storage takes what it sends.
func TestAClientThatIsCutOffIsToldWhy(t *testing.T) {
	statement := string(statementOf(1, 10))
	for name, first := range map[string]string{"one piece": statement, "parts": statement + strings.Repeat("x", 300<<10)} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}))
			location := r.upload("app")
			r.proxy.SlowTime(200 * time.Millisecond)
			conn, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(time.Minute))
			if _, err := io.WriteString(conn, "PATCH "+location+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n"+first); err != nil {
				t.Fatal(err)
			}
			heard, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("it hears nothing: %v", err)
			}
			defer heard.Body.Close()
			if said, err := io.ReadAll(heard.Body); heard.StatusCode != http.StatusBadRequest || !strings.Contains(string(said), "the client sent less than 64 KiB") {
				t.Errorf("it hears %s, %.300q, %v", heard.Status, said, err)
			}
		})
	}
}
