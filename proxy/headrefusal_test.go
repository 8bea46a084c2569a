package proxy_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"sluice/proxy/proxytest"
)

// A registry may refuse the HEAD by which Sluice finds out whether it may answer by itself, without a body and with the
// length of one. The client hears of it in words, whatever it asked for, and not that nothing is there: that is final.
func TestARefusedHEADIsToldToWhoAskedForSomethingElse(t *testing.T) {
	for status, tt := range map[int]struct {
		answer int
		code   string
	}{
		http.StatusBadRequest:        {http.StatusBadRequest, "UNKNOWN"},
		http.StatusForbidden:         {http.StatusForbidden, "DENIED"},
		http.StatusMethodNotAllowed:  {http.StatusMethodNotAllowed, "UNSUPPORTED"},
		http.StatusTemporaryRedirect: {http.StatusBadGateway, "UNAVAILABLE"},
		http.StatusNotFound:          {http.StatusNotFound, "MANIFEST_UNKNOWN"}, // the one that says that it is gone
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			var on atomic.Bool
			up := proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					if !on.Load() || q.Method != http.MethodHead {
						next.ServeHTTP(w, q)
						return
					}
					w.Header().Set("Content-Type", "text/plain")
					w.Header().Set("Content-Length", "100")
					w.Header().Set("Retry-After", "7")
					w.WriteHeader(status)
				})
			}})
			r := newRig(t, up)
			tree := proxytest.Synthetic(proxytest.SyntheticOptions{Form: proxytest.FormLegacy, Platforms: []string{"linux/amd64"}})
			r.push(proxytest.BuildKit, "app", "1", tree)
			on.Store(true)
			original := "/v2/app/manifests/" + tree.Digest()
			a := r.request(http.MethodGet, original, nil, acceptAll...).want(t, tt.answer, tt.code)
			if got := a.Header.Get("Content-Type"); got != "application/json" {
				t.Errorf("the refusal is %s", got)
			}
			if status != http.StatusNotFound {
				if got := a.Header.Get("Retry-After"); got != "7" {
					t.Errorf("upstream's Retry-After has become %q", got)
				}
				r.request(http.MethodDelete, original, nil).want(t, tt.answer, tt.code)
			}
			on.Store(false)
			if got := r.request(http.MethodGet, original, nil, acceptAll...).want(t, http.StatusOK); string(got.body) != string(tree.Root.Bytes()) {
				t.Errorf("the original has become %s", got.body)
			}
		})
	}
}
