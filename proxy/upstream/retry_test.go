package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/proxy/internal/h1"
)

func TestWhatIsRepeated(t *testing.T) {
	get := Request{Repository: "app", Path: "manifests/1"}
	put := Request{Method: "PUT", Repository: "app", Path: "manifests/1", Push: true, Replay: []byte("{}")}
	post := Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true}
	patch := Request{Method: "PATCH", Repository: "app", Path: "blobs/uploads/1", Push: true, Replay: []byte("chunk")}
	del := Request{Method: "DELETE", Repository: "app", Path: "manifests/1", Push: true}
	cancel := Request{Method: "DELETE", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true}
	done := Request{Method: "PUT", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true}
	for name, c := range map[string]struct {
		q        Request
		answers  []int // the last one repeats; 0 = the connection is cut
		want     int   // 0 = ErrUnreachable
		requests int32
	}{
		"a GET after a 503":                       {get, []int{503, 200}, 200, 2},
		"a GET after 429, 502 and 504":            {get, []int{429, 502, 504, 200}, 200, 4},
		"a GET after cut connections":             {get, []int{0, 0, 200}, 200, 3},
		"a GET after a 408":                       {get, []int{408, 200}, 200, 2},
		"a POST after a 408":                      {post, []int{408, 202}, 202, 2},
		"a PATCH not after a 408":                 {patch, []int{408, 202}, 408, 1},
		"a PATCH after a 429, which took nothing": {patch, []int{429, 202}, 202, 2},
		"a whole blob after a 429":                {Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true, Replay: []byte("blob")}, []int{429, 201}, 201, 2},
		"a whole blob not after a 503":            {Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true, Replay: []byte("blob")}, []int{503, 201}, 503, 1},
		"a stream after a 429":                    {Request{Method: "PATCH", Repository: "app", Path: "x", Body: strings.NewReader(strings.Repeat("x", 1<<20)), ContentLength: 1 << 20}, []int{429, 202}, 202, 2},
		"a stream after a 408":                    {Request{Method: "PUT", Repository: "app", Path: "x", Body: strings.NewReader(strings.Repeat("x", 1<<20)), ContentLength: 1 << 20}, []int{408, 201}, 201, 2},
		"a GET gets the last 503 in the end":      {get, []int{503}, 503, retryAttempts},
		"a GET gives up":                          {get, []int{0}, 0, retryAttempts},
		"a GET not after a 500":                   {get, []int{500, 200}, 500, 1},
		"a GET not after a 404":                   {get, []int{404, 200}, 404, 1},
		"a manifest after a 503":                  {put, []int{503, 201}, 201, 2},
		"a manifest after a cut connection":       {put, []int{0, 201}, 201, 2},
		"an empty closing PUT":                    {done, []int{502, 201}, 201, 2},
		"a DELETE":                                {del, []int{503, 202}, 202, 2},
		"a DELETE whose answer was lost":          {del, []int{0, 404}, 202, 2},
		"a DELETE behind a front end":             {del, []int{504, 404}, 202, 2},
		"a DELETE that was turned away":           {del, []int{503, 404}, 404, 2},
		"a DELETE of nothing":                     {del, []int{404}, 404, 1},
		"a cancelled upload":                      {cancel, []int{0, 404}, 204, 2},
		"a GET that finds nothing after all":      {get, []int{0, 404}, 404, 2},
		"a POST not after an answer":              {post, []int{503, 202}, 503, 1},
		"a POST after a cut connection":           {post, []int{0, 202}, 202, 2},
		"a PATCH never, its bytes may be there":   {patch, []int{0, 202}, 0, 1},
		"a PATCH not after a 503":                 {patch, []int{503, 202}, 503, 1},
		"a small PUT stream, it was read first":   {Request{Method: "PUT", Repository: "app", Path: "x", Body: io.MultiReader(strings.NewReader("layer")), ContentLength: 5}, []int{0, 201}, 201, 2},
		"a stream before its first byte was read": {Request{Method: "PUT", Repository: "app", Path: "x", Body: strings.NewReader(strings.Repeat("x", 1<<20)), ContentLength: 1 << 20}, []int{0, 201}, 201, 2},
		"a stream not after a 503":                {Request{Method: "PUT", Repository: "app", Path: "x", Body: strings.NewReader(strings.Repeat("x", 1<<20)), ContentLength: 1 << 20}, []int{503, 201}, 503, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			u := raw(t, func(req *http.Request, br *bufio.Reader, conn net.Conn, _ int) bool {
				status := c.answers[min(int(n.Add(1)), len(c.answers))-1]
				if status == 0 {
					return false
				}
				if req.Header.Get("Expect") != "" && status < 300 {
					fmt.Fprint(conn, "HTTP/1.1 100 Continue\r\n\r\n")
				}
				if status < 300 || req.Header.Get("Expect") == "" {
					io.Copy(io.Discard, req.Body)
				}
				fmt.Fprintf(conn, "HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status)
				return false
			})
			r, clock := open(t, Options{URL: u, Credentials: Anonymous})
			resp, err := r.Do(context.Background(), c.q)
			switch {
			case c.want == 0:
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), r.Host()) {
					t.Errorf("error = %v", err)
				}
			case err != nil:
				t.Fatal(err)
			default:
				resp.Body.Close()
				if resp.StatusCode != c.want {
					t.Errorf("status %d, want %d", resp.StatusCode, c.want)
				}
			}
			if n.Load() != c.requests {
				t.Errorf("%d requests, want %d", n.Load(), c.requests)
			}
			var total time.Duration
			for i, d := range clock.slept {
				total += d
				if d < retryFirst/2 || i > 0 && d < clock.slept[i-1] {
					t.Errorf("waits = %v", clock.slept)
				}
			}
			if total > retryBudget {
				t.Errorf("waited %s", total)
			}
		})
	}
}

