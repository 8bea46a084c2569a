package upstream

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/proxy/internal/h1"
)

// Repeating ends after this time, well inside the patience of every push client (Docker gives a
// registry 15 s for its headers in some versions), or after so many attempts.
const (
	retryBudget   = 10 * time.Second
	retryAttempts = 6
	retryFirst    = 100 * time.Millisecond
	retryMost     = 2 * time.Second
)

// retry counts the attempts of one request.
type retry struct {
	r     *Registry
	start time.Time
	n     int
}

func (r *Registry) newRetry() *retry { return &retry{r: r, start: r.now()} }

// next is how long to wait before the next attempt: at least wait, or a backoff with jitter. False where that would end after
// the budget: then the answer is passed on with its Retry-After, and whoever asked can wait.
func (t *retry) next(wait time.Duration) (pause time.Duration, ok bool) {
	backoff := min(retryFirst<<t.n, retryMost)
	backoff = backoff/2 + time.Duration(t.r.jitter()*float64(backoff)/2)
	pause = max(wait, backoff)
	return pause, t.n+1 < retryAttempts && t.r.now().Sub(t.start)+pause < retryBudget
}

// sleep is the pause itself. False: ctx has ended.
func (t *retry) sleep(ctx context.Context, pause time.Duration) bool {
	t.n++
	if t.r.sleep(ctx, pause) != nil {
		return false
	}
	if t.r.observer != nil {
		t.r.observer.Retried()
	}
	return true
}

// again waits before the next attempt after one that brought no answer. False: give up.
func (t *retry) again(ctx context.Context) bool {
	if ctx.Err() != nil {
		return false
	}
	pause, ok := t.next(0)
	return ok && t.sleep(ctx, pause)
}

// repeated asks another host than the registry: a token service, or what a redirect leads to. It may be asked any number of times.
func (t *retry) repeated(ctx context.Context, host string, send func() (*http.Response, error)) (*http.Response, error) {
	for {
		resp, err := send()
		if err != nil {
			if connection(err) && t.again(ctx) {
				continue
			}
			return nil, unreachable(host, err)
		}
		if wait, late := transient(resp); late {
			if pause, fits := t.next(wait); fits {
				Discard(resp)
				if t.sleep(ctx, pause) {
					continue
				}
				return nil, unreachable(host, ctx.Err())
			}
		}
		return resp, nil
	}
}

// farOff stands for every longer wait: nobody waits so long here, and centuries are more than a Duration can be added to.
const farOff = time.Hour

// transient says that the same request may get a better answer soon, and when upstream wants it.
func transient(resp *http.Response) (wait time.Duration, ok bool) {
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		return 0, false
	}
	v := strings.TrimSpace(resp.Header.Get("Retry-After"))
	if s, err := strconv.ParseInt(v, 10, 64); s > 0 && (err == nil || errors.Is(err, strconv.ErrRange)) {
		return time.Duration(min(s, int64(farOff/time.Second))) * time.Second, true
	}
	if at, err := http.ParseTime(v); err == nil {
		date, err := http.ParseTime(resp.Header.Get("Date"))
		if err != nil {
			date = time.Now()
		}
		return min(max(0, at.Sub(date)), farOff), true
	}
	return 0, true
}

// undone says of an answer that the registry has done nothing: it has turned the request away, or has not had all of it in time
// (RFC 9110 section 15.5.9), which is what front ends say on an idle connection just as a request is on its way. A chunk may have
// been on its way too, and a part of it be there. whole is false for a stream of which something was read.
func (p *plan) undone(resp *http.Response, whole bool) bool {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return whole
	case http.StatusRequestTimeout:
		return p.post || p.stream != nil && whole
	}
	return false
}

// connection is true for an error of the connection, not of the caller, of the body or of a rule, a proxy's included.
func connection(err error) bool {
	if proxy, is := errors.AsType[*proxyRefusal](err); is && proxy.status < 500 {
		return false
	}
	return !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) &&
		!errors.Is(err, ErrBody) && !errors.Is(err, ErrHost) && !errors.Is(err, errHeaderTimeout) && !errors.Is(err, h1.ErrBadRequest)
}
