package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/proxy/internal/h1"
)

// closings are the ways in which clients end an upload without a body that streams.
func closings() map[string]Request {
	return map[string]Request{
		"empty":        {Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1?digest=x", Push: true, Body: http.NoBody},
		"a short tail": {Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1?digest=x", Push: true, Body: io.MultiReader(strings.NewReader("tail")), ContentLength: 4},
		"at hand":      {Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1?digest=x", Push: true, Replay: []byte("tail"), ContentLength: 4},
	}
}

// A registry on object storage copies a layer before it answers the request that ends its upload, also an empty one.
func TestTheEndOfAnUploadMayTakeLongerThanOtherRequests(t *testing.T) {
	for name, q := range closings() {
		t.Run(name, func(t *testing.T) {
			copying, copied := make(chan struct{}), make(chan struct{})
			f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					_, _ = io.Copy(io.Discard, r.Body)
					close(copying)
				}
				<-copied
				w.WriteHeader(http.StatusCreated)
			}})
			r, _ := open(t, Options{URL: f.URL, Credentials: Anonymous})
			r.quick.(*h1.Client).HeaderTimeout = 50 * time.Millisecond
			ended := make(chan error, 1)
			go func() {
				resp, err := r.Do(t.Context(), q)
				if err == nil {
					err = resp.Body.Close()
				}
				ended <- err
			}()
			select {
			case <-copying:
			case err := <-ended:
				t.Fatalf("it ended with %v", err)
			}
			// What began later has had its time.
			if _, err := r.Do(t.Context(), Request{Repository: "app", Path: "tags/list"}); !errors.Is(err, errHeaderTimeout) {
				t.Errorf("another request: %v", err)
			}
			close(copied)
			if err := <-ended; err != nil {
				t.Errorf("the end of the upload: %v", err)
			}
		})
	}
}

// The same over a transport that bounds nothing itself: the embedded registry's.
func TestTheEndOfAnUploadHasItsTimeOverAnyTransport(t *testing.T) {
	other := Request{Method: "PUT", Repository: "app", Path: "manifests/1", Push: true, Replay: []byte("{}")}
	for name := range closings() {
		synctest.Test(t, func(t *testing.T) {
			var takes time.Duration
			r, err := New(Options{URL: "https://registry.example.com", Credentials: Anonymous, Transport: transportFunc(func(req *http.Request) (*http.Response, error) {
				select {
				case <-time.After(takes): // of the test's own clock
					return &http.Response{StatusCode: http.StatusCreated, Header: http.Header{}, Body: http.NoBody}, nil
				case <-req.Context().Done():
					return nil, errHeaderTimeout
				}
			})})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []struct {
				q     Request
				takes time.Duration
				ok    bool
			}{{closings()[name], 14 * time.Minute, true}, {closings()[name], 16 * time.Minute, false}, {other, 59 * time.Second, true}, {other, 61 * time.Second, false}} {
				takes = c.takes
				if _, err := r.Do(t.Context(), c.q); (err == nil) != c.ok || err != nil && !errors.Is(err, errHeaderTimeout) {
					t.Errorf("%s, %s %s that takes %s: %v", name, c.q.Method, c.q.Path, takes, err)
				}
			}
			_ = r.Close()
		})
	}
}
