package proxy

import (
	"fmt"
	"testing"
	"time"

	"sluice/proxy/config"
)

func TestWhatNoIndexClaimsCountsUntilItIsSwept(t *testing.T) {
	now := time.Date(2026, 11, 26, 23, 0, 0, 0, time.UTC)
	c := config.Default()
	c.Access.MaxHeldPerIdentity, c.Retention = 100, 2
	q := newHeldQuota(c, func() time.Time { return now }, newHeldCounts())
	full := func(identity string, n int64, want bool) {
		t.Helper()
		if got := q.full(identity, n); got != want {
			t.Errorf("%s with %d more is full: %t, want %t", identity, n, got, want)
		}
	}
	full("a", 100, false)
	full("a", 101, true)
	full("a", -1, false) // a length that is not known
	q.charge("a", 60)
	now = now.Add(2 * time.Hour) // the next day
	q.charge("a", 30)
	full("a", 10, false)
	full("a", 11, true)
	full("b", 100, false)
	q.credit("a", 50) // 30 of today, 20 of yesterday
	full("a", 60, false)
	full("a", 61, true)
	q.credit("a", 1000)
	full("a", 100, false)
	q.charge("a", 100)
	full("a", 1, true)
	now = now.Add(72 * time.Hour)
	full("a", 1, true)
	now = now.Add(24 * time.Hour)
	full("a", 100, false)
	for i := range maxHolders + 10 {
		q.charge(fmt.Sprint(i), 1)
	}
	if n := len(q.held); n > maxHolders {
		t.Errorf("%d identities are remembered", n)
	}
}
