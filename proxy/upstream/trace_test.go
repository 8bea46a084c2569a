package upstream

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// tracing tells the registry of a trace as OpenTelemetry does, in the header of the request that it is given.
type tracing struct{}

func (tracing) Sent(req *http.Request, _ string, own bool) (*http.Request, func(int, error)) {
	req = req.WithContext(req.Context())
	if own {
		req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		req.Header.Set("Tracestate", "vendor=secret")
	}
	return req, func(int, error) {}
}

func TestATraceEndsAtTheRegistrysOwnHost(t *testing.T) {
	var asked atomic.Int32
	store := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		for _, name := range []string{"Traceparent", "Tracestate"} {
			if v := r.Header.Get(name); v != "" {
				t.Errorf("another host was told %s: %s", name, v)
			}
		}
	}))
	defer store.Close()
	f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Traceparent") == "" || r.Header.Get("Tracestate") == "" {
			t.Error("the registry was not told of the trace")
		}
		if r.URL.Path == "/v2/app/blobs/one" {
			http.Redirect(w, r, "two", http.StatusTemporaryRedirect)
			return
		}
		http.Redirect(w, r, store.URL+"/blob", http.StatusTemporaryRedirect)
	}})
	r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous, Redirects: "follow", Tracer: tracing{}})
	do(t, r, 200, Request{Repository: "app", Path: "blobs/one"})
	same(t, f.requests(), "GET app/blobs/one ", "GET app/blobs/two ")
	if asked.Load() != 1 {
		t.Errorf("the other host was asked %d times", asked.Load())
	}
}
