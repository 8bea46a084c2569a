package proxy_test

import (
	"context"
	"net/http"
	"testing"

	"sluice/proxy/proxytest"
)

// Who waits for the answer that another client has asked for gets what upstream said, also when that client has gone.
func TestAClientThatGoesAwayTakesNoAnswerWithIt(t *testing.T) {
	arrived, left := make(chan struct{}, 2), make(chan struct{}, 2)
	asked, answer := make(chan struct{}, 10), make(chan struct{})
	r := newRig(t, proxytest.NewDistribution(t, proxytest.UpstreamOptions{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost {
				next.ServeHTTP(w, r)
				return
			}
			asked <- struct{}{}
			<-answer
			panic(http.ErrAbortHandler)
		})
	}}), with(passthrough), before(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			arrived <- struct{}{}
			defer func() { left <- struct{}{} }()
			next.ServeHTTP(w, r)
		})
	}))
	post := func(ctx context.Context) (int, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url()+"/v2/app/blobs/uploads/", nil)
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", alice)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	ctx, leave := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := post(ctx)
		first <- err
	}()
	<-arrived
	<-asked
	second := make(chan int)
	go func() {
		status, err := post(t.Context())
		if err != nil {
			t.Error(err)
		}
		second <- status
	}()
	<-arrived
	leave()
	if err := <-first; err == nil {
		t.Error("the first got an answer")
	}
	<-left
	close(answer)
	if status := <-second; status != http.StatusBadGateway {
		t.Errorf("the second gets %d", status)
	}
}