// An answer that somebody wants whole and that breaks off is no answer, as often as there may be none.
func TestAnAnswerThatIsWantedWholeAndBreaksOffIsAskedForAgain(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		broken int
		asked  int
		status int // 0: ErrUnreachable
	}{
		"once":                    {http.MethodGet, 1, 2, 200},
		"always":                  {http.MethodGet, 100, retryAttempts, 0},
		"what is not repeated":    {http.MethodPatch, 1, 1, 0},
		"behind a redirect, once": {http.MethodGet, 1, 3, 200},
	} {
		t.Run(name, func(t *testing.T) {
			var n, broken atomic.Int32
			u := raw(t, func(req *http.Request, _ *bufio.Reader, conn net.Conn, _ int) bool {
				n.Add(1)
				switch {
				case strings.HasPrefix(name, "behind") && req.URL.Path == "/v2/app/manifests/1":
					fmt.Fprint(conn, "HTTP/1.1 307 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
				case int(broken.Add(1)) <= c.broken:
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
					return false
				default:
					fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nthewhole")
				}
				return true
			})
			r, _ := open(t, Options{URL: u, Credentials: Anonymous})
			var got string
			resp, err := r.Do(t.Context(), Request{Method: c.method, Repository: "app", Path: "manifests/1", Follow: true, Read: func(resp *http.Response) error {
				b, err := io.ReadAll(resp.Body)
				got = string(b)
				return errors.Join(err, resp.Body.Close())
			}})
			switch {
			case c.status == 0:
				if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "broke off") {
					t.Errorf("error = %v", err)
				}
			case err != nil || resp.StatusCode != c.status || got != "thewhole":
				t.Errorf("%v, %q, %v", resp, got, err)
			}
			if int(n.Load()) != c.asked {
				t.Errorf("%d requests, want %d", n.Load(), c.asked)
			}
		})
	}
}

// A request that cannot be written is no fault of the connection.
func TestARequestThatNoServerCouldReadIsNotTriedAgain(t *testing.T) {
	var n atomic.Int32
	u := raw(t, func(*http.Request, *bufio.Reader, net.Conn, int) bool { n.Add(1); return false })
	r, clock := open(t, Options{URL: u, Credentials: Anonymous})
	if _, err := r.Do(t.Context(), Request{Repository: "app", Path: "tags/list", Header: http.Header{"Accept": {"a\x00b"}}}); !errors.Is(err, h1.ErrBadRequest) {
		t.Errorf("%v", err)
	}
	if n.Load() != 0 || len(clock.slept) != 0 {
		t.Errorf("%d requests, and it was tried again %d times", n.Load(), len(clock.slept))
	}
}

