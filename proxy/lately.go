package proxy

import (
	"maps"
	"sync"
	"time"
)

// maxLately bounds the memory of a hint: everything goes at once, and is found out again.
const maxLately = 4096

// lately remembers for a while what was found out or done. It is a hint of this process.
type lately[K comparable] struct {
	now func() time.Time
	ttl time.Duration

	mu   sync.Mutex
	when map[K]time.Time
}

// inRepo is a digest of a repository, or whatever else something in it is remembered by.
type inRepo struct{ repo, ref string }

func (l *lately[K]) put(k K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.when == nil || len(l.when) >= maxLately {
		l.when = map[K]time.Time{}
	}
	l.when[k] = l.now()
}

func (l *lately[K]) has(k K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, ok := l.when[k]
	return ok && l.now().Sub(t) < l.ttl
}

func (l *lately[K]) forget(gone func(K) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.when, func(k K, _ time.Time) bool { return gone(k) })
}
