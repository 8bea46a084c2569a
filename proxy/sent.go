package proxy

import (
	"sync"
	"time"
)

const (
	// sentTTL is how long at least it is remembered that upstream has a blob; at most twice as long. A push
	// of many large layers takes some minutes.
	sentTTL = 10 * time.Minute
	// maxSent bounds the memory of a hint: some MiB.
	maxSent = 8192
)

// sent remembers blobs that upstream took or said it has, images that it took by the path of their manifest, and what was
// forwarded whatever it is (wentAlong), so that the manifest which refers to them need not look for them in the storage:
// three calls for each, and most manifests refer to nothing else. It is a hint of this process and tells no client anything.
// Where it is wrong, because somebody deleted the blob meanwhile, upstream refuses the manifest, and then everything is
// looked up (putUpstream). Not every upstream looks: so a client that was told of a copy that Sluice has, and does not send
// its own, ends the hint.
type sent struct {
	now func() time.Time

	mu         sync.Mutex
	young, old map[inRepo]struct{} // old is dropped as a whole when young gets old
	turned     time.Time
}

func newSent(now func() time.Time) *sent {
	return &sent{now: now, young: map[inRepo]struct{}{}, turned: now()}
}

func (s *sent) put(repo, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn()
	if len(s.young) >= maxSent {
		s.old, s.young = s.young, map[inRepo]struct{}{}
	}
	s.young[inRepo{repo, digest}] = struct{}{}
}

func (s *sent) has(repo, digest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn()
	k := inRepo{repo, digest}
	_, found := s.young[k]
	if !found {
		_, found = s.old[k]
	}
	return found
}

func (s *sent) forget(repo, digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.young, inRepo{repo, digest})
	delete(s.old, inRepo{repo, digest})
}

func (s *sent) turn() {
	switch age := s.now().Sub(s.turned); {
	case age < sentTTL:
		return
	case age < 2*sentTTL:
		s.old = s.young
	default:
		s.old = nil
	}
	s.young, s.turned = map[inRepo]struct{}{}, s.now()
}
