package upstream

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestCloseEndsASignInAndWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Options{
			URL: "https://registry.example.com", Credentials: Basic, Username: "u", Password: password("p"),
			Transport: transportFunc(func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {"Basic"}}, Body: http.NoBody}, nil
			}),
		})
		if err != nil {
			t.Fatal(err)
		}
		begun, ended := 0, false
		r.auth.source = sourceFunc(func(ctx context.Context) (credential, error) {
			begun++
			<-ctx.Done()
			time.Sleep(time.Second) // of the test's own clock: what does not wait is done before
			ended = true
			return credential{}, ctx.Err()
		})
		answer := make(chan error, 1)
		go func() {
			_, err := r.Do(t.Context(), Request{})
			answer <- err
		}()
		synctest.Wait()
		if begun != 1 {
			t.Fatalf("%d sign-ins have begun, want 1", begun)
		}
		if err := r.Close(); err != nil || !ended {
			t.Errorf("closed with %v while a sign-in was still running: %v", err, !ended)
		}
		if err := <-answer; !errors.Is(err, context.Canceled) {
			t.Errorf("the request that waited for it: %v", err)
		}
		if _, err := r.Do(t.Context(), Request{}); !errors.Is(err, ErrUnreachable) || begun != 1 {
			t.Errorf("after the end: %v, and %d sign-ins have begun", err, begun)
		}
	})
}

// slowCreator takes its time to notice that it is to end.
type slowCreator struct{ begun, ended int }

func (c *slowCreator) create(ctx context.Context, _ string) (bool, error) {
	c.begun++
	<-ctx.Done()
	time.Sleep(time.Second)
	c.ended++
	return false, ctx.Err()
}

func TestCloseEndsTheMakingOfARepositoryAndWaitsForIt(t *testing.T) {
	for name, patient := range map[string]bool{"that a client waits for": true, "that nobody waits for any more": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := New(Options{URL: "https://registry.example.com", Credentials: Anonymous})
				if err != nil {
					t.Fatal(err)
				}
				c := &slowCreator{}
				r.creating = newCreating(r, r.once, c, nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				answer := make(chan error, 1)
				go func() { answer <- r.EnsureRepository(ctx, "app") }()
				synctest.Wait()
				if !patient {
					cancel()
					<-answer
				}
				if err := r.Close(); err != nil || c.begun != 1 || c.ended != 1 {
					t.Errorf("closed with %v, %d begun, %d ended", err, c.begun, c.ended)
				}
				if patient {
					if err := <-answer; !errors.Is(err, context.Canceled) {
						t.Errorf("who waited for it: %v", err)
					}
				}
				if err := r.EnsureRepository(t.Context(), "late"); !errors.Is(err, ErrUnreachable) || c.begun != 1 {
					t.Errorf("after the end: %v, and %d have begun", err, c.begun)
				}
			})
		})
	}
}
