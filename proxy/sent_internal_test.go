package proxy

import (
	"strconv"
	"testing"
	"time"
)

func TestWhatWasSentIsRememberedForAWhile(t *testing.T) {
	at := time.Unix(1e9, 0)
	s := newSent(func() time.Time { return at })
	s.put("app", "a")
	if !s.has("app", "a") || s.has("app", "b") || s.has("other", "a") {
		t.Error("not what was put")
	}
	at = at.Add(sentTTL + time.Second)
	s.put("app", "b")
	if !s.has("app", "a") {
		t.Error("forgotten after one turn")
	}
	at = at.Add(sentTTL)
	if s.has("app", "a") || !s.has("app", "b") {
		t.Error("the first must be gone, the second not")
	}
	s.forget("app", "b")
	if s.has("app", "b") {
		t.Error("not forgotten")
	}
	s.put("app", "c")
	at = at.Add(3 * sentTTL)
	if s.has("app", "c") {
		t.Error("remembered for ever")
	}
}

func TestWhatIsRememberedAsSentIsBounded(t *testing.T) {
	s := newSent(time.Now)
	for i := range 3 * maxSent {
		s.put("app", strconv.Itoa(i))
	}
	if n := len(s.young) + len(s.old); n > 2*maxSent {
		t.Errorf("%d entries", n)
	}
	if !s.has("app", strconv.Itoa(3*maxSent-1)) {
		t.Error("the newest is gone")
	}
}
