package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/proxy/ecrsim"
)

// scripted is a registry without a network, so that time can stand still.
type scripted struct {
	mu     sync.Mutex
	start  time.Time
	log    []string // "<time since start> <method> <path>"
	answer func(n int, req *http.Request) int
}

func (s *scripted) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	s.log = append(s.log, time.Since(s.start).String()+" "+req.Method+" "+strings.TrimPrefix(req.URL.Path, "/v2/"))
	n := len(s.log)
	s.mu.Unlock()
	if req.Body != nil {
		_, _ = io.Copy(io.Discard, req.Body)
		_ = req.Body.Close()
	}
	status := http.StatusCreated
	if s.answer != nil {
		status = s.answer(n, req)
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: http.NoBody, Request: req}, nil
}

const ecrURL = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com"

// paceTest is a registry in a bubble of its own time.
func paceTest(t *testing.T, o Options, s *scripted, f func(t *testing.T, r *Registry)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s.start = time.Now()
		if o.URL == "" {
			o.URL = ecrURL
		}
		o.Credentials, o.Transport = Anonymous, s
		r, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		r.jitter = func() float64 { return 1 }
		defer r.Close()
		f(t, r)
	})
}

func putTag(repo string) Request {
	return Request{Method: "PUT", Repository: repo, Path: "manifests/1", Push: true, Replay: []byte("{}")}
}

func TestManifestsKeepUnderTheQuotaOfECR(t *testing.T) {
	s := &scripted{}
	paceTest(t, Options{}, s, func(t *testing.T, r *Registry) {
		var wg sync.WaitGroup
		for range 35 {
			wg.Go(func() { do(t, r, 201, putTag("app")) })
		}
		wg.Wait()
		perSecond := map[string]int{}
		for _, l := range s.log {
			at, _, _ := strings.Cut(l, " ")
			perSecond[at]++
		}
		if perSecond["0s"] != 10 || perSecond["1s"] != 10 || perSecond["2s"] != 10 || perSecond["3s"] != 5 {
			t.Errorf("PutImage per second: %v", perSecond)
		}
	})
}

// The double counts as ECR does; a burst of manifests that is not paced is refused there.
func TestAPacedBurstIsNeverRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		rates   map[string]int
		refused bool
	}{
		"paced":     {nil, false},
		"not paced": {map[string]int{"put_image": 0}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sim, err := ecrsim.New(ecrsim.Options{})
				if err != nil {
					t.Fatal(err)
				}
				defer sim.Close()
				user, password := sim.Password(ecrsim.DefaultAccessKey)
				var refused atomic.Int64
				r, err := New(Options{
					URL: "https://" + ecrsim.Host(ecrsim.DefaultAccount, ecrsim.DefaultRegion), Credentials: Basic, Username: user,
					Password: func() (string, error) { return password, nil }, Rates: tt.rates,
					Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
						rec := httptest.NewRecorder()
						in := req.Clone(req.Context())
						if in.Body == nil {
							in.Body = http.NoBody
						}
						sim.Registry().ServeHTTP(rec, in)
						if rec.Code == http.StatusTooManyRequests {
							refused.Add(1)
						}
						resp := rec.Result()
						resp.Request = req
						return resp, nil
					}),
				})
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				var wg sync.WaitGroup
				for range 35 {
					wg.Go(func() {
						resp, err := r.Do(t.Context(), putTag("app")) // which is no image, but counted
						if err != nil {
							t.Error(err)
							return
						}
						Discard(resp)
					})
				}
				wg.Wait()
				if got := refused.Load() > 0; got != tt.refused {
					t.Errorf("%d requests were refused", refused.Load())
				}
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestALargePushDoesNotKeepASmallOneWaiting(t *testing.T) {
	s := &scripted{}
	paceTest(t, Options{Rates: map[string]int{"put_image": 1}}, s, func(t *testing.T, r *Registry) {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { do(t, r, 201, putTag("large")) })
		}
		synctest.Wait()
		for range 2 {
			wg.Go(func() { do(t, r, 201, putTag("small")) })
		}
		wg.Wait()
		same(t, s.log[:6],
			"0s PUT large/manifests/1", "1s PUT large/manifests/1", "2s PUT small/manifests/1", "3s PUT large/manifests/1",
			"4s PUT small/manifests/1", "5s PUT large/manifests/1")
	})
}

func TestWhatDoesNotFitIsToldWhenToCome(t *testing.T) {
	s := &scripted{}
	paceTest(t, Options{Rates: map[string]int{"put_image": 1}}, s, func(t *testing.T, r *Registry) {
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { do(t, r, 201, putTag("app")) })
		}
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		wg.Go(func() { do(t, r, 201, putTag("app")) }) // after 9.5 s
		time.Sleep(100 * time.Millisecond)
		start := time.Now()
		resp, body := do(t, r, 429, putTag("app"))
		if took := time.Since(start); took != retryBudget || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("after %s, Retry-After %q", took, resp.Header.Get("Retry-After"))
		}
		for _, part := range []string{`"TOOMANYREQUESTS"`, "repository app", "rate of 1 put_image per second", "upstreams[].rates"} {
			if !strings.Contains(string(body), part) {
				t.Errorf("no %s in %s", part, body)
			}
		}
		wg.Wait()
		do(t, r, 201, putTag("app")) // and later there is room
	})
}

