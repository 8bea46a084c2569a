package proxy_test

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"sluice/proxy/proxytest"
)

// Whoever begins uploads without end, and leaves each after its first bytes, costs upstream and the storage nothing and
// this process little: an upload is in its URL.
func TestUploadsThatAreBegunAndLeftCostLittle(t *testing.T) {
	const uploads, most = 20_000, 5 << 20
	tr := proxytest.NewTranscript()
	up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: tr.Upstream.Handler})
	r := newRig(t, up)
	ask := func(method, path, body string) *httptest.ResponseRecorder {
		w, req := httptest.NewRecorder(), httptest.NewRequest(method, path, strings.NewReader(body))
		req.Host = "localhost"
		r.proxy.Handler().ServeHTTP(w, req)
		return w
	}
	begin := func() {
		w := ask(http.MethodPost, "/v2/app/blobs/uploads/", "")
		if w.Code == http.StatusAccepted {
			w = ask(http.MethodPatch, w.Header().Get("Location"), "{") // too little to know what it is
		}
		if w.Code != http.StatusAccepted {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	used := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what has a finalizer
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	begin()
	r.proxy.Settle()
	before, asked := used(), tr.Upstream.Count()
	for range uploads {
		begin()
	}
	grown := used() - before - int64(r.log.Len())
	t.Logf("%d uploads: %d KiB more, %d requests upstream", uploads, grown>>10, tr.Upstream.Count()-asked)
	if grown > most {
		t.Errorf("%d bytes more after %d uploads, at most %d wanted", grown, uploads, most)
	}
	if n := tr.Upstream.Count() - asked; n > 20 { // one a minute
		t.Errorf("%d requests upstream", n)
	}
	if paths, err := r.storage.List(t.Context(), "/"); err == nil {
		for _, p := range paths {
			if strings.Contains(p, "quarantine") {
				t.Errorf("%s is in the storage", p)
			}
		}
	}
}
