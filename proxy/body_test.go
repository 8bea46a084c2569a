package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"sluice/proxy"
	"sluice/proxy/proxytest"
)

// A client sends its next request on the connection of the last one: it must not be cut without a word.
func TestARefusedRequestThatCameWholeKeepsItsConnection(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	for _, path := range []string{
		"/v2/app/blobs/uploads/",  // the method is refused before anything is read
		"/v2/App/manifests/1",     // the name, by no route
		"/v2/app/manifests/1",     // the document, after it was read
		"/v2/app/blobs/uploads/x", // the upload's URL, with the body unread
	} {
		c := &http.Client{Transport: &http.Transport{}}
		for i := range 3 {
			reused := false
			req, err := http.NewRequest(http.MethodPut, r.url()+path, strings.NewReader("no manifest"))
			if err != nil {
				t.Fatal(err)
			}
			req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
				GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused },
			}))
			resp, err := c.Do(req)
			if err != nil {
				t.Fatalf("PUT %s: %v", path, err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode < 400 || resp.StatusCode >= 500 {
				t.Errorf("PUT %s: %s", path, resp.Status)
			}
			if i > 0 && !reused {
				t.Errorf("PUT %s: request %d needs a new connection", path, i+1)
			}
			time.Sleep(20 * time.Millisecond) // for a cut to arrive
		}
		c.CloseIdleConnections()
	}
}

// Who waits for "100 Continue" before sending the body gets the refusal instead, at once.
func TestARefusalDoesNotWaitForABodyThatNobodyAskedFor(t *testing.T) {
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}))
	for _, path := range []string{"/v2/app/blobs/uploads/", "/v2/app/blobs/uploads/x"} {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(3 * time.Second)) // less than drain waits
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n", path)
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 4") {
			t.Errorf("PUT %s: %q, %v", path, line, err)
		}
		c.Close()
	}
}

// An upstream that answers in the middle of a body leaves its Transport reading for a moment. (The race detector looks.)
func TestABodyMayStillBeReadWhenItsRequestIsOver(t *testing.T) {
	done := make(chan struct{})
	h := proxy.Entire(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, r.Body)
		}()
	}))
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // what is compared is what was panicked with
			t.Error(p)
		}
		<-done
	}()
	r, w := io.Pipe()
	go w.Close()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPut, "/", r))
}