func TestRetryAfterIsHonouredWithinTheBudget(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		waits  []time.Duration
		status int
	}{
		"seconds":          {"3", []time.Duration{3 * time.Second}, 200},
		"a date":           {"Fri, 20 Nov 2026 12:00:04 GMT", []time.Duration{4 * time.Second}, 200},
		"longer than that": {"60", nil, 429},
		"nonsense":         {"soon", []time.Duration{75 * time.Millisecond}, 200},
		"negative":         {"-5", []time.Duration{75 * time.Millisecond}, 200},
		"a date gone by":   {"Fri, 20 Nov 2026 11:00:00 GMT", []time.Duration{75 * time.Millisecond}, 200},
		"a far date":       {"Fri, 31 Dec 9999 23:59:59 GMT", nil, 429},
		"a large number":   {"9999999999", nil, 429},
		"a larger one":     {"99999999999999999999999", nil, 429},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			var clock *clock
			f := newFake(t, &fake{handle: func(w http.ResponseWriter, r *http.Request) {
				clock.add(time.Millisecond)
				if n.Add(1) == 1 {
					w.Header().Set("Date", "Fri, 20 Nov 2026 12:00:00 GMT")
					w.Header().Set("Retry-After", c.header)
					w.WriteHeader(429)
				}
			}})
			var r *Registry
			r, clock = open(t, Options{URL: f.URL, Credentials: Anonymous})
			resp, _ := do(t, r, c.status, Request{Repository: "app", Path: "tags/list"})
			if c.status == 429 && resp.Header.Get("Retry-After") != c.header {
				t.Error("Retry-After is lost")
			}
			if fmt.Sprint(clock.slept) != fmt.Sprint(c.waits) {
				t.Errorf("waits = %v, want %v", clock.slept, c.waits)
			}
		})
	}
}

func TestAnIdleConnectionThatWasClosedCostsNoUpload(t *testing.T) {
	// The server closes after each answer without saying so; the transport learns it while sending.
	var n atomic.Int32
	u := raw(t, func(req *http.Request, br *bufio.Reader, c net.Conn, _ int) bool {
		n.Add(1)
		if req.Header.Get("Expect") != "" {
			fmt.Fprint(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		io.Copy(io.Discard, req.Body)
		fmt.Fprint(c, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		return false
	})
	r, _ := open(t, Options{URL: u, Credentials: Anonymous})
	for range 20 {
		do(t, r, 201, upload(io.LimitReader(zeros{}, layerSize)))
		do(t, r, 201, Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true})
	}
	if n.Load() != 40 {
		t.Errorf("%d requests", n.Load())
	}
}

// A registry ends a connection that was idle, after it has done what was asked on it.
func TestADeleteOnAConnectionThatEndsIsASuccess(t *testing.T) {
	var gone atomic.Bool
	u := raw(t, func(req *http.Request, _ *bufio.Reader, c net.Conn, _ int) bool {
		status := http.StatusOK
		if req.Method == http.MethodDelete {
			if !gone.Swap(true) {
				return false
			}
			status = http.StatusNotFound
		}
		fmt.Fprintf(c, "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", status)
		return true
	})
	r, _ := open(t, Options{URL: u, Credentials: Anonymous})
	do(t, r, http.StatusOK, Request{Repository: "app", Path: "tags/list"})
	do(t, r, http.StatusAccepted, Request{Method: http.MethodDelete, Repository: "app", Path: "manifests/1", Push: true})
}

// Answers that say "later" and take their time: in the end there is time for another request, and none for the pause before
// it. Then the last answer is what there is.
func TestTheLastAnswerIsPassedOnWhereThePauseDoesNotFit(t *testing.T) {
	var clock *clock
	f := newFake(t, &fake{})
	f.handle = func(w http.ResponseWriter, _ *http.Request) {
		clock.add(3250 * time.Millisecond) // the third ends just before the budget does
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte("busy"))
	}
	var r *Registry
	r, clock = open(t, Options{URL: f.URL, Credentials: Anonymous})
	if _, body := do(t, r, http.StatusServiceUnavailable, Request{Repository: "app", Path: "tags/list"}); string(body) != "busy" {
		t.Errorf("body %q", body)
	}
	if n := len(f.requests()); n != 3 {
		t.Errorf("%d requests", n)
	}
}

func TestATokenServiceThatIsSlowAndBusyIsAnError(t *testing.T) {
	var clock *clock
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer t1")})
	f.grant = func(int) (int, map[string]any) {
		clock.add(3250 * time.Millisecond)
		return http.StatusServiceUnavailable, nil
	}
	var r *Registry
	r, clock = open(t, Options{URL: f.URL, Credentials: Anonymous})
	if _, err := r.Do(context.Background(), Request{Repository: "app", Path: "tags/list"}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
	if n := len(f.tokenRequests()); n != 3 {
		t.Errorf("%d requests", n)
	}
}
