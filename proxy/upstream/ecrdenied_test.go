package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestAnExpiredECRTokenIsRenewedAtOnce(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusUnauthorized, http.StatusBadRequest} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			c, f := newControlPlane(t), newECRFake(t)
			f.status = status
			r, _ := openECR(t, c, f.URL)
			do(t, r, 200, Request{})
			f.expire(1)
			do(t, r, 200, Request{Method: "PUT", Repository: "app", Path: "manifests/1", Replay: []byte("{}"), Push: true})

			f.expire(2) // a HEAD says no reason: the token is doubted then
			do(t, r, 200, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})

			// A body is announced first, and so finds out before its first byte.
			f.expire(3)
			body := &counter{r: io.LimitReader(zeros{}, 1<<20)}
			do(t, r, 200, Request{Method: "PUT", Repository: "app", Path: "blobs/uploads/x", Body: body, ContentLength: 1 << 20, Push: true})
			if c.count() != 4 || body.read() != 1<<20 {
				t.Errorf("%d tokens, %d bytes", c.count(), body.read())
			}
		})
	}
}

func TestADeniedHEADAsksForOneTokenInAWhile(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	f.handle = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
	r, clock := openECR(t, c, f.URL)
	for range 3 {
		do(t, r, 403, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})
	}
	clock.add(10 * time.Minute)
	for range 3 {
		do(t, r, 403, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})
	}
	if n := c.count(); n != 3 {
		t.Errorf("%d tokens, want 3: the first, and one for each time of doubt", n)
	}
}

func TestADeniedHEADIsECRsAnswerWhileAWSIsDown(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusBadRequest} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			c, f := newControlPlane(t), newECRFake(t)
			r, clock := openECR(t, c, f.URL)
			do(t, r, 200, Request{})
			f.handle = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
			c.mu.Lock()
			c.refuse = "AccessDeniedException"
			c.mu.Unlock()
			for want := 2; want <= 3; want++ {
				for range 4 {
					do(t, r, status, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})
				}
				if n := c.count(); n != want {
					t.Errorf("AWS was asked %d times, want %d: once for each time of doubt", n, want)
				}
				clock.add(doubtEvery)
			}
			// A token that has ended is no doubt: then the answer is what is wrong with signing in.
			clock.add(12 * time.Hour)
			if _, err := r.Do(t.Context(), Request{Method: "HEAD", Repository: "app", Path: "manifests/1"}); !errors.Is(err, ErrCredentials) {
				t.Errorf("with a token that has ended: %v", err)
			}
		})
	}
}

func TestADeniedHEADAfterTheEndOfItsTokenIsNoDoubt(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	c.life = 20 * time.Second
	r, clock := openECR(t, c, f.URL)
	do(t, r, 200, Request{})
	tokens := 1
	for _, ended := range []int{1, 1, 2, 5, 1} {
		refusals := 0
		f.handle = func(w http.ResponseWriter, _ *http.Request) {
			if refusals < ended {
				refusals++
				clock.add(25 * time.Second)
				w.WriteHeader(http.StatusForbidden)
			}
		}
		do(t, r, 200, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})
		if tokens += ended; c.count() != tokens {
			t.Errorf("%d tokens after %d that ended, want %d", c.count(), ended, tokens)
		}
	}
	f.handle = func(w http.ResponseWriter, _ *http.Request) {
		clock.add(25 * time.Second)
		w.WriteHeader(http.StatusForbidden)
	}
	do(t, r, 403, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})
	if more := c.count() - tokens; more < 2 || more > retryAttempts+1 {
		t.Errorf("%d more tokens for a request that is always refused", more)
	}
}

func TestATokenThatHasEndedByOurClockIsTried(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	c.life = -time.Hour
	r, clock := openECR(t, c, f.URL)
	for range 5 {
		do(t, r, 200, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})
	}
	if n := c.count(); n != 1 {
		t.Errorf("%d tokens for five requests that were taken", n)
	}
	for n := 1; n <= 3; n++ {
		f.expire(n)
		do(t, r, 200, Request{Method: "HEAD", Repository: "app", Path: "manifests/1"})
		clock.add(time.Second)
	}
	if n := c.count(); n != 4 {
		t.Errorf("%d tokens after three that ended", n)
	}
}

func TestADenialOfIAMIsPassedOn(t *testing.T) {
	c, f := newControlPlane(t), newECRFake(t)
	const denied = `{"errors":[{"code":"DENIED","message":"User: arn:aws:iam::1:user/ci is not authorized to perform: ecr:PutImage on resource: x"}]}`
	f.handle = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, denied)
	}
	r, clock := openECR(t, c, f.URL)
	do(t, r, 403, Request{})
	clock.add(time.Hour)
	if _, body := do(t, r, 403, Request{}); string(body) != denied || c.count() != 1 {
		t.Errorf("body %s, %d tokens", body, c.count())
	}
}
