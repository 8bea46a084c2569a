package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A registry that refuses in the middle of a body says why, and the client must be able to read it: also one
// that looks at the answer only after its last byte.
func TestStreamErrorOfUpstreamReachesAClientThatKeepsSending(t *testing.T) {
	const size = 8 * mib // within what is drained (drainBytes, drainTime)
	const reason = `{"errors":[{"code":"DENIED","message":"quota of the repository is used up"}]}`
	refuse := func(w http.ResponseWriter, status int) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, reason)
	}
	for _, c := range []struct {
		name   string
		take   func(w http.ResponseWriter, r *http.Request)
		status int
		code   string
		body   string
	}{
		{"before the first byte", func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusForbidden) }, http.StatusForbidden, "DENIED", reason},
		{"after a MiB", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, mib)
			refuse(w, http.StatusRequestEntityTooLarge)
		}, http.StatusRequestEntityTooLarge, "DENIED", reason},
		{"after the last byte", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			refuse(w, http.StatusInternalServerError)
		}, http.StatusInternalServerError, "DENIED", reason},
		{"by cutting the connection", func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, mib)
			panic(http.ErrAbortHandler)
		}, http.StatusBadGateway, "UNAVAILABLE", ""},
	} {
		for _, w := range ways {
			t.Run(c.name+", "+w.name, func(t *testing.T) {
				r := newRig(t, newSink(t, func(rw http.ResponseWriter, req *http.Request) bool {
					c.take(rw, req)
					return true
				}))
				front := serve(t, r.proxy.Handler())
				u := w.begin(t, front.URL, "app", layerDigest(size), size)
				if err := u.sendAll(size); err != nil {
					t.Fatalf("the client sees %v instead of the reason", err)
				}
				a := u.answer().want(t, c.status, c.code)
				if c.body != "" && !bytes.Equal(a.body, []byte(c.body)) {
					t.Errorf("answer is %s, upstream said %s", a.body, c.body)
				}
				if got := a.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/json") {
					t.Errorf("Content-Type of the answer is %q", got)
				}
			})
		}
	}
}

// A client that sends more than is drained is cut off, but not before it was told.
func TestStreamErrorOfUpstreamReachesAClientThatListensWhileItSends(t *testing.T) {
	const size = 256 * mib
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			r := newRig(t, newSink(t, func(rw http.ResponseWriter, req *http.Request) bool {
				_, _ = io.CopyN(io.Discard, req.Body, mib)
				rw.WriteHeader(http.StatusForbidden)
				_, _ = io.WriteString(rw, `{"errors":[{"code":"DENIED","message":"no"}]}`)
				return true
			}))
			front := serve(t, r.proxy.Handler())
			u := w.begin(t, front.URL, "app", layerDigest(1), size)
			sending := make(chan error, 1)
			go func() { sending <- u.sendAll(size) }()
			u.answer().want(t, http.StatusForbidden, "DENIED")
			if err := receive(t, "the end of sending", sending); err == nil {
				t.Errorf("all %d MiB of a refused layer were read", size/mib)
			}
		})
	}
}
