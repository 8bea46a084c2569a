package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// A client that asks for a layer and does not read it is cut off, so that it keeps no connection to the registry; who reads,
// however slowly, gets all of it, and the connection serves the next request.
func TestAClientThatDoesNotReadItsDownloadIsCutOff(t *testing.T) {
	const size = 64 << 20 // more than all sockets on the way take
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}))
	const window = 2 * time.Second
	r.proxy.ReadTime(window)
	layer := noise(size)
	digest := ocidoc.DigestOf(layer)
	r.request(http.MethodPut, put(r.upload("app"), digest), layer).want(t, http.StatusCreated)
	ask := func() (net.Conn, *http.Response, *bufio.Reader) {
		t.Helper()
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.(*net.TCPConn).SetReadBuffer(64 << 10)
		fmt.Fprintf(c, "GET /v2/app/blobs/%s HTTP/1.1\r\nHost: localhost\r\n\r\n", digest)
		in := bufio.NewReader(c)
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v %v", resp, err)
		}
		return c, resp, in
	}
	t.Run("nothing is read", func(t *testing.T) {
		_, resp, _ := ask()
		time.Sleep(3 * window)
		if n, err := io.Copy(io.Discard, resp.Body); err == nil {
			t.Errorf("all of it came: %d bytes", n)
		}
	})
	t.Run("slowly", func(t *testing.T) {
		c, resp, in := ask()
		var n int64
		for began := time.Now(); time.Since(began) < 2*window; time.Sleep(window / 20) {
			part, err := io.CopyN(io.Discard, resp.Body, 1<<20)
			if n += part; err != nil {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
		rest, err := io.Copy(io.Discard, resp.Body)
		if n += rest; n != size || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		time.Sleep(window + window/2) // the deadline of the first answer is not that of the second
		fmt.Fprint(c, "GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
		if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("the next request: %v %v", resp, err)
		}
	})
}
