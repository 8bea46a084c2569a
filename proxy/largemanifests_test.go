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

	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// startManifest sends the header of a manifest of 1 MiB, and the beginning of it.
func (r *rig) startManifest(n int) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", ociIndex, 1<<20, strings.Repeat(" ", n))
	return c
}

// With passthrough everybody is let in until upstream is asked, so it is asked before a large manifest is read.
func TestALargeManifestIsReadOnlyForWhoMayPushIt(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		})
	}}), with(passthrough))
	c := r.startManifest(100 << 10) // the rest never comes
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("%v, %v", resp, err)
	}
}

// Large manifests that are on their way bound what the next one may have, and not what small ones have.
func TestFewLargeManifestsAreInMemoryAtOnce(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}))
	var open []net.Conn
	for range 8 {
		open = append(open, r.startManifest(100<<10))
	}
	for end := time.Now().Add(20 * time.Second); r.proxy.RoomForManifests(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("eight large manifests leave room for more")
		}
	}
	r.push(proxytest.BuildKit, "other", "1", proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy}))
	large := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Repeat(" ", 100<<10))
	r.request(http.MethodPut, "/v2/app/manifests/2", large, "Content-Type", ociIndex).want(t, http.StatusTooManyRequests, "TOOMANYREQUESTS")
	for _, c := range open {
		c.Close()
	}
	r.request(http.MethodPut, "/v2/app/manifests/2", large, "Content-Type", ociIndex).want(t, http.StatusCreated)
}

// Whoever has one of the few places and hardly sends anything loses it, long before it would be cut off as a slow body.
func TestALargeManifestThatTricklesDoesNotHoldUpOthers(t *testing.T) {
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}))
	r.proxy.ManifestTime(time.Second)
	var open []net.Conn
	for range 8 {
		open = append(open, r.startManifest(100<<10)) // the rest never comes
	}
	large := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Repeat(" ", 100<<10))
	r.request(http.MethodPut, "/v2/app/manifests/2", large, "Content-Type", ociIndex).want(t, http.StatusCreated)
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(resp.Body)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(said), "the client sent less than the whole manifest while it was waited for for 1s") {
			t.Errorf("%s: %s", resp.Status, said)
		}
	}
}

// The time is the body's: that the registry takes longer for it is no fault of the client.
func TestALargeManifestThatCameInTimeMayTakeTheRegistryLonger(t *testing.T) {
	t.Parallel() // most of it is waiting
	const limit = 700 * time.Millisecond
	m := &moody{}
	r := newRig(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{Wrap: m.wrap}))
	r.proxy.ManifestTime(limit)
	m.mood.Store(&mood{is(http.MethodPut, "/manifests/"), func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		time.Sleep(2 * limit)
		next.ServeHTTP(w, r)
	}})
	large := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ociIndex, strings.Repeat(" ", 100<<10))
	r.request(http.MethodPut, "/v2/app/manifests/1", large, "Content-Type", ociIndex).want(t, http.StatusCreated)
}

// Nor are many large statements, which are read whole where nothing else says which image an attestation is about.
func TestFewLargeStatementsAreInMemoryAtOnce(t *testing.T) {
	driver := proxytest.NewFailingDriver(inmemory.New())
	h := newHolding(t, proxytest.NewOlareg(t, proxytest.UpstreamOptions{}), storage(driver))
	for n, c := range map[int]struct{ roomWhileRead bool }{100: {true}, 200 << 10: {false}} {
		st := statementOf(n, n)
		m := attestationNaming(int64(len(st)), st)
		if b, m := h.blob(st), h.manifest(m); b != http.StatusCreated || m != http.StatusCreated {
			t.Fatalf("the statement is answered %d, its attestation %d", b, m)
		}
		reading := make(chan struct{}, 100)
		goOn := driver.Hang(func(what string) bool {
			call, path, _ := strings.Cut(what, " ")
			hangs := (call == "GetContent" || call == "Reader.Read") && strings.HasSuffix(path, "/_blobs/sha256/"+strings.TrimPrefix(ocidoc.DigestOf(st), "sha256:"))
			if hangs {
				select {
				case reading <- struct{}{}:
				default:
				}
			}
			return hangs
		})
		done := make(chan int)
		go func() { done <- h.index([][]byte{m}, st) }()
		<-reading
		if room := h.proxy.RoomForBlobs(); room != c.roomWhileRead {
			t.Errorf("a statement of %d bytes is read and there is room for all that there may be: %t", len(st), room)
		}
		goOn()
		if status := <-done; status != http.StatusCreated {
			t.Errorf("the index is answered %d", status)
		}
		if !h.proxy.RoomForBlobs() {
			t.Error("the room is not given back")
		}
	}
}
