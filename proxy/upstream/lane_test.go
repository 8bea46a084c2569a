package upstream

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// However requests come, wait, give up and are refused, no second ever holds more of them than the rate,
// nobody waits while there is room, and repositories take turns.
func TestALaneKeepsItsRateAndIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLane(rapid.IntRange(1, 12).Draw(t, "rate"))
		now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
		var sent []time.Time
		went := func() {
			sent = append(sent, now)
			if i := len(sent) - 1 - l.rate; i >= 0 && now.Sub(sent[i]) < time.Second {
				t.Fatalf("%d requests within %s at a rate of %d", l.rate+1, now.Sub(sent[i]), l.rate)
			}
			if now.Before(l.resume) {
				t.Fatalf("a request went %s before the pause was over", l.resume.Sub(now))
			}
		}
		var waiting []*waiter
		passed := map[*waiter]map[string]int{} // how often each repository went while this one was the first of its own
		grant := func() {
			if _, more := l.advance(now); !more && l.waiting > 0 {
				t.Fatal("somebody waits, and nobody will look")
			}
			var gone []*waiter
			waiting = slices.DeleteFunc(waiting, func(w *waiter) bool {
				select {
				case <-w.ready:
					gone = append(gone, w)
					return true
				default:
					return false
				}
			})
			for _, w := range gone {
				went()
				delete(passed, w)
			}
			if len(gone) == 0 {
				return
			}
			// Who still waits as the first of its repository saw each other repository go at most once in this
			// turn, and as often in the turns before.
			first := map[string]bool{}
			for _, w := range waiting {
				if first[w.repo] {
					continue
				}
				first[w.repo] = true
				own := slices.ContainsFunc(gone, func(g *waiter) bool { return g.repo == w.repo })
				if passed[w] == nil || own {
					passed[w] = map[string]int{}
					if own {
						continue
					}
				}
				for _, g := range gone {
					if passed[w][g.repo]++; passed[w][g.repo] > 1 {
						t.Fatalf("%s went %d times while %s waited for its turn", g.repo, passed[w][g.repo], w.repo)
					}
				}
			}
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"request", "request", "request", "time", "time", "leave", "refusal"}).Draw(t, "step") {
			case "request":
				w := &waiter{repo: fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "repo")), ready: make(chan struct{})}
				idle := l.waiting == 0
				if l.take(now) {
					if !idle {
						t.Fatal("a request went past those that wait")
					}
					went()
					break
				}
				if l.due(now, w.repo).Before(now) {
					t.Fatal("due in the past")
				}
				l.join(w)
				waiting = append(waiting, w)
				grant()
			case "time":
				now = now.Add(time.Duration(rapid.IntRange(1, 1500).Draw(t, "ms")) * time.Millisecond)
				grant()
			case "leave":
				if len(waiting) > 0 {
					i := rapid.IntRange(0, len(waiting)-1).Draw(t, "who")
					l.leave(waiting[i])
					delete(passed, waiting[i])
					waiting = slices.Delete(waiting, i, i+1)
				}
			case "refusal":
				l.slow(now, time.Duration(rapid.IntRange(0, 3).Draw(t, "s"))*time.Second)
			}
			if l.waiting != len(waiting) {
				t.Fatalf("%d wait, the lane counts %d", len(waiting), l.waiting)
			}
		}
		for i := 0; len(waiting) > 0; i++ { // everybody goes in the end
			if i > 10_000 {
				t.Fatalf("%d wait for ever", len(waiting))
			}
			next, _ := l.advance(now)
			grant()
			if next.After(now) {
				now = next
			}
		}
	})
}

func TestWhenSomebodyIsDueIsWhenHeGoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLane(rapid.IntRange(1, 5).Draw(t, "rate"))
		now := time.Unix(1000, 0)
		var last *waiter
		var due time.Time
		for range rapid.IntRange(1, 30).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
			l.advance(now)
			last = &waiter{repo: fmt.Sprint("r", rapid.IntRange(0, 2).Draw(t, "repo")), ready: make(chan struct{})}
			due = l.due(now, last.repo)
			l.join(last)
		}
		for { // nobody else comes: the last one goes exactly when it was told
			next, _ := l.advance(now)
			select {
			case <-last.ready:
				if !now.Equal(due) {
					t.Fatalf("went at %s, was due at %s", now.Sub(time.Unix(1000, 0)), due.Sub(time.Unix(1000, 0)))
				}
				return
			default:
				now = next
			}
		}
	})
}

func TestARefusalHalvesTheRateAndItComesBack(t *testing.T) {
	l, now := newLane(10), time.Unix(1000, 0)
	second := func() (n int) {
		for l.take(now) {
			n++
		}
		now = now.Add(time.Second)
		return n
	}
	var got []int
	got = append(got, second())
	for range 3 { // three requests of one burst are refused, which is one refusal
		l.slow(now, 0)
	}
	for range 8 {
		got = append(got, second())
	}
	// A second's rest, then half, then a tenth more each second.
	if want := []int{10, 0, 6, 7, 8, 9, 10, 10, 10}; !slices.Equal(got, want) {
		t.Errorf("requests per second %v, want %v", got, want)
	}
	for range 10 {
		l.slow(now, 0)
		now = now.Add(time.Second)
	}
	if l.limit != 1 {
		t.Errorf("limit %d after refusals without end", l.limit)
	}
}
