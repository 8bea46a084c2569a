package proxy_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"sluice/filters/ocidoc"
	"sluice/proxy/config"
	"sluice/proxy/proxytest"
)

// Bodies that are held are in memory while they come, which is up to whoever sends them. Many large ones bound what the
// next may have, and neither what small ones have nor what others have.
func TestFewLargeStatementsComeAtTheSameTime(t *testing.T) {
	mode := htpasswdTenancy(t)
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), append(mode.settings, with(func(c *config.Config) { c.MaxHeldBlob = 4 << 20 }))...)
	as := func(user string) []string { return mode.as(user, "", "") }
	begin := func(user string) string {
		return r.request(http.MethodPost, "/v2/"+user+"/app/blobs/uploads/", nil, as(user)...).want(t, http.StatusAccepted).Header.Get("Location")
	}
	// The header of a statement of 1 MiB, and a part of it, in whichever way clients send blobs.
	start := func(user string, i int) net.Conn {
		location, method := begin(user), http.MethodPut
		if i%2 == 0 {
			method = http.MethodPatch
		}
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\nContent-Length: %d\r\n\r\n%s", method, put(location, "sha256:"+strings.Repeat("0", 64)), as(user)[1], 1<<20, statementOf(i, 100<<10))
		return c
	}
	whole := func(user string, size, status int) {
		t.Helper()
		b := statementOf(size, size)
		r.request(http.MethodPut, put(begin(user), ocidoc.DigestOf(b)), b, as(user)...).want(t, status)
	}
	var open []net.Conn
	for i := range r.proxy.PlacesOfOne() {
		open = append(open, start("mallory", i))
	}
	eventually(t, "full", func() bool { return !r.proxy.RoomInCrowd(r.proxy.KeyOf(as("mallory")[1])) })
	whole("mallory", 1000, http.StatusCreated)
	whole("alice", 100<<10, http.StatusCreated)
	layer := []byte("\x1f\x8b" + strings.Repeat("l", 100<<10))
	r.request(http.MethodPut, put(begin("mallory"), ocidoc.DigestOf(layer)), layer, as("mallory")...).want(t, http.StatusCreated)
	bundle := append([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","x":"`), bytes.Repeat([]byte("b"), 100<<10)...)
	r.request(http.MethodPut, put(begin("mallory"), ocidoc.DigestOf(bundle)), bundle, as("mallory")...).want(t, http.StatusCreated) // upstream
	whole("mallory", 100<<10, http.StatusTooManyRequests)
	for _, c := range open {
		c.Close()
	}
	whole("mallory", 100<<10, http.StatusCreated)
	whole("mallory", 1<<20, http.StatusCreated)
	eventually(t, "empty", func() bool { return r.proxy.Crowd() == 0 })
}