// BuildKit comes again at once, and gives up after five answers.
func TestABurstArrivesAlthoughItsClientsDoNotLookAtRetryAfter(t *testing.T) {
	s := &scripted{}
	paceTest(t, Options{Rates: map[string]int{"put_image": 2}}, s, func(t *testing.T, r *Registry) {
		var wg sync.WaitGroup
		for range 90 { // 45 s of the rate
			wg.Go(func() {
				for try := 0; ; try++ {
					resp, err := r.Do(t.Context(), putTag("app"))
					if err != nil {
						t.Error(err)
						return
					}
					resp.Body.Close()
					if resp.StatusCode == 201 {
						return
					}
					if try == 5 {
						t.Errorf("%s after %s", resp.Status, time.Since(s.start))
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// Who was due in time may be overtaken by other repositories, but waits no longer than he was promised.
func TestOthersMayComeInBetweenUntilPatienceEnds(t *testing.T) {
	s := &scripted{}
	paceTest(t, Options{Rates: map[string]int{"put_image": 1}}, s, func(t *testing.T, r *Registry) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		outcomes := map[string]int{}
		push := func(repo string) {
			wg.Go(func() {
				start := time.Now()
				resp, err := r.Do(t.Context(), putTag(repo))
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				mu.Lock()
				defer mu.Unlock()
				outcomes[repo+" "+resp.Status]++
				if took := time.Since(start); took > retryBudget || resp.StatusCode == 429 && took != retryBudget {
					t.Errorf("%s %s after %s", repo, resp.Status, took)
				}
			})
		}
		do(t, r, 201, putTag("first"))
		for range 9 { // all due in time
			push("a")
		}
		synctest.Wait()
		for range 4 {
			push("b")
		}
		wg.Wait()
		if outcomes["b Created"] != 4 || outcomes["a Created"] < 5 || outcomes["a 429 Too Many Requests"] < 3 { // what is due at 10 s may go either way
			t.Errorf("outcomes %v", outcomes)
		}
	})
}

func TestAClientThatHangsUpLeavesTheQueue(t *testing.T) {
	s := &scripted{}
	paceTest(t, Options{Rates: map[string]int{"put_image": 1}}, s, func(t *testing.T, r *Registry) {
		do(t, r, 201, putTag("app"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := r.Do(ctx, putTag("app"))
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		do(t, r, 201, putTag("app"))
		same(t, s.log, "0s PUT app/manifests/1", "1s PUT app/manifests/1")
	})
}

func TestAStreamWaitsWithItsFirstByteUnread(t *testing.T) {
	s := &scripted{}
	paceTest(t, Options{Rates: map[string]int{"upload_layer_part": 1}}, s, func(t *testing.T, r *Registry) {
		patch := func(body io.Reader) Request {
			return Request{Method: "PATCH", Repository: "app", Location: "/v2/app/blobs/uploads/1", Push: true, Body: body, ContentLength: 1 << 20}
		}
		do(t, r, 201, patch(strings.NewReader(strings.Repeat("x", 1<<20))))
		c := &counter{r: strings.NewReader(strings.Repeat("x", 1<<20))}
		var wg sync.WaitGroup
		wg.Go(func() { do(t, r, 201, patch(c)) })
		synctest.Wait()
		if c.read() != 0 {
			t.Errorf("%d bytes were read before the turn", c.read())
		}
		wg.Wait()
		if c.read() != 1<<20 {
			t.Errorf("%d bytes were read", c.read())
		}
	})
}

func TestRateExceededSlowsEveryRequestOfTheAction(t *testing.T) {
	s := &scripted{answer: func(n int, req *http.Request) int {
		switch {
		case n == 1:
			return http.StatusTooManyRequests // somebody else uses the account, too
		case req.Method == http.MethodGet:
			return http.StatusOK
		}
		return http.StatusCreated
	}}
	paceTest(t, Options{Rates: map[string]int{"put_image": 4}}, s, func(t *testing.T, r *Registry) {
		var wg sync.WaitGroup
		wg.Go(func() { do(t, r, 201, putTag("refused")) }) // repeated
		synctest.Wait()
		for range 3 {
			wg.Go(func() { do(t, r, 201, putTag("others")) })
		}
		wg.Go(func() { do(t, r, 200, Request{Repository: "others", Path: "manifests/1"}) }) // another action
		wg.Wait()
		slices.Sort(s.log)
		same(t, s.log, "0s GET others/manifests/1", "0s PUT refused/manifests/1",
			"1s PUT others/manifests/1", "1s PUT others/manifests/1", "1s PUT refused/manifests/1", "2s PUT others/manifests/1")
	})
}

func TestAnUploadSessionIsOpenedAgainAfterATooManyRequests(t *testing.T) {
	s := &scripted{answer: func(n int, _ *http.Request) int {
		if n == 1 {
			return http.StatusTooManyRequests
		}
		return http.StatusAccepted
	}}
	paceTest(t, Options{}, s, func(t *testing.T, r *Registry) {
		do(t, r, 202, Request{Method: "POST", Repository: "app", Path: "blobs/uploads/", Push: true})
		same(t, s.log, "0s POST app/blobs/uploads/", "1s POST app/blobs/uploads/")
	})
}

// What pacing adds to a request whose turn it is at once, or which no rate limits.
func BenchmarkPace(b *testing.B) {
	for name, rate := range map[string]int{"unlimited": 0, "uncontended": maxRate} {
		b.Run(name, func(b *testing.B) {
			p := newPacer([actions]int{putImage: rate}, time.Now)
			g := p[putImage]
			if g == nil {
				b.ReportAllocs()
				for b.Loop() {
					if actionsOf("PUT", "/v2/team/app/manifests/1", true)[0] != putImage || p[putImage] != nil {
						b.Fatal("limited")
					}
				}
				return
			}
			now := time.Now()
			g.now = func() time.Time { now = now.Add(time.Millisecond); return now }
			b.ReportAllocs()
			for b.Loop() {
				if late, err := g.wait(b.Context(), "app", time.Second); late != 0 || err != nil {
					b.Fatal(late, err)
				}
			}
		})
	}
}
