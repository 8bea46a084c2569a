package proxy

import (
	"testing"
	"time"
)

// Who pushes attestations alone, time and again, opens a session a minute and takes none.
func TestSessionsThatNobodyTakesAreForgotten(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAuthority(func() time.Time { return now })
	for range 100 {
		a.offer(proofKey{repo: "app"}, "/somewhere")
		a.expire()
		now = now.Add(proofTTL)
	}
	if n := len(a.spare[proofKey{repo: "app"}]); n > 1 {
		t.Errorf("%d sessions are remembered", n)
	}
	now = now.Add(-time.Second)
	a.offer(proofKey{repo: "app"}, "/another")
	now = now.Add(2 * time.Second)
	a.expire()
	if got := a.take(proofKey{repo: "app"}); got != "/another" {
		t.Errorf("took %q", got)
	}
	a.expire()
	if len(a.spare) > 0 {
		t.Errorf("left: %v", a.spare)
	}
}
