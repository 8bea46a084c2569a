package upstream

import (
	"context"
	"errors"
	"strings"
	"testing"

	"sluice/proxy/internal/contain"
)

// What is fetched or made once for all who wait for it is done in a goroutine of its own. A bug there is the error of those
// who wait; nothing remembers it.
func TestABugWhileATokenIsFetchedEndsTheRequestAndNothingElse(t *testing.T) {
	f := newFake(t, &fake{scheme: "bearer", allow: only("Bearer t1")})
	buggy := true
	r, _ := open(t, Options{URL: f.URL, Credentials: Basic, Username: "u", Password: func() (string, error) {
		if buggy {
			panic("no password is that long")
		}
		return "p", nil
	}})
	for range 2 {
		_, err := r.Do(t.Context(), Request{Repository: "app", Path: "tags/list"})
		var bug *contain.Bug
		if !errors.As(err, &bug) || !strings.Contains(bug.Where, "fetchGrant") {
			t.Fatalf("got %v", err)
		}
	}
	buggy = false
	do(t, r, 200, Request{Repository: "app", Path: "tags/list"})
}

type buggyCreator struct{ buggy bool }

func (c *buggyCreator) create(context.Context, string) (bool, error) {
	if c.buggy {
		panic("no repository has that name")
	}
	return true, nil
}

func TestABugWhileARepositoryIsMadeEndsThePushAndNothingElse(t *testing.T) {
	r, _ := open(t, Options{URL: "http://registry.test", Credentials: Anonymous})
	c := &buggyCreator{buggy: true}
	making := newCreating(r, nil, c, nil)
	defer making.close()
	var bug *contain.Bug
	if err := making.ensure(t.Context(), "app"); !errors.As(err, &bug) {
		t.Fatalf("got %v", err)
	}
	c.buggy = false
	if err := making.ensure(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
}
