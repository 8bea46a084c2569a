package proxy

import (
	"sync"

	"sluice/proxy/session"
)

// maxProgress bounds how many uploads are remembered; the oldest go first.
const maxProgress = 4096

// progress remembers how far uploads in several requests have come, so that an upload URL of an
// earlier answer tells the truth (distribution-spec, "Pushing a blob in chunks": a repeated chunk is
// 416, the status is what has arrived). It is a hint of this process: on another replica an old URL
// begins again where it was given out, and upstream's check of the digest guards the end.
type progress struct {
	mu    sync.Mutex
	byID  map[string]session.State
	order []string
}

func newProgress() *progress { return &progress{byID: map[string]session.State{}} }

func (p *progress) put(st session.State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.byID[st.ID]; !known {
		p.order = append(p.order, st.ID)
		if len(p.order) > maxProgress {
			delete(p.byID, p.order[0])
			p.order = p.order[1:]
		}
	}
	p.byID[st.ID] = st
}

// newest is the later of a sealed state and what is remembered of its upload.
func (p *progress) newest(st session.State) (newest session.State, stale bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.byID[st.ID]
	if !ok || known.Offset <= st.Offset {
		return st, false
	}
	return known, true
}

func (p *progress) done(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.byID, id)
}
