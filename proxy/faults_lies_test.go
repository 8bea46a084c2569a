package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/proxy/proxytest"
)

// A sent thing is content on its way to the place where it belongs.
type sentThing struct {
	method, path string // path as it is requested
	mediaType    string
	content      []byte
	digest       string
}

// A lie is how a client sends it: head is its request line and headers but for those about the length.
type lie struct {
	name string
	tell func(conn *net.TCPConn, head string, content []byte)
}

var lies = []lie{
	{"other content", func(conn *net.TCPConn, head string, content []byte) {
		_, _ = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s ", head, len(content)+1, content)
	}},
	{"more announced than sent", func(conn *net.TCPConn, head string, content []byte) {
		_, _ = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(content)+100, content)
	}},
	{"less announced than sent", func(conn *net.TCPConn, head string, content []byte) {
		_, _ = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(content)-10, content)
	}},
	{"chunks that do not end", func(conn *net.TCPConn, head string, content []byte) {
		_, _ = fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", head, len(content), content)
	}},
	{"chunks that end early", func(conn *net.TCPConn, head string, content []byte) {
		_, _ = fmt.Fprintf(conn, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head, len(content)/2, content[:len(content)/2])
	}},
	{"hangs up in the middle", func(conn *net.TCPConn, head string, content []byte) {
		_, _ = fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(content), content[:len(content)/2])
		_ = conn.SetLinger(0) // the proxy sees a reset
	}},
}

// told is the answer to a lie, read when the proxy has done with it.
func (r *rig) told(l lie, s sentThing, ended *atomic.Int64) string {
	r.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url(), "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	before := ended.Load()
	l.tell(conn.(*net.TCPConn), fmt.Sprintf("%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n", s.method, s.path, s.mediaType), s.content)
	var answer []byte
	if strings.HasPrefix(l.name, "hangs up") {
		conn.Close()
	} else {
		_ = conn.(*net.TCPConn).CloseWrite()
		answer, _ = io.ReadAll(conn) // however it ends
	}
	eventually(r.t, "the end of the request", func() bool { return ended.Load() > before })
	return string(answer)
}

// countEnds tells how many requests have come to their end.
func countEnds() (setting, *atomic.Int64) {
	ended := &atomic.Int64{}
	return before(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer ended.Add(1)
			next.ServeHTTP(w, r)
		})
	}), ended
}

// sends brings what a document needs to be there before it.
func (r *rig) sends(tree *proxytest.Tree, until *proxytest.Manifest) {
	r.t.Helper()
	for _, b := range tree.Blobs() {
		r.request(http.MethodPut, put(r.upload("app"), b.Digest), b.Bytes()).want(r.t, http.StatusCreated)
	}
	for _, m := range tree.Manifests() {
		if m == until {
			return
		}
		r.request(http.MethodPut, "/v2/app/manifests/"+m.Digest, m.Bytes(), "Content-Type", m.MediaType).want(r.t, http.StatusCreated)
	}
}

// I2, I6, I7: whatever a client says of what is kept here, or judged here, it is kept and forwarded whole or not at all,
// and the honest push after it ends well.
func TestWhatIsNotWhatTheClientSaidIsNowhere(t *testing.T) {
	for name, thing := range map[string]struct {
		size   int      // of statements
		honest []string // what is no lie here, since nothing is said of the content
		of     func(r *rig, tree *proxytest.Tree) sentThing
	}{
		"a statement":       {0, nil, wholeStatement},
		"a large statement": {300 << 10, nil, wholeStatement},
		"a chunk of a statement": {0, []string{"other content", "less announced than sent", "chunks that end early"}, func(r *rig, tree *proxytest.Tree) sentThing {
			b := tree.Statements()[0]
			return sentThing{http.MethodPatch, r.upload("app"), "application/octet-stream", b.Bytes(), b.Digest}
		}},
		"a configuration of an attestation": {0, nil, func(r *rig, tree *proxytest.Tree) sentThing {
			b := tree.Attestations()[0].Config
			return sentThing{http.MethodPut, put(r.upload("app"), b.Digest), "application/octet-stream", b.Bytes(), b.Digest}
		}},
		"an image":                {0, nil, document(func(tree *proxytest.Tree) *proxytest.Manifest { return tree.Images()[0] }, "")},
		"an attestation manifest": {0, nil, document(func(tree *proxytest.Tree) *proxytest.Manifest { return tree.Attestations()[0] }, "")},
		"an index by its digest":  {0, nil, document(func(tree *proxytest.Tree) *proxytest.Manifest { return tree.Root }, "")},
		"an index under a tag":    {0, []string{"other content"}, document(func(tree *proxytest.Tree) *proxytest.Manifest { return tree.Root }, "1")},
	} {
		for _, l := range lies {
			if slices.Contains(thing.honest, l.name) {
				continue
			}
			c := ordinary
			c.options.StatementSize = thing.size
			t.Run(name+", "+l.name, func(t *testing.T) {
				t.Parallel()
				counting, ended := countEnds()
				r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), counting)
				tree, plain := c.trees()
				s := thing.of(r, tree)
				isDocument := strings.Contains(s.path, "/manifests/")
				if answer := r.told(l, s, ended); strings.HasPrefix(answer, "HTTP/1.1 2") {
					t.Errorf("it is answered %.300s", answer)
				}
				r.proxy.Settle()
				where := "/v2/app/blobs/" + s.digest
				if isDocument {
					where = "/v2/app/manifests/" + s.digest
				}
				r.request(http.MethodHead, where, nil, acceptAll...).want(t, http.StatusNotFound)
				r.direct(http.MethodHead, where, nil, acceptAll...).want(t, http.StatusNotFound)
				r.direct(http.MethodHead, "/v2/app/manifests/1", nil, acceptAll...).want(t, http.StatusNotFound)
				r.holdsNow(plain)
				if err := c.try(r, tree); err != nil {
					t.Fatalf("the honest push fails: %v", err)
				}
				r.quiet(nil)
				r.holdsNow(plain)
				r.finished(tree, plain, c.act)
			})
		}
	}
}

