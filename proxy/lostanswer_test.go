package proxy_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice/filters"
	"sluice/filters/ocidoc"
	"sluice/proxy/proxytest"
)

// A registry takes a layer, and its answer is lost: a body that streamed cannot be sent again, but the blob is there.
func TestALostAnswerToTheEndOfAnUploadIsNoFailureWhereTheBlobIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		takes  bool
		status int
	}{"it has the blob": {true, http.StatusCreated}, "it has nothing": {false, http.StatusBadGateway}} {
		t.Run(name, func(t *testing.T) {
			m := &moody{}
			r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: m.wrap}))
			m.mood.Store(&mood{is(http.MethodPut, "/blobs/uploads/"), func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
				if c.takes {
					next.ServeHTTP(httptest.NewRecorder(), r)
				}
				panic(http.ErrAbortHandler)
			}})
			layer := proxytest.RandomLayer("layer", "", 1, 1, 100<<10)
			r.request(http.MethodPut, put(r.upload("app"), layer.Digest), layer.Bytes()).want(t, c.status)
			if m.seen.Load() != 1 {
				t.Errorf("the end of the upload was sent %d times", m.seen.Load())
			}
		})
	}
}

// The same for what Sluice has held and sends itself, because a manifest that goes upstream refers to it.
func TestALostAnswerToAReleasedBlobIsNoFailureWhereItIsThere(t *testing.T) {
	m := &moody{}
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: m.wrap}))
	statement := fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","x":"%s"}`, strings.Repeat("x", 300<<10)) // it streams
	for _, b := range [][]byte{statement, []byte("{}")} {
		r.request(http.MethodPut, put(r.upload("app"), ocidoc.DigestOf(b)), b).want(t, http.StatusCreated)
	}
	m.mood.Store(&mood{func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.RawQuery, url.QueryEscape(ocidoc.DigestOf(statement)))
	}, func(_ http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	}})
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"text/plain","digest":%q,"size":%d}]}`,
		ocidoc.MediaTypeOCIManifest, filters.EmptyDigest, ocidoc.DigestOf(statement), len(statement))
	r.request(http.MethodPut, "/v2/app/manifests/1", manifest, "Content-Type", ocidoc.MediaTypeOCIManifest).want(t, http.StatusCreated)
	if m.seen.Load() != 1 {
		t.Errorf("the blob was sent %d times", m.seen.Load())
	}
	r.direct(http.MethodHead, "/v2/app/blobs/"+ocidoc.DigestOf(statement), nil).want(t, http.StatusOK)
}

// A registry, or what stands in front of it, says that it has the blob, and means another.
func TestALostAnswerIsNotMadeUpForByABlobOfAnotherSize(t *testing.T) {
	layer := proxytest.RandomLayer("layer", "", 1, 1, 100<<10)
	for length, status := range map[string]int{"": http.StatusCreated, fmt.Sprint(layer.Size): http.StatusCreated, "100": http.StatusBadGateway} {
		up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method == http.MethodPut:
					_, _ = io.Copy(io.Discard, r.Body)
					panic(http.ErrAbortHandler)
				case r.Method == http.MethodHead && length == "":
					w.(http.Flusher).Flush() // no Content-Length
				case r.Method == http.MethodHead:
					w.Header().Set("Content-Length", length)
				default:
					next.ServeHTTP(w, r)
				}
			})
		}})
		r := newRig(t, up)
		r.request(http.MethodPut, put(r.upload("app"), layer.Digest), layer.Bytes()).want(t, status)
		uploads["a PUT that does not say its length"](r, layer.Bytes()).want(t, status)
		chunked := r.request(http.MethodPatch, r.upload("app"), layer.Bytes()[:60<<10]).want(t, http.StatusAccepted).Header.Get("Location")
		r.request(http.MethodPut, put(chunked, layer.Digest), layer.Bytes()[60<<10:]).want(t, status)
	}
}

// A registry takes what is pushed, says so, and never ends what it says.
func TestAnAnswerWhoseBodyDoesNotEndHoldsNoPushUp(t *testing.T) {
	r, m, c, tree, plain := moodyRig(t)
	over := make(chan struct{})
	defer close(over)
	m.mood.Store(&mood{func(r *http.Request) bool { return r.Method == http.MethodPut }, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		taken := httptest.NewRecorder()
		next.ServeHTTP(taken, r)
		maps.Copy(w.Header(), taken.Header())
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(taken.Code)
		_, _ = w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // less than what a body that somebody wants may take
	defer cancel()
	if _, err := c.push(ctx, proxytest.Options{BaseURL: r.url(), Repository: "app", Tags: []string{"1"}, Tree: tree, Sequential: true}); err != nil {
		t.Fatal(err)
	}
	r.finished(tree, plain, c.act)
	m.check(r, c, tree, plain)
}
