//go:build soak

package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A tally counts what the mix was.
type tally struct {
	mu    sync.Mutex
	count map[string]int
}

// expect names what must happen at least once.
func (n *tally) expect(what ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.count == nil {
		n.count = map[string]int{}
	}
	for _, w := range what {
		n.count[w] += 0
	}
}

func (n *tally) did(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count[what]++
}

func (n *tally) log(t *testing.T, what string, d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var words []string
	for _, w := range slices.Sorted(maps.Keys(n.count)) {
		words = append(words, fmt.Sprintf("%d %s", n.count[w], w))
	}
	t.Logf("%s of %s:\n  %s", what, d, strings.Join(words, "\n  "))
}

// never is what did not happen.
func (n *tally) never() (words []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for w, c := range n.count {
		if c == 0 {
			words = append(words, w)
		}
	}
	slices.Sort(words)
	return words
}
