package upstream

import (
	"errors"
	"io"
	"net/http"
	"testing"
)

// What stands before a registry may take the body before the registry asks for credentials (nginx says 100 Continue by
// itself). The first request after a start is lost then, in a way that clients repeat, and the next one has them.
func TestABodyThatWasTakenBeforeCredentialsWereAskedForIsToBeSentAgain(t *testing.T) {
	for _, scheme := range []string{"basic", "bearer"} {
		t.Run(scheme, func(t *testing.T) {
			f := newFake(t, &fake{scheme: scheme, allow: func(got string) bool { return got != "" }})
			next := f.Config.Handler
			f.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				next.ServeHTTP(w, r)
			})
			f.handle = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }
			r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: password("p")})
			patch := func() Request {
				return Request{Method: "PATCH", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true, Body: io.LimitReader(zeros{}, 1<<20), ContentLength: 1 << 20}
			}
			if _, err := r.Do(t.Context(), patch()); !errors.Is(err, ErrRenewed) {
				t.Fatalf("the first: %v", err)
			}
			do(t, r, http.StatusAccepted, patch())
		})
	}
}