func wholeStatement(r *rig, tree *proxytest.Tree) sentThing {
	b := tree.Statements()[0]
	return sentThing{http.MethodPut, put(r.upload("app"), b.Digest), "application/octet-stream", b.Bytes(), b.Digest}
}

// document is one of the tree's, with all there that it needs.
func document(which func(*proxytest.Tree) *proxytest.Manifest, tag string) func(*rig, *proxytest.Tree) sentThing {
	return func(r *rig, tree *proxytest.Tree) sentThing {
		m := which(tree)
		r.sends(tree, m)
		reference := m.Digest
		if tag != "" {
			reference = tag
		}
		return sentThing{http.MethodPut, "/v2/app/manifests/" + reference, m.MediaType, m.Bytes(), m.Digest}
	}
}

// I7: a chunk that comes again, since its answer was lost, is not there twice, and a client that asks learns where to go on.
func TestAChunkOfAStatementThatIsRepeatedIsThereOnce(t *testing.T) {
	for name, size := range map[string]int{"small": 0, "large": 700 << 10} {
		t.Run(name, func(t *testing.T) {
			c := ordinary
			c.options.StatementSize = size
			tree, plain := c.trees()
			counting, ended := countEnds()
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{}), counting)
			b := tree.Statements()[0]
			half := len(b.Bytes()) / 2
			ranges := fmt.Sprintf("0-%d", half-1)

			first := r.upload("app")
			second := r.request(http.MethodPatch, first, b.Bytes()[:half], "Content-Range", ranges).want(t, http.StatusAccepted).Header.Get("Location")
			for what, a := range map[string]*answer{
				"to the same URL":       r.request(http.MethodPatch, first, b.Bytes()[:half], "Content-Range", ranges),
				"without a range":       r.request(http.MethodPatch, first, b.Bytes()[:half]),
				"to the URL of now":     r.request(http.MethodPatch, second, b.Bytes()[:half], "Content-Range", ranges),
				"one that leaves a gap": r.request(http.MethodPatch, second, b.Bytes()[half+1:], "Content-Range", fmt.Sprintf("%d-%d", half+1, len(b.Bytes())-1)),
			} {
				a.want(t, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID")
				if got := a.Header.Get("Range"); got != ranges {
					t.Errorf("%s: the client is told that %s has arrived, want %s", what, got, ranges)
				}
			}
			// The rest breaks off, and the client asks how far it has come.
			r.told(lies[len(lies)-1], sentThing{method: http.MethodPatch, path: second, content: b.Bytes()[half:]}, ended)
			a := r.request(http.MethodGet, second, nil).want(t, http.StatusNoContent)
			if got := a.Header.Get("Range"); got != ranges {
				t.Errorf("after half a chunk %s has arrived, want %s", got, ranges)
			}
			third := r.request(http.MethodPatch, a.Header.Get("Location"), b.Bytes()[half:]).want(t, http.StatusAccepted).Header.Get("Location")
			for range 2 { // the answer to the first may have been lost
				r.request(http.MethodPut, put(third, b.Digest), nil).want(t, http.StatusCreated)
			}
			if a := r.request(http.MethodGet, "/v2/app/blobs/"+b.Digest, nil).want(t, http.StatusOK); string(a.body) != string(b.Bytes()) {
				t.Error("it has other bytes")
			}
			if err := c.try(r, tree); err != nil {
				t.Fatal(err)
			}
			r.quiet(nil)
			r.holdsNow(plain)
			r.finished(tree, plain, c.act)
		})
	}
}
